"""Asks a server what photographs show.

sqz-predict --image=photo.jpg [--image=other.png] [--server=127.0.0.1:8500] [--top=5]

A photograph that cannot be read is reported and the others are answered; the exit status is then 1.
"""

from __future__ import annotations

import io
import pathlib
import sys

from absl import flags
from PIL import Image

from export import contract
from sqz_keras import command

_ORIENTATION, _UPRIGHT = 0x0112, 1


def define_flags() -> None:
    flags.DEFINE_string("server", "127.0.0.1:8500", "HOST:PORT of sqz-serve or of TensorFlow Serving.")
    flags.DEFINE_multi_string("image", None, "Path of a photograph; repeat it for more.", required=True)
    flags.DEFINE_integer("top", contract.TOP_K, "How many classes to name.", lower_bound=1, upper_bound=contract.TOP_K)
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "The model's name on the server.")
    flags.DEFINE_integer("model_version", None, "The served version to ask; the newest where it is left out.")
    flags.DEFINE_float("timeout_seconds", 30.0, "For each call.", lower_bound=0.001)


def read_picture(path: str) -> bytes:
    """A file as it is sent: as it is, or as an upright PNG where EXIF says that it is stored rotated.

    TensorFlow's decoder heeds no EXIF. What cannot be read is sent as it is, and the server says what it makes of it.
    """
    from sqz_keras.images import read_image

    data = pathlib.Path(path).read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT:
                return data
        upright = io.BytesIO()
        Image.fromarray(read_image(data)).save(upright, "PNG", compress_level=1)
        return upright.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return data


def main(argv) -> int:
    del argv
    from export.client import Client

    args = flags.FLAGS
    paths, pictures, failures = [], [], 0
    for path in args.image:
        try:
            pictures.append(read_picture(path))
            paths.append(path)
        except OSError as error:
            failures += 1
            print(f"sqz-predict: {error}", file=sys.stderr)
    if not pictures:
        return 1
    options = {"model_name": args.model_name, "model_version": args.model_version}
    with Client(args.server, timeout_seconds=args.timeout_seconds, **options) as client:
        predictions = client.predict_bytes(pictures)
    for path, prediction in zip(paths, predictions, strict=True):
        if prediction.status != contract.STATUS_OK:
            failures += 1
            print(f"sqz-predict: {path}: {prediction.status}", file=sys.stderr)
            continue
        print(path)
        for name, score in list(zip(prediction.classes, prediction.scores, strict=True))[: args.top]:
            print(f"  {score:7.2%}  {name}")
    return 1 if failures else 0


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
