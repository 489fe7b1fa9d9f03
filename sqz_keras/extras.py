"""Packages that only some uses need: a missing one is named in one line, with the extra that brings it."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

KERAS = ("tensorflow", "jax", "torch")  # extras that bring Keras, each with the backend that it names
_OURS = ("sqz_keras", "trainers", "export")


class MissingExtraError(ModuleNotFoundError):
    """A package is not installed.

    Args:
        package: The package, by the name under which it is imported.
        extras: The extras that bring it; one is enough.
    """

    def __init__(self, package: str, extras: tuple[str, ...]):
        *others, last = [f"'sqz-keras[{extra}]'" for extra in extras]
        choice = f"{', '.join(others)} or {last}" if others else last
        super().__init__(f"needs the package {package}; install it with: pip install {choice}", name=package)
        self.extras = extras


@contextlib.contextmanager
def needs(*extras: str) -> Iterator[None]:
    """Names the extra that brings a package if an import in the block finds it missing.

    Args:
        extras: The extras that bring what the block imports; one is enough. The extras of an inner block take
            precedence, unless they only say that Keras is needed.

    Raises:
        MissingExtraError: A package is missing.
    """
    try:
        yield
    except MissingExtraError as error:
        if error.extras != KERAS or extras == KERAS:
            raise
        raise MissingExtraError(error.name, extras) from error
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", *_OURS, *sys.stdlib_module_names):
            raise
        raise MissingExtraError(package, extras) from error


def require(package: str, *extras: str) -> None:
    """Names the extra that brings a package if it is missing; does not import the package.

    Raises:
        MissingExtraError: The package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extras)
