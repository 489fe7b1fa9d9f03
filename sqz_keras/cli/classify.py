"""Names what images show.

sqz-classify photo.jpg [other.png ...] [--model=imagenet] [--top=5] [--runtime=keras|litert|onnx]

JPEG, PNG, WebP, TIFF, BMP, GIF and AVIF are read as a person sees them: grey, CMYK and EXIF-rotated ones too. A
file that cannot be read is reported and the others are answered; the exit status is then 1.

--runtime=litert and --runtime=onnx run the network without Keras, which takes longer to start than they to answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import numpy as np
from absl import flags

from sqz_keras import command
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.extras import needs
from sqz_keras.images.files import read_images
from sqz_keras.weights.resolve import resolve_model

Arrays = Mapping[str, np.ndarray]


def _by_keras(spec: ModelSpec, arrays: Arrays) -> Callable:
    from sqz_keras.images.preprocessing import prepare_image
    from sqz_keras.models.squeezenet import build

    model = build(spec, arrays)
    return lambda image: model.predict_on_batch(prepare_image(image, spec)[None])[0]


def _by_litert(spec: ModelSpec, arrays: Arrays) -> Callable:
    from sqz_keras.images.resizing import resize_and_crop

    with needs("receiver"):
        from sqz_keras.runtimes import litert_file
        from sqz_keras.runtimes.run import litert_runner

        run = litert_runner(litert_file.convert(spec, arrays))
    return lambda image: run(resize_and_crop(image, spec)[None])[0]


def _by_onnx(spec: ModelSpec, arrays: Arrays) -> Callable:
    from sqz_keras.images.resizing import resize_and_crop

    with needs("onnxruntime"):
        from sqz_keras.runtimes import onnx_file
        from sqz_keras.runtimes.run import onnx_runner

        run = onnx_runner(onnx_file.convert(spec, arrays))
    return lambda image: run(resize_and_crop(image, spec)[None])[0]


KERAS = "keras"
# What runs a network: a function of a model that gives one from an image (H, W, 3) to its probabilities (classes,).
RUNTIMES = {KERAS: _by_keras, "litert": _by_litert, "onnx": _by_onnx}


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_multi_string("image", None, "Path of an image, as the arguments are; repeat it for more.")
    flags.DEFINE_enum("runtime", KERAS, list(RUNTIMES), "What runs the network.")
    flags.DEFINE_integer("top", 5, "How many classes to name.", lower_bound=1)


def main(argv) -> int:
    args = flags.FLAGS
    paths = command.given_images(argv, args.image)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    probabilities, names = RUNTIMES[args.runtime](spec, arrays), spec.class_names()
    failures = 0
    for path, image, error in read_images(paths):
        if error is not None:
            failures += 1
            print(f"sqz-classify: {error}", file=sys.stderr)
            continue
        scores = probabilities(image)
        print(path)
        for index in (-scores).argsort(kind="stable")[: args.top]:
            label = f"{spec.labels[index]}  " if spec.labels and spec.labels[index] != names[index] else ""
            print(f"  {scores[index]:7.2%}  {label}{names[index]}")
    return 1 if failures else 0


def run() -> None:
    command.run(main, define_flags, __doc__, positional="IMAGE", repeated=True)


if __name__ == "__main__":
    run()
