"""Datasets of our own in the form of TensorFlow Datasets; importing a module registers its builder."""
