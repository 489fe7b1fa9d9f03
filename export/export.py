"""Exports a model: as a SavedModel that TensorFlow Serving, or sqz-serve, loads, or as one file for other runtimes.

sqz-export --base_path=DIR [--model=imagenet] [--model_version=auto] [--keep_versions=N] [--precision=bfloat16]
    DIR/<model_version>: the network with its preprocessing, taking float images (signatures serving_default and
    features), encoded JPEG and PNG files (serve_bytes) or tf.train.Examples with one (classify). It appears whole or
    not at all, a version is never overwritten, and the same model gives the same bytes
sqz-export --format=litert|litert_float16|onnx|keras --output=FILE [--model=imagenet]
    one file, and FILE's description beside it
sqz-export --format=litert_int8 --output=FILE --calibration_dir=DIR
    the same in 8 bits throughout, calibrated on unlabelled images, some of which judge the result
sqz-export --verify=DIR/<model_version>
    whether a version is still what was exported, and answers as Keras does
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from export import contract, versions
from sqz_keras import command

if TYPE_CHECKING:
    import numpy as np

    from sqz_keras import ModelSpec

SAVED_MODEL, LITERT_INT8 = "saved_model", "litert_int8"
FORMATS = (SAVED_MODEL, "litert", "litert_float16", LITERT_INT8, "onnx", "keras")

# What may be given with each way of calling the command: first what must be.
_MODEL_FLAGS = ("model", "version", "bypass", "labels", "format")
_VERIFY = ("--verify", ("verify",), ())
_VERSION = (f"--format={SAVED_MODEL}", ("base_path",), (*_MODEL_FLAGS, "model_version", "keep_versions", "precision"))
_CALIBRATED = (f"--format={LITERT_INT8}", ("output", "calibration_dir"), (*_MODEL_FLAGS, "calibration_images"))


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("labels", None, "Text file with a class's name a line, in place of the model's own.")
    flags.DEFINE_enum("format", SAVED_MODEL, list(FORMATS), "What to write.")
    flags.DEFINE_string("base_path", None, "Folder of the served model, which holds a folder a version.")
    flags.DEFINE_string("model_version", versions.AUTO, "A positive integer, or auto: the newest plus 1.")
    flags.DEFINE_integer("keep_versions", 0, "Of older versions all but the newest go; 0: all stay.", lower_bound=0)
    flags.DEFINE_enum("precision", contract.PRECISIONS[0], list(contract.PRECISIONS), "What a SavedModel computes in.")
    flags.DEFINE_string("output", None, "The file to write, of any other format; an older one is replaced.")
    flags.DEFINE_string("calibration_dir", None, "Folder of unlabelled images, at any depth, for litert_int8.")
    flags.DEFINE_integer("calibration_images", 200, "At most so many of them.", lower_bound=2)
    flags.DEFINE_string("verify", None, "A version's folder to check; nothing is written.")


def check_flags(args: flags.FlagValues) -> None:
    """Refuses flags that are missing or that contradict one another, before any work.

    Raises:
        ValueError: it says which.
    """
    ways = {SAVED_MODEL: _VERSION, LITERT_INT8: _CALIBRATED}
    way, needed, optional = ways.get(args.format, (f"--format={args.format}", ("output",), _MODEL_FLAGS))
    if args.verify is not None:
        way, needed, optional = _VERIFY
    missing = [f"--{name}" for name in needed if not args[name].value]
    if missing:
        raise ValueError(f"{way} needs {' and '.join(missing)}.")
    known = {name for _, *groups in (_VERIFY, _VERSION, _CALIBRATED) for group in groups for name in group}
    extra = [f"--{name}" for name in sorted(known) if args[name].present and name not in (*needed, *optional)]
    if extra:
        raise ValueError(f"{way} takes no {', '.join(extra)}: leave that out.")


def _use_defaults_of_keras() -> None:
    """Whatever a keras.json or the environment says: the formats know TensorFlow, channels_last and float32 alone."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


def _resolve(args: flags.FlagValues) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    """The model that the flags name, with the labels that they name."""
    from sqz_keras.weights.resolve import resolve_model

    labels = pathlib.Path(args.labels).read_text("utf-8").splitlines() if args.labels else None
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    return (dataclasses.replace(spec, labels=tuple(labels)) if args.labels else spec), arrays


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    check_flags(args)
    if args.verify is not None:
        _use_defaults_of_keras()
        from export.verify import verify

        print(f"{args.verify}: {verify(args.verify)}")
        return
    # What can be refused is refused before the model is fetched and read, which takes longer.
    if args.format == SAVED_MODEL:
        from export.formats import saved_model

        versions.choose_version(args.base_path, args.model_version, args.keep_versions)
        saved_model.check_installed()
        spec, arrays = _resolve(args)
        asked = (args.model_version, args.keep_versions, args.precision)
        path = saved_model.export_saved_model(spec, arrays, args.base_path, *asked)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        signatures = ", ".join(signature.name for signature in contract.EXPORTED)
        print(f"{path}: {size / 1e6:.2f} MB, {spec.classes} classes, signatures {signatures}")
        return
    from export.formats import single_file
    from sqz_keras.images.files import find_images

    single_file.check_output(args.output, args.format)
    images = find_images(args.calibration_dir, args.calibration_images) if args.calibration_dir else []
    spec, arrays = _resolve(args)
    _use_defaults_of_keras()
    told = single_file.write(args.format, spec, arrays, args.output, images)
    print(f"{args.output}: {os.path.getsize(args.output):,} bytes, {spec.classes} classes; {told}")


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
