"""The client of the serving contract."""
