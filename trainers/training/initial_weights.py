"""What training starts from: random weights, or pretrained ones with another conv10."""

from __future__ import annotations

import keras
import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.densities import layer_names, parse_densities, prune_magnitudes
from sqz_keras.models.squeezenet import assign, named_arrays
from sqz_keras.weights.readers import check_shapes
from sqz_keras.weights.resolve import resolve_model
from trainers.training.config import TrainConfig


def initialise(model: keras.Model, config: TrainConfig, spec: ModelSpec) -> None:
    """Puts in what training starts from, over the authors' initial weights that `model` was built with.

    conv10 is random, but for the classes whose labels the config's weights have. The rest is theirs, or the authors',
    with the weights of the convolutions of bypasses made smaller. Pretrained weights are then pruned, where the config
    says so.

    Raises:
        ValueError: the config's weights do not fit.
    """
    shapes = spec.weight_shapes()
    kernel = keras.initializers.RandomNormal(stddev=config.conv10_stddev, seed=config.seed)(shapes["conv10/kernel"])
    bias = np.full(shapes["conv10/bias"], config.conv10_bias, np.float32)
    arrays = {"conv10/kernel": np.asarray(kernel), "conv10/bias": bias}
    if config.weights:
        theirs, pretrained = resolve_model(config.weights, version=spec.version, include_top=False)
        labels = theirs.labels if "conv10/kernel" in pretrained else None
        their_indices = {label: index for index, label in enumerate(labels or ())}
        for index, label in enumerate(spec.labels):
            if label in their_indices and pretrained["conv10/kernel"].shape[:3] == shapes["conv10/kernel"][:3]:
                for name in ("conv10/kernel", "conv10/bias"):
                    arrays[name] = np.array(arrays[name])
                    arrays[name][..., index] = pretrained[name][..., their_indices[label]]
        trunk = {name: array for name, array in pretrained.items() if not name.startswith("conv10/")}
        check_shapes(config.weights, arrays | trunk, shapes)
        arrays |= trunk
        if config.densities:
            arrays = prune_magnitudes(arrays, parse_densities(config.densities, layer_names(arrays)))
    else:
        initial = named_arrays(model)
        beside = {layer.inputs[0] for layer in spec.layers() if layer.kind == "addition"}  # what is added to a module
        for layer in spec.layers():
            if layer.kind == "convolution" and layer.name in beside:
                for name in (f"{layer.name}/kernel", f"{layer.name}/bias"):
                    arrays[name] = np.float32(config.bypass_scale) * initial[name]
    assign(model, arrays)
