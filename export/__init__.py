"""From a model to versioned SavedModels, and the server and client that speak TensorFlow Serving's protocol."""
