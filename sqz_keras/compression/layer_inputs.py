"""The inputs of a model's convolutions, one convolution after the other, while the weights before it change."""

from __future__ import annotations

import keras
import numpy as np

from sqz_keras.architecture.layers import IMAGES, Layer

BATCH = 10  # images at a time; conv1's patches take 7 MB per image


class LayerInputs:
    """The inputs that each convolution of a model gets for some images.

    They are computed from kept outputs of earlier layers, with the weights that the model has by then. So changing a
    model layer by layer runs each layer only once. An output is kept while a later layer needs it.

    Args:
        model: A model of these layers.
        layers: Its layers, as `list_layers` returns them.
        images: Float32 (N, S, S, C), as the network takes them.
    """

    def __init__(self, model: keras.Model, layers: tuple[Layer, ...], images: np.ndarray):
        self._model = model
        self._layers = {layer.name: layer for layer in layers}
        self._kept = {IMAGES: [images[start : start + BATCH] for start in range(0, len(images), BATCH)]}

    def of(self, convolution: str) -> list:
        """Batches of a convolution's inputs, float32 tensors (B, H, W, channels). Request convolutions in net order."""
        (source,) = self._layers[convolution].inputs
        if source not in self._kept:
            self._kept[source] = self._run(sorted(self._known([source])), self._tensor(source))
            names = list(self._layers)
            later = (self._layers[name] for name in names[names.index(convolution) :])
            needed = self._known([name for layer in later for name in layer.inputs])
            self._kept = {name: self._kept[name] for name in needed}
        tensor = self._model.get_layer(convolution).input
        if tensor is self._tensor(source):
            return self._kept[source]
        return self._run([source], tensor)  # through padding or dropout

    def _run(self, known: list[str], tensor: keras.KerasTensor) -> list:
        import tensorflow as tf

        layers = keras.Model([self._tensor(name) for name in known], tensor)
        signature = [tf.TensorSpec(self._tensor(name).shape, tf.float32) for name in known]
        step = tf.function(lambda *batch: layers(list(batch), training=False), signature, autograph=False)
        return [step(*map(tf.convert_to_tensor, batch)) for batch in zip(*map(self._kept.get, known), strict=True)]

    def _tensor(self, name: str) -> keras.KerasTensor:
        return self._model.input if name == IMAGES else self._model.get_layer(name).output

    def _known(self, names: list[str]) -> set[str]:
        """The kept outputs from which the outputs of the named layers are computed."""
        known = set()
        for name in names:
            known |= {name} if name in self._kept else self._known(list(self._layers[name].inputs))
        return known
