"""The web page of sqz-serve."""
