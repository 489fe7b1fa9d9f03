"""Names what images show.

sqz-classify photo.jpg [other.png ...] [--model=imagenet] [--top=5]

JPEG, PNG, WebP, TIFF, BMP, GIF and AVIF are read as a person sees them: grey, CMYK and EXIF-rotated ones too. A
file that cannot be read is reported and the others are answered; the exit status is then 1.
"""

from __future__ import annotations

import sys

from absl import flags

from sqz_keras import command
from sqz_keras.images.files import read_images
from sqz_keras.weights.resolve import resolve_model


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_multi_string("image", None, "Path of an image, as the arguments are; repeat it for more.")
    flags.DEFINE_integer("top", 5, "How many classes to name.", lower_bound=1)


def main(argv) -> int:
    args = flags.FLAGS
    paths = command.given_images(argv, args.image)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)

    from sqz_keras.images.preprocessing import prepare_image
    from sqz_keras.models.squeezenet import build

    model, names = build(spec, arrays), spec.class_names()
    failures = 0
    for path, image, error in read_images(paths):
        if error is not None:
            failures += 1
            print(f"sqz-classify: {error}", file=sys.stderr)
            continue
        scores = model.predict_on_batch(prepare_image(image, spec)[None])[0]
        print(path)
        for index in (-scores).argsort(kind="stable")[: args.top]:
            label = f"{spec.labels[index]}  " if spec.labels and spec.labels[index] != names[index] else ""
            print(f"  {scores[index]:7.2%}  {label}{names[index]}")
    return 1 if failures else 0


def run() -> None:
    command.run(main, define_flags, __doc__, positional="IMAGE", repeated=True)


if __name__ == "__main__":
    run()
