"""The face that keras.applications has: the builders, and one module a family of models."""

from sqz_keras.applications import squeezenet
from sqz_keras.models.squeezenet import (
    SqueezeNet,
    SqueezeNetComplexBypass,
    SqueezeNetSimpleBypass,
    SqueezeNetV1_1,
    squeezenet_from_metaparameters,
)

__all__ = [
    "SqueezeNet",
    "SqueezeNetComplexBypass",
    "SqueezeNetSimpleBypass",
    "SqueezeNetV1_1",
    "squeezenet",
    "squeezenet_from_metaparameters",
]
