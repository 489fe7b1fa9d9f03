"""Prepares ImageNet (ILSVRC2012) for training from its two official tars, and verifies it.

sqz-prepare-imagenet --manual_dir=DIR [--data_dir=DIR] [--allow_partial]

--manual_dir holds ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar. A dataset that --data_dir holds already is only
verified. Training finds a new one only after it is verified; a kill leaves a folder .preparing-... in
--data_dir/imagenet2012, which you can remove. --allow_partial takes smaller tars in the same layout, whose validation
images must be numbered 1 to n. See docs/imagenet.md.
"""

from __future__ import annotations

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string("manual_dir", None, "Folder with the two official tars.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_bool("allow_partial", False, "Accept tars with only part of the images.")


def main(argv) -> int:
    del argv
    from trainers.data.imagenet import prepare_imagenet

    args = flags.FLAGS
    counts = prepare_imagenet(args.manual_dir, args.data_dir, allow_partial=args.allow_partial)
    for split, count in counts.items():
        print(f"{split}={count}")
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__, extras=("train",))


if __name__ == "__main__":
    run()
