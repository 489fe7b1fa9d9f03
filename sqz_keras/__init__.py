"""SqueezeNet for Keras 3: the network, its pretrained weights, its compression and its serving."""

import importlib
import typing

from sqz_keras.metaparams import Metaparameters
from sqz_keras.records import Record, get_record, list_records
from sqz_keras.spec import ModelSpec, Preprocessing
from sqz_keras.weights import resolve_model

if typing.TYPE_CHECKING:
    from sqz_keras.preprocessing import decode_predictions, prepare_images, preprocess_input
    from sqz_keras.squeezenet import (
        SqueezeNet,
        SqueezeNetComplexBypass,
        SqueezeNetSimpleBypass,
        SqueezeNetV1_1,
        load,
        squeezenet_from_metaparameters,
    )

__version__ = "0.1.0"

__all__ = [
    "Metaparameters",
    "ModelSpec",
    "Preprocessing",
    "Record",
    "SqueezeNet",
    "SqueezeNetComplexBypass",
    "SqueezeNetSimpleBypass",
    "SqueezeNetV1_1",
    "decode_predictions",
    "get_record",
    "list_records",
    "load",
    "prepare_images",
    "preprocess_input",
    "resolve_model",
    "squeezenet_from_metaparameters",
]


def __getattr__(name: str):
    """Imports Keras with the first name that needs it: reading a file, or a command's --help, needs none."""
    if name not in __all__:
        raise AttributeError(f"module 'sqz_keras' has no attribute {name!r}")
    preprocessing = name in ("decode_predictions", "prepare_images", "preprocess_input")
    home = importlib.import_module(f"sqz_keras.{'preprocessing' if preprocessing else 'squeezenet'}")
    return getattr(home, name)
