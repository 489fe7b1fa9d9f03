"""What sqz-compress does."""
