"""The network up to its last fire module, and the file of a preset that holds the weights of the whole network."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sqz_keras.extras import needs

with needs("hub"):
    import keras
    import keras_hub

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.files import write_file, write_json
from sqz_keras.models.arguments import image_shape
from sqz_keras.models.squeezenet import assign, named_arrays, squeezenet_from_metaparameters
from sqz_keras.weights import sqz
from sqz_keras.weights.arrays import check_shapes

WEIGHTS = "model.sqz"  # in a preset
_WEIGHTS_ALONE = "model.weights.h5"  # what KerasHub writes for a backbone alone
_OF_ANY_MODEL = ("name", "trainable", "dtype", "compile")
_ONE_SHARD = 1e-9  # GB: KerasHub writes larger weights as shards, with an index that names their files


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Refuses arguments that no class here has, such as KerasHub's `image_shape`: Keras would ignore them."""
    unknown = sorted(set(kwargs) - set(_OF_ANY_MODEL))
    if unknown:
        raise ValueError(
            f"Unknown arguments {unknown}: num_classes is the number of new classes, and the weights expect images of "
            "one size, that of the spec."
        )


@keras.saving.register_keras_serializable(package="sqz_keras")
class SqueezeNetBackbone(keras_hub.models.Backbone):
    """The network without its classifier: float32 (N, S, S, C) -> feature maps (N, H, W, channels).

    Args:
        spec: The `ModelSpec`, or its JSON form, of the whole network.
        dtype: As in Keras; None means Keras's own setting.
        **kwargs: `name` and `trainable`, as for any Keras model.

    Raises:
        ValueError: `spec` does not describe a network, or there are other arguments.
    """

    def __init__(self, spec: ModelSpec | Mapping[str, Any], *, dtype=None, **kwargs):
        check_kwargs(kwargs)
        spec = spec if isinstance(spec, ModelSpec) else ModelSpec.from_json(spec)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(dtype or before)
        try:
            network = squeezenet_from_metaparameters(
                spec.metaparameters,
                image_shape(spec.input_size, spec.channels),
                include_top=False,
                bypass=spec.bypass,
            )
        finally:
            keras.config.set_dtype_policy(before)
        super().__init__(inputs=network.input, outputs=network.output, dtype=dtype, **kwargs)
        self.spec = spec
        self._head: dict[str, np.ndarray] = {}  # conv10's arrays, until there is a classifier
        self._set_classifier(None, takes_weights=True)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        return {**super().get_config(), "spec": self.spec.to_json()}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the weights of the whole network; conv10's are kept for a classifier with the same number of classes.

        Args:
            arrays: Weights by name, float32.
        """
        check_shapes("weights", arrays, self.spec.weight_shapes())
        self._load(arrays)

    def _load(self, arrays: Mapping[str, np.ndarray]) -> None:
        assign(self, dict(arrays))
        self._head = {name: array for name, array in arrays.items() if name.startswith("conv10/")}
        conv10, takes_weights = self._classifier
        if conv10 is not None and takes_weights:
            conv10.set_weights(list(self._head.values()))

    def attach(self, conv10: keras.layers.Layer, classes: int | None) -> None:
        """Makes a classifier's conv10 the one whose weights are saved.

        Args:
            conv10: The layer.
            classes: Number of classes if the layer is new; None also loads the kept conv10 weights into the layer.
        """
        if classes is not None:
            self.spec = ModelSpec.from_json({**self.spec.to_json(), "classes": classes, "labels": None})
        elif self._head:
            conv10.set_weights(list(self._head.values()))
        self._set_classifier(conv10, takes_weights=classes is None)

    def _set_classifier(self, conv10: keras.layers.Layer | None, *, takes_weights: bool) -> None:
        # An ordinary attribute would make Keras count the layer as the backbone's own.
        object.__setattr__(self, "_classifier", (conv10, takes_weights))

    def save_to_preset(self, preset_dir: str | os.PathLike, max_shard_size: float | None = None) -> None:
        """Writes the preset, with the weights of the whole network in `model.sqz`.

        A backbone without weights of conv10 is written as KerasHub writes any backbone.

        Args:
            preset_dir: Folder of the preset.
            max_shard_size: Used only for a backbone without weights of conv10.
        """
        has_head = self._classifier[0] is not None or bool(self._head)
        super().save_to_preset(os.fspath(preset_dir), _ONE_SHARD if has_head else max_shard_size)
        if has_head:  # weights of a backbone that was saved here alone before; KerasHub would load them instead
            pathlib.Path(preset_dir, _WEIGHTS_ALONE).unlink(missing_ok=True)

    def save_weights(self, filepath: str | os.PathLike, *args, **kwargs) -> None:
        """As for any Keras model; if the file is an index of shards, `model.sqz` is written beside it too."""
        if pathlib.Path(filepath).suffix != ".json":
            super().save_weights(filepath, *args, **kwargs)
            return
        conv10 = self._classifier[0]
        head = self._head
        if conv10 is not None:
            head = dict(zip(("conv10/kernel", "conv10/bias"), conv10.get_weights(), strict=True))
        arrays = {name: array.astype(np.float32) for name, array in (named_arrays(self) | head).items()}
        write_file(pathlib.Path(filepath).with_name(WEIGHTS), sqz.encode(self.spec, arrays))
        index = {"metadata": {}, "weight_map": {"/": WEIGHTS}}
        write_json(filepath, index)

    def load_weights(self, filepath: str | os.PathLike, *args, **kwargs) -> None:
        """As for any Keras model; from an index of shards, the same network's `model.sqz` beside it is read."""
        if pathlib.Path(filepath).suffix != ".json":
            super().load_weights(filepath, *args, **kwargs)
            return
        path = pathlib.Path(filepath).with_name(WEIGHTS)
        model = sqz.read_model(path)
        arrays = model.arrays
        classes = {name: arrays[name].shape for name in ("conv10/kernel", "conv10/bias")}  # may have changed
        check_shapes(path, arrays, self.spec.weight_shapes() | classes)
        for field in ("metaparameters", "bypass", "conv10_padding"):  # may differ for weights of equal shapes
            expected, actual = getattr(self.spec, field), getattr(model.spec, field)
            if actual != expected:
                raise ValueError(f"{path}: the weights of another network: expected {field} {expected}, got {actual}.")
        self._load(arrays)
