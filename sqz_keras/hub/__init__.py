"""SqueezeNet among KerasHub's models: `keras_hub.models.ImageClassifier.from_preset` loads presets that hold a `.sqz`.

Importing this package registers its classes with KerasHub. Keras must run on TensorFlow.
"""

from sqz_keras.hub.backbone import SqueezeNetBackbone
from sqz_keras.hub.image_classifier import SqueezeNetImageClassifier
from sqz_keras.hub.preprocessor import SqueezeNetImageClassifierPreprocessor, SqueezeNetImageConverter

__all__ = [
    "SqueezeNetBackbone",
    "SqueezeNetImageClassifier",
    "SqueezeNetImageClassifierPreprocessor",
    "SqueezeNetImageConverter",
]
