"""Images per second of the training pipeline, compared with bare `decode_and_crop_jpeg`.

    python benchmarks/input_pipeline.py --image_dir=DIR [--input_size=227] [--rounds=7]

The bare side decodes the same bytes in the same windows with one thread per core, and does nothing else; the pipeline
also resizes, mirrors and batches. Both run in turn in one process. The pipeline's start is not timed, as training
waits for it only once. Prints `ratio=`, the ratio of the medians; required: at least 0.85. If other work shares the
cores, the ratio of CPU times, printed above it, says more. DIR is any folder with JPEG images, at any depth; images as
large as ImageNet's (110 KB on average) give the number that matters.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command

REQUIRED = 0.85
SEED = 0
BATCH_SIZE = 64
COUNT = 1200 // BATCH_SIZE * BATCH_SIZE  # images, from memory: this does not measure the disk
UNTIMED_BATCHES = 4
CORES = os.cpu_count() or 1


def define_flags() -> None:
    flags.DEFINE_string("image_dir", None, "Folder with JPEG images.", required=True)
    flags.DEFINE_integer("input_size", 227, "Of the network, in pixels.", lower_bound=1)
    flags.DEFINE_integer("rounds", 7, "Each side runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    from benchmarks.serving_server import read_images

    args = flags.FLAGS
    images = read_images(args.image_dir)
    images = [images[index % len(images)] for index in range(COUNT)]
    sides = {"pipeline": time_pipeline(images, args.input_size), "bare": time_bare(images)}
    taken = {name: [] for name in sides}
    for number in range(args.rounds + 1):
        for name, time_side in sides.items():
            seconds = time_side()
            if number:  # the first round warms up
                taken[name].append(seconds)
    elapsed, cpu = ({name: np.median(rounds, 0)[kind] for name, rounds in taken.items()} for kind in range(2))
    rates = {name: COUNT / seconds for name, seconds in elapsed.items()}
    kilobytes = sum(map(len, images)) / COUNT / 1000
    print(f"{COUNT} images of {kilobytes:.0f} KB to {args.input_size} pixels, {CORES} cores, load {os.getloadavg()}")
    print(f"images a second: pipeline {rates['pipeline']:.0f}, bare {rates['bare']:.0f}")
    print(f"ratio of CPU times, bare to pipeline: {cpu['bare'] / cpu['pipeline']:.3f}")
    print(f"ratio={rates['pipeline'] / rates['bare']:.3f} (required: at least {REQUIRED})")


def time_pipeline(images: list[bytes], input_size: int):
    """A function that runs the training pipeline over the images, and returns the seconds elapsed and of the CPU."""
    import tensorflow as tf

    from sqz_keras.architecture.spec import ModelSpec, Preprocessing
    from trainers.data.batches import training_batches
    from trainers.data.source import Source

    records = {"image": images, "label": tf.zeros(COUNT, tf.int64), "id": [str(index) for index in range(COUNT)]}
    # Cached, so that the images are given out without a copy: the bare side has its bytes at hand too.
    dataset = tf.data.Dataset.from_tensor_slices(records).cache()
    # Not shuffled, so that position n is image n and its window is known.
    batches = training_batches(
        Source("images", ("any",), {"train": COUNT}, lambda _: dataset),
        "train",
        ModelSpec(input_size=input_size, preprocessing=Preprocessing(resize_to=input_size)),
        batch_size=BATCH_SIZE,
        seed=SEED,
        augmentation="modern",
        shuffle_buffer_size=1,
        guarded=False,  # training reads this way until an image cannot be decoded
    )

    def time_side():
        stream = iter(batches)
        # Nothing uses the batches, so none are waiting to be taken when the clock starts, nor when it stops.
        for _ in range(UNTIMED_BATCHES):
            next(stream)
        start = now()
        for _ in range(COUNT // BATCH_SIZE):
            next(stream)
        return now() - start

    return time_side


def time_bare(images: list[bytes]):
    """The same for bare decoding, in the windows of the pipeline's augmentation."""
    import tensorflow as tf

    from trainers.data.augmentation import random_window

    windows = [random_window(tf.io.extract_jpeg_shape(data), SEED, n) for n, data in enumerate(images)]
    work = list(zip([tf.constant(data) for data in images], windows, strict=True))

    def decode_all(part):
        for data, window in part:
            tf.io.decode_and_crop_jpeg(data, window, channels=3)

    def time_side():
        start = now()
        with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
            list(pool.map(decode_all, [work[core::CORES] for core in range(CORES)]))
        return now() - start

    return time_side


def now():
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
