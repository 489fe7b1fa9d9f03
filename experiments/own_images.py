"""What `sqz-train --image_dir=DIR` makes of a few images per class, and how long it takes.

    python experiments/own_images.py --image_dir=DIR --workdir=DIR --train=30 [--test=10]

--image_dir holds a folder of images per class: the first --train images by name are for training and the next --test
for test. Or it holds `train/` and `val/` with such folders: the first --train images in `train/` are for training and
all in `val/` for test. They are copied into --workdir, into folders whose names are not ImageNet labels: for such
labels sqz-train would reuse conv10's weights. Prints what sqz-train prints, then its time, top-1, and the machine.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from benchmarks.serving_speed import processor
from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string("image_dir", None, "Folder of images.", required=True)
    flags.DEFINE_string("workdir", None, "New folder for the copies and the model.", required=True)
    flags.DEFINE_integer("train", None, "Images a class for training.", required=True, lower_bound=1)
    flags.DEFINE_integer("test", 10, "At most so many a class for test.", lower_bound=1)


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    workdir = pathlib.Path(args.workdir).resolve()  # because sqz-train runs in another folder
    if workdir.exists():
        raise ValueError(f"--workdir={workdir} exists; give a new folder.")
    copy_images(pathlib.Path(args.image_dir), workdir / "photos", args.train, args.test)
    words = [
        sys.executable,
        "-m",
        "trainers.train",
        f"--image_dir={workdir / 'photos'}",
        f"--workdir={workdir / 'run'}",
    ]
    start = time.monotonic()
    subprocess.run(words, cwd=pathlib.Path(__file__).parents[1], check=True)
    seconds, usage = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    results = json.loads((workdir / "run" / "evaluation.json").read_text("utf-8"))
    low, high = results["top1_interval"]
    print(
        f"{seconds:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of processor time; {results['num_images']} test "
        f"images, top-1 {results['top1_accuracy']:.1%}, 95% interval {low:.1%} to {high:.1%}"
    )
    print(f"{processor()[0]}, {os.cpu_count()} cores")


def copy_images(source: pathlib.Path, target: pathlib.Path, train: int, test: int) -> None:
    """Copies the images of each class into `train/` and `val/` of `target`."""
    from sqz_keras.images.files import split_by_suffix

    has_splits = (source / "train").is_dir()
    for folder in sorted(path for path in (source / "train" if has_splits else source).iterdir() if path.is_dir()):
        images, _ = split_by_suffix(folder.iterdir())
        others = images[train : train + test]
        if has_splits:
            others, _ = split_by_suffix((source / "val" / folder.name).iterdir())
        for split, paths in (("train", images[:train]), ("val", others)):
            copies = target / split / f"own {folder.name}"
            copies.mkdir(parents=True)
            for path in paths:
                shutil.copy(path, copies / path.name)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
