"""Pretrained records and files of weights: found, verified, read, written."""
