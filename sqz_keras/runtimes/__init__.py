"""A model as the file of another runtime, written from its arrays: numpy alone, no TensorFlow and no Keras."""
