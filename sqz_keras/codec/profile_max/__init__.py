"""The profile `max`: adaptive models of zeros and values, and an entropy coder."""
