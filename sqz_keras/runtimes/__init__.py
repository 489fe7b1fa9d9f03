"""A model as the file of another runtime, written from its arrays with numpy, without TensorFlow or Keras."""
