"""One update of the trainer, compared with a bare `tf.function` step of the same net and batch, interleaved in one run.

    python benchmarks/train_step.py [--rounds=30] [--batch=32] [--input_size=128]

The bare step is forward, cross-entropy, backward and plain SGD, with nothing else. Prints `ratio=` of the medians (the
required ratio is at most 1.05). Each kind also runs alone, in processes of its own; the trainer does so once more with
the memory of large blocks kept, as `sqz-train` keeps it. These runs print the peak memory, and `kept_ratio=`, the
trainer's median with memory kept divided by the one without.
"""

import resource
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from sqz_keras import ModelSpec, command, memory
from sqz_keras.images.preprocessing import preprocess_input
from sqz_keras.models.squeezenet import build
from trainers.training.config import TrainConfig
from trainers.training.step import TrainState, make_update

KINDS = ("bare", "trainer")
WARM_UP = 3
ALONE = (("--alone=bare",), ("--alone=trainer",), ("--alone=trainer", "--keep"))  # the flags of each process
REPEATS = 2


def bare_step(model):
    logits_of = keras.Model(model.inputs, model.get_layer("pool10").output)
    weights = [weight.value for weight in model.trainable_variables]

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = logits_of(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(1e-4 * gradient)
        return loss

    return step


def make_run(kind, args):
    """A function that makes one update, always with the same images."""
    spec = ModelSpec("1.1", input_size=args.input_size)
    random = np.random.default_rng(0)
    shape = (args.batch, args.input_size, args.input_size, 3)
    raw_images = random.integers(0, 256, shape, np.uint8)
    labels = tf.constant(random.integers(0, 1000, args.batch))
    if kind == "bare":
        step, images = bare_step(build(spec)), tf.constant(preprocess_input(raw_images, "channels_last"))
        return lambda: float(step(images, labels))
    config = TrainConfig(spec, "digits", global_batch_size=args.batch)
    strategy = tf.distribute.get_strategy()
    update = make_update(TrainState(build(spec), config, strategy), config, strategy, head_only=False)
    batch, rate, mix = (tf.constant(raw_images), labels, tf.ones(args.batch)), tf.constant(1e-4), tf.constant(1.0)
    return lambda: float(update(batch, rate, mix)[0])


def print_alone():
    """Runs each kind in processes of its own, in turn; the trainer also with memory kept."""
    times = {}
    for _ in range(REPEATS):
        for alone in ALONE:
            command = [sys.executable, *sys.argv, *alone]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            milliseconds, peak = map(float, output.split())
            times.setdefault(alone, []).append(milliseconds)
            print(f"{' '.join(alone)}: {milliseconds:.1f} ms, peak memory {peak:.0f} MiB", flush=True)
    _, default, kept = (min(times[alone]) for alone in ALONE)
    print(f"kept_ratio={kept / default:.3f}")


def define_flags() -> None:
    flags.DEFINE_integer("rounds", 30, "Each kind runs that often.", lower_bound=1)
    flags.DEFINE_integer("batch", 32, "Images per update.", lower_bound=1)
    flags.DEFINE_integer("input_size", 128, "Pixels of a side.", lower_bound=1)
    flags.DEFINE_enum("alone", None, KINDS, "Print the milliseconds and the peak memory of this kind.")
    flags.DEFINE_boolean("keep", False, "Keep memory as sqz-train does.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    if args.keep:
        memory.keep_blocks()
    kinds = [args.alone] if args.alone else KINDS
    if not args.alone:  # first, since a process inherits the peak memory of its parent
        print_alone()
    runs = {kind: make_run(kind, args) for kind in kinds}
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    times = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    if args.alone:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss
        print(1e3 * medians[args.alone], unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    print(
        f"median of {args.rounds}: " + ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in medians.items())
    )
    print(f"ratio={medians['trainer'] / medians['bare']:.3f} (required: at most 1.05)")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
