"""Recipes, one per module: `--config=NAME` uses what `get_config()` in `trainers/configs/NAME.py` returns."""

from __future__ import annotations

import importlib
import pkgutil

from trainers.training.config import TrainConfig


def list_configs() -> list[str]:
    """The names that `--config` takes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_config(name: str) -> TrainConfig:
    """Loads the recipe of this name.

    Args:
        name: A module of this package.

    Returns:
        The recipe; use `dataclasses.replace` to change its fields.

    Raises:
        ValueError: There is no such recipe; the message lists the names.
    """
    if name not in list_configs():
        raise ValueError(f"No config is called {name!r}; there are {', '.join(list_configs())}.")
    return importlib.import_module(f"{__name__}.{name}").get_config()
