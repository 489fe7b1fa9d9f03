"""SqueezeNet for Keras 3: the network, its pretrained weights, its compression and its serving."""

import importlib
import sys
import typing

from sqz_keras.version import __version__ as __version__

if typing.TYPE_CHECKING:
    from sqz_keras import applications, explain
    from sqz_keras.architecture.metaparameters import Metaparameters
    from sqz_keras.architecture.spec import ModelSpec, Preprocessing
    from sqz_keras.explain import class_map, overlay
    from sqz_keras.images.preprocessing import decode_predictions, prepare_images, preprocess_input
    from sqz_keras.models.squeezenet import (
        SqueezeNet,
        SqueezeNetComplexBypass,
        SqueezeNetSimpleBypass,
        SqueezeNetV1_1,
        load,
        squeezenet_from_metaparameters,
    )
    from sqz_keras.weights.records import Record, get_record, list_records
    from sqz_keras.weights.resolve import resolve_model

__all__ = [
    "Metaparameters",
    "ModelSpec",
    "Preprocessing",
    "Record",
    "SqueezeNet",
    "SqueezeNetComplexBypass",
    "SqueezeNetSimpleBypass",
    "SqueezeNetV1_1",
    "applications",
    "class_map",
    "decode_predictions",
    "explain",
    "get_record",
    "list_records",
    "load",
    "overlay",
    "prepare_images",
    "preprocess_input",
    "resolve_model",
    "squeezenet_from_metaparameters",
]

# The module of each name; names that are not listed here are in sqz_keras.models.squeezenet.
_MODULES = {
    "Metaparameters": "architecture.metaparameters",
    "ModelSpec": "architecture.spec",
    "Preprocessing": "architecture.spec",
    "Record": "weights.records",
    "class_map": "explain",
    "decode_predictions": "images.preprocessing",
    "get_record": "weights.records",
    "list_records": "weights.records",
    "overlay": "explain",
    "prepare_images": "images.preprocessing",
    "preprocess_input": "images.preprocessing",
    "resolve_model": "weights.resolve",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not typing.TYPE_CHECKING:  # a type checker that saw this function would accept any misspelt name

    def __getattr__(name: str):
        """Imports a name on first use, so that a command, or a client at its start, waits only for what it needs."""
        if name not in __all__:
            package = sys.modules[__name__]  # from which Python suggests names
            raise AttributeError(f"module 'sqz_keras' has no attribute {name!r}", name=name, obj=package)
        if name in ("applications", "explain"):
            return importlib.import_module(f"sqz_keras.{name}")
        module = importlib.import_module(f"sqz_keras.{_MODULES.get(name, 'models.squeezenet')}")
        return globals().setdefault(name, getattr(module, name))
