"""Recipes, a module each: `--config=NAME` takes what `get_config()` of `trainers/configs/NAME.py` returns."""
