"""The files that sqz-export writes."""
