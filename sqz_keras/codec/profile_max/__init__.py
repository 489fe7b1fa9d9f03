"""The profile `max`: adaptive context models of zeros and values, and an entropy coder."""
