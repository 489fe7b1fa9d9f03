"""From files and datasets to batches."""
