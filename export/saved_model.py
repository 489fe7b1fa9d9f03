"""Exports a model as a SavedModel that TensorFlow Serving, or sqz-serve, loads.

sqz-export --base_path=DIR [--model=imagenet] [--model_version=auto]

writes DIR/<model_version>: the network with its preprocessing, taking float images (signatures serving_default and
features), encoded JPEG and PNG files (serve_bytes) or tf.train.Examples with one (classify). It appears whole or not at
all, and a version is never overwritten.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import flags

from export import contract, versions
from sqz_keras import command

if TYPE_CHECKING:
    import numpy as np

    from sqz_keras import ModelSpec


def export_saved_model(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    base_path: str | os.PathLike,
    model_version: int | str = versions.AUTO,
) -> pathlib.Path:
    """Writes a new version of a model.

    Args:
        spec: describes the model; its input has 3 channels.
        arrays: its weights by name, float32, as `resolve_model` returns them.
        base_path: the folder of all versions of this model; it is made where it does not exist.
        model_version: a positive integer, or "auto": the newest plus 1.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: the version exists or is no positive integer, or the model cannot be served; nothing is written.
        OSError: writing failed; nothing that a server could load is left.
    """
    from export.signatures import ServedModel
    from sqz_keras.importers import check_shapes
    from sqz_keras.weights import write_spec

    version = versions.choose_version(base_path, model_version)
    _check_servable(spec)
    check_shapes("the model to export", arrays, spec.weight_shapes())
    with tempfile.TemporaryDirectory() as scratch, versions.new_version(base_path, version) as folder:
        labels_path = pathlib.Path(scratch, contract.LABELS_NAME)
        labels_path.write_text("".join(f"{name}\n" for name in spec.class_names()), "utf-8")
        ServedModel(spec, arrays, labels_path).save(folder)
        extra = folder / contract.EXTRA_FOLDER
        extra.mkdir()
        write_spec(extra / contract.SPEC_NAME.removesuffix(".spec.json"), spec, arrays)
    return pathlib.Path(base_path, str(version))


def _check_servable(spec: ModelSpec) -> None:
    import keras

    if spec.channels != 3:
        raise ValueError(f"Served models take RGB pictures, 3 channels; this one takes {spec.channels}.")
    if any(len(name.splitlines()) != 1 for name in spec.class_names()):
        raise ValueError("Each label must be one line of text, as labels.txt holds one a line; rename the others.")
    settings = (keras.backend.backend(), keras.config.image_data_format(), keras.config.dtype_policy().name)
    if settings != ("tensorflow", "channels_last", "float32"):
        raise ValueError(
            "Models are exported with Keras on TensorFlow, channels_last and the dtype policy float32; here Keras is "
            f"set to {', '.join(settings)}. Export in a process of its own: sqz-export."
        )


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("base_path", None, "Folder of the served model, which holds a folder a version.", required=True)
    flags.DEFINE_string("model_version", versions.AUTO, "A positive integer, or auto: the newest plus 1.")


def main(argv) -> None:
    del argv
    from sqz_keras.weights import resolve_model

    args = flags.FLAGS
    # Before the model is fetched and read, which takes longer.
    versions.choose_version(args.base_path, args.model_version)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    path = export_saved_model(spec, arrays, args.base_path, args.model_version)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    signatures = ", ".join(signature.name for signature in contract.EXPORTED)
    print(f"{path}: {size / 1e6:.2f} MB, {spec.classes} classes, signatures {signatures}")


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
