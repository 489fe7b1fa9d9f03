"""SqueezeNet as keras.applications would offer it: `from sqz_keras.applications.squeezenet import SqueezeNet`."""

from sqz_keras.architecture.metaparameters import Metaparameters
from sqz_keras.images.preprocessing import decode_predictions, preprocess_input
from sqz_keras.models.squeezenet import (
    SqueezeNet,
    SqueezeNetComplexBypass,
    SqueezeNetSimpleBypass,
    SqueezeNetV1_1,
    squeezenet_from_metaparameters,
)

__all__ = [
    "Metaparameters",
    "SqueezeNet",
    "SqueezeNetComplexBypass",
    "SqueezeNetSimpleBypass",
    "SqueezeNetV1_1",
    "decode_predictions",
    "preprocess_input",
    "squeezenet_from_metaparameters",
]
