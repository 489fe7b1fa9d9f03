"""Methods of compression. They work on a ModelSpec and a dict of named arrays, kernels HWIO."""
