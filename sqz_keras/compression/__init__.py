"""Compression methods. They work on a ModelSpec and a dict of named arrays; kernels are HWIO."""
