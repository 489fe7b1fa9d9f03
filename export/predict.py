"""Sends images to a server, and prints their classes.

sqz-predict photo.jpg [other.png ...] [--server=127.0.0.1:8500] [--top=5] [--ssl_ca=FILE]
    prints the classes of each. An image that cannot be read is reported and the others are answered; the exit status
    is then 1
sqz-predict --image_dir=DIR --output=answers.jsonl
    writes a line of JSON for each image of a folder, at any depth; where the image cannot be read, its `status` says
    why. If it is run again, it keeps the lines that are there, and sends the other images
"""

from __future__ import annotations

from absl import flags

from export import contract
from export.client.run import PredictConfig, run_predict
from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_multi_string("image", None, "Path of an image, like the arguments; repeat the flag for more images.")
    flags.DEFINE_integer(
        "model_version",
        None,
        "The served version to use; by default the newest.",
        lower_bound=1,
        upper_bound=contract.MAX_VERSION,
    )
    command.define_field_flags(PredictConfig)


def main(argv) -> int:
    args = flags.FLAGS
    if args.image_dir or args.output:
        images = [*argv[1:], *(args.image or [])]
    else:
        images = command.given_images(argv, args.image)
    return run_predict(command.config_of(PredictConfig, args, image=images))


def run() -> None:
    command.run(main, define_flags, __doc__, positional="IMAGE", repeated=True, extras=("client",))


if __name__ == "__main__":
    run()
