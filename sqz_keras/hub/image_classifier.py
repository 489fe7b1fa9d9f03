"""SqueezeNet as an image classifier of KerasHub."""

from __future__ import annotations

import os
from typing import Any

from sqz_keras.extras import needs

with needs("hub"):
    import keras
    import keras_hub

from sqz_keras.architecture.plain_numbers import require_integer
from sqz_keras.backend import check_is_tensorflow
from sqz_keras.hub.backbone import SqueezeNetBackbone, check_kwargs
from sqz_keras.hub.preprocessor import SqueezeNetImageClassifierPreprocessor, SqueezeNetImageConverter
from sqz_keras.models.arguments import check_choices
from sqz_keras.models.blocks import classifier
from sqz_keras.weights.records import list_records
from sqz_keras.weights.resolve import resolve_model


@keras.saving.register_keras_serializable(package="sqz_keras")
class SqueezeNetImageClassifier(keras_hub.models.ImageClassifier):
    """The whole network; takes images of any size with its preprocessor, or network inputs without.

    Args:
        backbone: A `SqueezeNetBackbone`.
        num_classes: Number of classes of a new conv10, at least 2; None keeps the backbone's classes and their
            weights.
        preprocessor: Function that is applied to the images; with None, the classifier takes network inputs.
        activation: "softmax" for probabilities; None gives conv10's averages, which are never negative.
        dropout: Dropout rate of drop9.
        **kwargs: `name` and `compile`, as KerasHub takes them.

    Raises:
        ValueError: Keras does not run on TensorFlow; `num_classes` is not an integer of at least 2; the activation is
            a sigmoid; or there are other arguments.
    """

    backbone_cls = SqueezeNetBackbone
    preprocessor_cls = SqueezeNetImageClassifierPreprocessor
    # KerasHub's own presets are files on Kaggle; these are the records of `sqz_keras`, which `from_preset` takes too.
    presets = {name: {"metadata": {"description": "See sqz_keras.get_record."}} for name in list_records()}  # noqa: RUF012

    def __init__(
        self,
        backbone: SqueezeNetBackbone,
        num_classes: int | None = None,
        preprocessor=None,
        activation="softmax",
        dropout: float = 0.5,
        **kwargs,
    ):
        check_is_tensorflow("sqz_keras.hub")
        check_kwargs(kwargs)
        check_choices(True, None, None, activation)
        num_classes = None if num_classes is None else require_integer("num_classes", num_classes, 2)
        classes, data_format = num_classes or backbone.spec.classes, keras.config.image_data_format()
        self.backbone, self.preprocessor = backbone, preprocessor
        self.activation, self.dropout, self.num_classes = activation, dropout, classes
        inputs = backbone.input
        outputs = classifier(backbone(inputs), classes, activation, dropout, backbone.spec.conv10_padding, data_format)
        keras_hub.models.Task.__init__(self, inputs=inputs, outputs=outputs, **kwargs)
        backbone.attach(self.get_layer("conv10"), num_classes)

    @classmethod
    def from_preset(cls, preset: str | os.PathLike, load_weights: bool = True, **kwargs) -> SqueezeNetImageClassifier:
        """As for any KerasHub model; a record's name, such as "squeezenet1.1_authors", is a preset too."""
        preset = os.fspath(preset)
        if preset not in cls.presets:
            return super().from_preset(preset, load_weights=load_weights, **kwargs)
        return cls.from_model(preset, load_weights=load_weights, **kwargs)

    @classmethod
    def from_model(cls, model: str | os.PathLike, load_weights: bool = True, **kwargs) -> SqueezeNetImageClassifier:
        """A classifier from whatever `sqz_keras.resolve_model` takes: a record's name, or a file or folder of weights.

        Args:
            model: The name or path.
            load_weights: Whether to load the weights; if not, they are random.
            **kwargs: `dtype` of the backbone, and other arguments of the class, apart from `backbone` and
                `preprocessor`.

        Returns:
            The classifier, with its preprocessor.

        Raises:
            ValueError: There is no such model.
        """
        spec, arrays = resolve_model(model)
        backbone = SqueezeNetBackbone(spec, dtype=kwargs.pop("dtype", None))
        if load_weights:
            backbone.assign(arrays)
        converter = SqueezeNetImageConverter(spec.input_size, spec.preprocessing)
        kwargs.setdefault("preprocessor", SqueezeNetImageClassifierPreprocessor(converter))
        return cls(backbone, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes. The number of classes is the backbone's."""
        config = keras_hub.models.Task.get_config(self)
        return {
            **config,
            "activation": keras.activations.serialize(keras.activations.get(self.activation)),
            "dropout": self.dropout,
        }

    def has_task_weights(self) -> bool:
        """False: conv10 is in the same file as the backbone."""
        return False
