"""How well one batch of `sqz-compress --method=tune` tells the direction in which the answers on other images improve.

    python experiments/tuning_signal.py --model=MODEL --file=TUNED.sqz --image_dir=DIR --other_dir=OTHER [--batches=40]

The gradient of the divergence between the answers of MODEL and of the file is computed for batches of DIR at several
temperatures, and for batches of OTHER at temperature 1; OTHER's images should be of kinds that DIR does not have.
Gradients are in units of each weight's step, divided for each weight by its root mean square over the batches.

Prints, for each temperature, the signal-to-noise ratio of a batch (power), the cosine of the mean gradient with OTHER's
mean gradient, both corrected for noise, and the cosine of one batch's gradient with OTHER's mean. All are computed from
the means of halves of the batches.
"""

from __future__ import annotations

import itertools
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command

TEMPERATURES = (1.0, 1.5, 2.0, 3.0)
BATCH_SIZE = 32
SPLITS = 6  # how often the batches are split into halves; the results are averaged


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("file", None, "File whose weights are on grids, of --method=tune.", required=True)
    flags.DEFINE_string("image_dir", None, "Images to tune on, at any depth.", required=True)
    flags.DEFINE_string("other_dir", None, "Images of other kinds.", required=True)
    flags.DEFINE_integer("batches", 40, "Batches of 32 of each folder.", lower_bound=4)
    flags.DEFINE_integer("seed", 0, "Seed of crops.", lower_bound=0)


def main(argv) -> None:
    del argv
    import tensorflow as tf

    from sqz_keras.weights.resolve import resolve_model
    from trainers.compression.inputs import input_batches, unlabelled_source
    from trainers.progress import progress_bar

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    gradient = gradient_function(spec, arrays, resolve_model(args.file)[1])

    def batches(folder):
        options = {"batch_size": BATCH_SIZE, "seed": args.seed, "augmentation": "authors"}
        dataset = input_batches(unlabelled_source(folder), spec, **options)
        return itertools.islice((images for images, *_ in dataset), args.batches)

    gradients: dict[str, list[np.ndarray]] = {}
    pairs = zip(batches(args.image_dir), batches(args.other_dir), strict=True)
    bar = progress_bar(args.batches, "gradient")
    for images, others in pairs:
        for temperature in TEMPERATURES:
            name = f"temperature {temperature:g}"
            gradients.setdefault(name, []).append(gradient(images, tf.constant(temperature)))
        gradients.setdefault("other images, temperature 1", []).append(gradient(others, tf.constant(1.0)))
        bar.update()
    bar.close()
    scaled = {name: normalized(np.stack(rows)) for name, rows in gradients.items()}
    for name, rows in scaled.items():
        signal, of_means, of_batch = compare(rows, scaled["other images, temperature 1"])
        print(f"{name}: signal/noise {signal:.3f}, cosine {of_means:.2f}, of one batch {of_batch:.3f}")


def gradient_function(spec, arrays, quantized):
    """A function of inputs and a temperature: the gradient of the kernel weights that are not pruned, float32 (n,)."""
    import tensorflow as tf

    from sqz_keras.codec.values import to_codes
    from sqz_keras.compression.code_tuning import mean_softened_divergence
    from sqz_keras.compression.net_rounding import kept_weights
    from sqz_keras.models.squeezenet import build

    teacher, student = build(spec, dict(arrays)), build(spec, dict(quantized))
    kernels = [variable for variable in student.trainable_variables if variable.path.endswith("/kernel")]
    steps = [to_codes(quantized[kernel.path]).step for kernel in kernels]
    kept = np.concatenate([kept_weights(arrays[kernel.path]).ravel() for kernel in kernels])

    @tf.function(autograph=False)
    def of_images(images, temperature):
        with tf.GradientTape() as tape:
            divergence = mean_softened_divergence(teacher, student, images, tf.ones(tf.shape(images)[0]), temperature)
        gradients = tape.gradient(divergence, [kernel.value for kernel in kernels])
        return tf.concat([tf.reshape(step * one, [-1]) for step, one in zip(steps, gradients, strict=True)], axis=0)

    return lambda images, temperature: of_images(images, temperature).numpy()[kept]


def normalized(rows):
    """Gradients (batches, n), divided for each weight by the root of its mean square."""
    return rows / (((rows**2).mean(axis=0)) ** 0.5 + 1e-12)


def compare(rows, others) -> tuple[float, float, float]:
    """For gradients (batches, n): a batch's signal over noise; cosine of the means; cosine of a batch and the mean."""
    rng, half = np.random.default_rng(0), len(rows) // 2
    splits = [cosines_of_halves(rng.permutation(len(rows)), rows, others) for _ in range(SPLITS)]
    same, same_of_others, cross = np.mean(splits, axis=0)
    signal = max(same, 0.0) / (1 - same) / half
    of_means = cross / math.sqrt(max(same * same_of_others, 1e-12))
    return signal, of_means, of_means * math.sqrt(signal / (1 + signal))


def cosines_of_halves(order, rows, others) -> tuple[float, float, float]:
    """Cosines between the means of two halves: both of `rows`, both of `others`, and one of each."""
    halves = [[values[part].mean(axis=0) for part in (order[::2], order[1::2])] for values in (rows, others)]
    (a, b), (c, d) = halves
    return cosine(a, b), cosine(c, d), (cosine(a, d) + cosine(b, c)) / 2


def cosine(one, other) -> float:
    return float(one @ other / math.sqrt((one @ one) * (other @ other)))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
