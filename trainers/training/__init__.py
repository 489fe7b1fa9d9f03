"""One training run: its config, its loop, and what it keeps on disk."""
