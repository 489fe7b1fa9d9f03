"""SqueezeNet for Keras 3: the network, its pretrained weights, its compression and its serving."""

from sqz_keras.metaparams import Metaparameters
from sqz_keras.preprocessing import decode_predictions, prepare_images, preprocess_input
from sqz_keras.records import Record, get_record, list_records
from sqz_keras.spec import ModelSpec, Preprocessing
from sqz_keras.squeezenet import (
    SqueezeNet,
    SqueezeNetComplexBypass,
    SqueezeNetSimpleBypass,
    SqueezeNetV1_1,
    load,
    squeezenet_from_metaparameters,
)
from sqz_keras.weights import resolve_model

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
