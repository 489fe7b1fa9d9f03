"""What sqz-sweep does."""
