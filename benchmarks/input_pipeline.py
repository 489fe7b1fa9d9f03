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

from absl import flags

from sqz_keras import command

REQUIRED = 0.85
SEED = 0
BATCH_SIZE = 64
UNTIMED_BATCHES = 4
CORES = os.cpu_count() or 1


def define_flags() -> None:
    flags.DEFINE_string("image_dir", None, "Folder with JPEG images.", required=True)
    flags.DEFINE_integer("input_size", 227, "Of the network, in pixels.", lower_bound=1)
    flags.DEFINE_integer("rounds", 7, "Each side runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    import numpy as np
    import tensorflow as tf

    from benchmarks.serving_server import jpeg_files
    from sqz_keras.architecture.spec import ModelSpec, Preprocessing
    from trainers.data.augmentation import random_window
    from trainers.data.batches import training_batches
    from trainers.data.source import Source

    args = flags.FLAGS
    images = [path.read_bytes() for path in jpeg_files(args.image_dir)]
    # About 1,200 images, a whole number of batches, from memory: this does not measure the disk.
    count = 1200 // BATCH_SIZE * BATCH_SIZE
    images = [images[index % len(images)] for index in range(count)]
    ids = [str(index) for index in range(count)]
    records = {"image": images, "label": tf.zeros(count, tf.int64), "id": ids}
    # Cached, so that the images are given out without a copy: the bare side has its bytes at hand too.
    dataset = tf.data.Dataset.from_tensor_slices(records).cache()
    source = Source("images", ("any",), {"train": count}, lambda _: dataset)
    spec = ModelSpec(input_size=args.input_size, preprocessing=Preprocessing(resize_to=args.input_size))
    # Not shuffled, so that position n is image n and its window is known.
    batches = training_batches(
        source,
        "train",
        spec,
        batch_size=BATCH_SIZE,
        seed=SEED,
        augmentation="modern",
        shuffle_buffer_size=1,
        guarded=False,  # training reads this way until an image cannot be decoded
    )
    windows = [random_window(tf.io.extract_jpeg_shape(data), SEED, n) for n, data in enumerate(images)]
    work = list(zip([tf.constant(data) for data in images], windows, strict=True))

    def time_pipeline():
        stream = iter(batches)
        # Nothing uses the batches, so none are waiting to be taken when the clock starts, nor when it stops.
        for _ in range(UNTIMED_BATCHES):
            next(stream)
        start = now()
        for _ in range(count // BATCH_SIZE):
            next(stream)
        return now() - start

    def time_bare():
        start = now()
        with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
            list(pool.map(decode_all, [work[core::CORES] for core in range(CORES)]))
        return now() - start

    def decode_all(part):
        for data, window in part:
            tf.io.decode_and_crop_jpeg(data, window, channels=3)

    def now():
        return np.array([time.perf_counter(), time.process_time()])

    taken = {"pipeline": [], "bare": []}
    for number in range(args.rounds + 1):
        for name, time_side in (("pipeline", time_pipeline), ("bare", time_bare)):
            seconds = time_side()
            if number:  # the first round warms up
                taken[name].append(seconds)
    elapsed, cpu = ({name: np.median(rounds, 0)[kind] for name, rounds in taken.items()} for kind in range(2))
    rates = {name: count / seconds for name, seconds in elapsed.items()}
    kilobytes = sum(map(len, images)) / count / 1000
    print(f"{count} images of {kilobytes:.0f} KB to {args.input_size} pixels, {CORES} cores, load {os.getloadavg()}")
    print(f"images a second: pipeline {rates['pipeline']:.0f}, bare {rates['bare']:.0f}")
    print(f"ratio of CPU times, bare to pipeline: {cpu['bare'] / cpu['pipeline']:.3f}")
    print(f"ratio={rates['pipeline'] / rates['bare']:.3f} (required: at least {REQUIRED})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
