"""From images of any size to the network inputs that the weights expect."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sqz_keras.extras import needs

with needs("hub"):
    import keras
    import keras_hub

from sqz_keras.architecture.spec import ModelSpec, Preprocessing
from sqz_keras.hub.backbone import SqueezeNetBackbone
from sqz_keras.images.preprocessing import prepare_images


@keras.saving.register_keras_serializable(package="sqz_keras")
class SqueezeNetImageConverter(keras_hub.layers.ImageConverter):
    """Resizes, crops the centre and changes the colours: `sqz_keras.prepare_images` as a layer.

    Takes images (N, H, W, 3) or (H, W, 3), RGB in 0..255, any numeric dtype; returns float32 (N, S, S, 3) or (S, S, 3).

    Args:
        input_size: S, the height and width of the network's input in pixels.
        preprocessing: A `Preprocessing`, or its fields.
        **kwargs: As for any Keras layer.
    """

    backbone_cls = SqueezeNetBackbone

    def __init__(self, input_size: int, preprocessing: Preprocessing | Mapping[str, Any], **kwargs):
        super().__init__(**kwargs)
        if not isinstance(preprocessing, Preprocessing):
            preprocessing = Preprocessing(**preprocessing)
        self.spec = ModelSpec(input_size=input_size, preprocessing=preprocessing)

    @property
    def image_size(self) -> tuple[int, int]:
        """(S, S). It cannot be changed: the weights expect it."""
        return self.spec.input_size, self.spec.input_size

    @image_size.setter
    def image_size(self, value):
        raise ValueError(
            f"These weights take images of {self.spec.input_size} x {self.spec.input_size} pixels, got "
            f"image_size={value}. Make an image converter of another input_size and Preprocessing for a network of "
            "your own."
        )

    def call(self, inputs):
        """The network's inputs.

        Args:
            inputs: Images, as the class takes them.

        Returns:
            Float32 (N, S, S, 3) or (S, S, 3).
        """
        return prepare_images(inputs if hasattr(inputs, "shape") else np.asarray(inputs), self.spec)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        own = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        how = {"input_size": self.spec.input_size, "preprocessing": dataclasses.asdict(self.spec.preprocessing)}
        return own | how


@keras.saving.register_keras_serializable(package="sqz_keras")
class SqueezeNetImageClassifierPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """KerasHub's preprocessor of an image classifier, with a `SqueezeNetImageConverter`."""

    backbone_cls = SqueezeNetBackbone
    image_converter_cls = SqueezeNetImageConverter
