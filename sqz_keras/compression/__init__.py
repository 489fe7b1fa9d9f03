"""Stages of compression: each takes and gives a ModelSpec and a dict of named arrays, kernels HWIO."""
