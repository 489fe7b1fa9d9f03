"""What a SqueezeNet is made of, without Keras: metaparameters, `ModelSpec`, summary and drawing."""
