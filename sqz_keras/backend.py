"""Keras, on a backend that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys
import types

from sqz_keras.extras import KERAS, needs, require

_VARIABLE = "KERAS_BACKEND"
_BACKENDS = (*KERAS, "openvino")


def import_keras() -> types.ModuleType:
    """Imports Keras on the backend that the user has chosen, or else on one that is installed.

    Keras uses TensorFlow unless KERAS_BACKEND or its keras.json names another backend, and it writes that file itself.
    So a backend in keras.json that is not installed does not count as the user's choice.

    Raises:
        MissingExtraError: Keras, or the backend, is not installed.
    """
    if imported := sys.modules.get("keras"):
        return imported  # in tf.data's maps, AutoGraph would warn that it cannot convert find_spec
    require("keras", *KERAS)
    if not os.environ.get(_VARIABLE) and not _is_installed(_configured()):
        installed = next(filter(_is_installed, _BACKENDS), None)
        if installed:
            os.environ[_VARIABLE] = installed
    chosen = os.environ.get(_VARIABLE)
    with needs(*([chosen] if chosen in _BACKENDS else KERAS)):
        import keras
    return keras


def use_default_settings() -> None:
    """Sets what this project's commands expect, whatever keras.json says: channels_last and float32.

    Raises:
        MissingExtraError: Keras, or the backend, is not installed.
    """
    keras = import_keras()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def check_is_tensorflow(what: str) -> None:
    """Refuses any backend but TensorFlow.

    Args:
        what: What needs TensorFlow; the message begins with it.

    Raises:
        ValueError: Keras runs on another backend.
        MissingExtraError: Keras is not installed.
    """
    backend = import_keras().backend.backend()
    if backend != "tensorflow":
        raise ValueError(f"{what} needs Keras on TensorFlow, not on {backend}; set KERAS_BACKEND=tensorflow.")


def _configured() -> str:
    """The backend that keras.json names, or Keras's default."""
    home = os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
    try:
        config = json.loads(pathlib.Path(os.path.expanduser(home), "keras.json").read_text("utf-8"))
        return str(config.get("backend", KERAS[0]))
    except (OSError, ValueError, AttributeError):
        return KERAS[0]


def _is_installed(backend: str) -> bool:
    return importlib.util.find_spec(backend) is not None
