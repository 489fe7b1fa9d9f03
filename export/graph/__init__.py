"""The exported TensorFlow graph."""
