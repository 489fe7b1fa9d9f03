"""What training starts from: random weights, or pretrained ones with another conv10."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.densities import layer_names, parse_densities, prune_magnitudes
from sqz_keras.models.squeezenet import assign, named_arrays
from sqz_keras.weights.arrays import check_shapes, trunk_of
from sqz_keras.weights.resolve import resolve_model
from trainers.progress import say
from trainers.training.config import TrainConfig


def read_pretrained(config: TrainConfig, spec: ModelSpec) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    """The spec and the weights that `config.weights` names, after a check that their trunk fits the model.

    Args:
        config: The run's config.
        spec: The model that is trained.

    Raises:
        ValueError: There are no such weights, or their trunk does not fit.
        OSError: They could not be downloaded.
    """
    theirs, pretrained = resolve_model(config.weights, version=spec.version, include_top=False)
    check_shapes(config.weights, trunk_of(pretrained), trunk_of(spec.weight_shapes()))
    ours = (spec.bypass, spec.metaparameters.pool_after)
    if (theirs.bypass, theirs.metaparameters.pool_after) != ours:
        say(
            f"{config.weights} were trained with bypass={theirs.bypass!r} and pools behind "
            f"{theirs.metaparameters.pool_after}; this network has bypass={ours[0]!r} and pools behind {ours[1]}."
        )
    return theirs, pretrained


def prune(arrays: Mapping[str, np.ndarray], config: TrainConfig, spec: ModelSpec) -> dict[str, np.ndarray]:
    """The arrays of some or all layers, with their smallest weights set to 0 according to the config's densities."""
    densities = parse_densities(config.densities, layer_names(spec.weight_shapes()))
    return prune_magnitudes(arrays, {layer: densities[layer] for layer in layer_names(arrays) if layer in densities})


def initialise(model: keras.Model, config: TrainConfig, spec: ModelSpec) -> None:
    """Replaces the authors' initial weights, with which `model` was built, by the weights that training starts from.

    conv10 is random, or 0 if it is fitted before the first update, except for classes whose labels the config's
    pretrained weights have. The other layers have the pretrained weights, pruned if the config says so. Without
    pretrained weights they keep the authors' initial weights, times `bypass_scale` in the convolutions of bypasses.

    Raises:
        ValueError: The config's weights do not fit.
    """
    shapes = spec.weight_shapes()
    stddev = 0.0 if config.head_images else config.conv10_stddev
    kernel = keras.initializers.RandomNormal(stddev=stddev, seed=config.seed)(shapes["conv10/kernel"])
    bias = np.full(shapes["conv10/bias"], config.conv10_bias, np.float32)
    arrays = {"conv10/kernel": np.asarray(kernel), "conv10/bias": bias}
    if config.weights:
        theirs, pretrained = read_pretrained(config, spec)
        labels = theirs.labels if "conv10/kernel" in pretrained else None
        their_indices = {label: index for index, label in enumerate(labels or ())}
        for index, label in enumerate(spec.labels):
            if label in their_indices and pretrained["conv10/kernel"].shape[:3] == shapes["conv10/kernel"][:3]:
                for name in ("conv10/kernel", "conv10/bias"):
                    arrays[name] = np.array(arrays[name])
                    arrays[name][..., index] = pretrained[name][..., their_indices[label]]
        arrays |= trunk_of(pretrained)
        if config.densities:
            arrays = prune(arrays, config, spec)
    else:
        initial = named_arrays(model)
        beside = {layer.inputs[0] for layer in spec.layers() if layer.kind == "addition"}  # what is added to a module
        for layer in spec.layers():
            if layer.kind == "convolution" and layer.name in beside:
                for name in (f"{layer.name}/kernel", f"{layer.name}/bias"):
                    arrays[name] = np.float32(config.bypass_scale) * initial[name]
    assign(model, arrays)
