"""Writes a new version of a served model as a SavedModel, whole or not at all. It never replaces another version."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from export import contract, versions
from export.formats import reproducible
from sqz_keras import ModelSpec
from sqz_keras.extras import require
from sqz_keras.weights.readers import check_shapes


def export_saved_model(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    base_path: str | os.PathLike,
    model_version: int | str = versions.AUTO,
    keep_versions: int = 0,
    precision: str = contract.PRECISIONS[0],
) -> pathlib.Path:
    """Writes a new version of a model.

    Args:
        spec: Describes the model; its input has 3 channels.
        arrays: The model's weights by name, float32, as `resolve_model` returns them.
        base_path: The folder of all versions of this model; it is created if it does not exist.
        model_version: A positive integer, or "auto": the newest plus 1.
        keep_versions: How many of the newest versions to keep; 0 keeps all.
        precision: One of `contract.PRECISIONS`: what the network computes in.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: The version exists or is not a positive integer, or the model cannot be served; nothing is written.
            Or the new SavedModel does not answer as Keras does; nothing that a server would load is left behind.
        OSError: Writing failed; nothing that a server would load is left behind.
        MissingExtraError: The extra `serve` is not installed.
    """
    version = versions.choose_version(base_path, model_version, keep_versions)
    check_installed()
    if spec.channels != 3:
        raise ValueError(f"Served models take RGB images, 3 channels; this one takes {spec.channels}.")
    check_shapes("the model to export", arrays, spec.weight_shapes())
    is_auto = model_version == versions.AUTO
    with versions.new_version(base_path, version, or_next=is_auto) as new:
        reproducible.write_saved_model(spec, arrays, new.folder, precision)
    if keep_versions:
        versions.prune(base_path, keep_versions)
    return pathlib.Path(base_path, str(new.version))


def check_installed() -> None:
    """Raises a MissingExtraError without TensorFlow Serving's package, which the warm-up records need."""
    require("tensorflow_serving", "serve")
