"""Classifies images: prints the most probable classes of each.

sqz-classify photo.jpg [other.png ...] [--model=imagenet] [--top=5] [--runtime=keras|litert|onnx]

JPEG, PNG, WebP, TIFF, BMP, GIF and AVIF are read as a person sees them: grey, CMYK and EXIF-rotated ones too. A
file that cannot be read is reported, and the others are classified; the exit status is then 1.

--explain=FILE.png shows where in one image the network sees the most probable class: conv10's map over the image.

--runtime=litert and --runtime=onnx run the network without Keras, and answer before Keras would have started.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from PIL import Image

from sqz_keras import command
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.backend import use_default_settings
from sqz_keras.extras import needs
from sqz_keras.files import check_is_no_input, check_writable, write_file
from sqz_keras.images.files import read_images
from sqz_keras.images.preprocessing import check_takes_rgb, prepare_image
from sqz_keras.images.resizing import resize_and_crop
from sqz_keras.weights.resolve import resolve_model

if TYPE_CHECKING:
    import keras

Arrays = Mapping[str, np.ndarray]


class _ByKeras:
    """Keeps its model, from which --explain makes the map."""

    def __init__(self, spec: ModelSpec, arrays: Arrays):
        from sqz_keras.models.squeezenet import build

        use_default_settings()
        self.spec, self.model = spec, build(spec, arrays)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return self.model.predict_on_batch(prepare_image(image, self.spec)[None])[0]


def _by_litert(spec: ModelSpec, arrays: Arrays) -> Callable:
    with needs("receiver"):
        from sqz_keras.runtimes import litert_file
        from sqz_keras.runtimes.run import litert_runner

        run = litert_runner(litert_file.convert(spec, arrays))
    return lambda image: run(resize_and_crop(image, spec)[None])[0]


def _by_onnx(spec: ModelSpec, arrays: Arrays) -> Callable:
    with needs("onnxruntime"):
        from sqz_keras.runtimes import onnx_file
        from sqz_keras.runtimes.run import onnx_runner

        run = onnx_runner(onnx_file.convert(spec, arrays))
    return lambda image: run(resize_and_crop(image, spec)[None])[0]


KERAS = "keras"
# What runs a network: from a spec and its arrays, makes a function image (H, W, 3) -> probabilities (classes,).
RUNTIMES = {KERAS: _ByKeras, "litert": _by_litert, "onnx": _by_onnx}


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_multi_string("image", None, "Path of an image, like the arguments; repeat the flag for more images.")
    flags.DEFINE_enum("runtime", KERAS, list(RUNTIMES), "What runs the network.")
    flags.DEFINE_integer("top", 5, "How many classes to name.", lower_bound=1)
    flags.DEFINE_string("explain", None, "FILE.png to write: the image, with the map of its most probable class.")


def main(argv) -> int:
    args = flags.FLAGS
    paths = command.given_images(argv, args.image)
    if args.explain:
        _check_explain(args.explain, paths, args.runtime)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    check_takes_rgb(spec)
    probabilities, names = RUNTIMES[args.runtime](spec, arrays), spec.class_names()
    failures = 0
    for path, image, error in read_images(paths):
        if error is not None:
            failures += 1
            print(f"sqz-classify: {error}", file=sys.stderr)
            continue
        scores = probabilities(image)
        print(path)
        order = (-scores).argsort(kind="stable")
        for index in order[: args.top]:
            label = f"{spec.labels[index]}  " if spec.labels and spec.labels[index] != names[index] else ""
            print(f"  {scores[index]:7.2%}  {label}{names[index]}")
        if args.explain:
            _write_explanation(args.explain, probabilities.model, spec, image, order[0])
            print(f"map of {names[order[0]]}: {args.explain}")
    return 1 if failures else 0


def _check_explain(output: str, paths: list[str], runtime: str) -> None:
    """Refuses what --explain cannot do, before any work."""
    if runtime != KERAS:
        raise ValueError(
            f"--explain works with --runtime={KERAS} only, got --runtime={runtime}; leave one of them out."
        )
    if len(paths) != 1 or os.path.isdir(paths[0]):
        given = f"{len(paths)} images" if len(paths) != 1 else f"the folder {paths[0]}"
        raise ValueError(f"--explain takes one image, got {given}; run sqz-classify once for each image.")
    if not output.lower().endswith(".png"):
        raise ValueError(f"--explain writes a PNG, got {output}; give a name that ends in .png.")
    check_writable(output)
    check_is_no_input("explain", output, {"the image itself": paths[0]})


def _write_explanation(path: str, model: keras.Model, spec: ModelSpec, image: np.ndarray, class_id: int) -> None:
    from sqz_keras.explain import class_map, overlay

    values = class_map(model, prepare_image(image, spec), class_id)
    data = io.BytesIO()
    Image.fromarray(overlay(image, values, spec)).save(data, "PNG")
    write_file(path, data.getvalue())


def run() -> None:
    command.run(main, define_flags, __doc__, positional="IMAGE", repeated=True)


if __name__ == "__main__":
    run()
