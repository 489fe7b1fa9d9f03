"""Bytes of an over-the-air update as a delta and as a whole file, by how much of the net the update changes.

    python experiments/deltas.py --image_dir=DIR [--model=imagenet] [--updates=40] [--batch_size=8]

DIR holds labelled images, as for sqz-evaluate. The net is fine-tuned on some of them: conv10's bias, conv10 alone or
everything; pruned weights stay 0. K-means shares the weights before and after fine-tuning, and the file from before is
the base of the delta; the changes of the biases are rounded, as in sqz-compress. Prints a table of bytes: the whole
file, the delta, and the patches of bsdiff and xdelta3 from the old file to the new one, for the .sqz files and for
LiteRT files in float32, if these programs are on the PATH. Then prints how far rounding the biases moves a probability,
and the loss of the first and last ten updates, which shows that the net has learnt something.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command

BITS = (6, 8)
TOOLS = {  # a program -> its arguments before the old file, the new one and the patch
    "bsdiff": [],
    "xdelta3": ["-9", "-S", "lzma", "-e", "-f", "-s"],
}
CHANGES = {"nothing": (), "conv10's bias": ("conv10/bias",), "conv10 alone": ("conv10/",), "everything": ("",)}


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of labelled images.", required=True)
    flags.DEFINE_integer("updates", 40, "Of the fine-tuning.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 8, "Images an update.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 1e-4, "Of SGD with momentum 0.9.", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "Of the choice of images.", lower_bound=0)


def main(argv) -> None:
    del argv
    import keras

    from sqz_keras.compression.bias_changes import round_bias_changes
    from sqz_keras.compression.kmeans import kmeans
    from sqz_keras.runtimes import litert_file
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.image_reader import class_labels, find_labelled_images, read_inputs

    args = flags.FLAGS
    keras.utils.set_random_seed(args.seed)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    labelled_images = find_labelled_images(args.image_dir, class_labels(spec))
    count = args.updates * args.batch_size
    chosen = np.random.default_rng(args.seed).choice(len(labelled_images), count, replace=count > len(labelled_images))
    images = read_inputs([labelled_images[place][0] for place in chosen], spec)
    if len(images) != count:
        raise ValueError("Remove the images that cannot be read: they would shift the others.")
    batches = (
        images.reshape(args.updates, args.batch_size, *images.shape[1:]),
        np.array([labelled_images[place][1] for place in chosen]).reshape(args.updates, args.batch_size),
    )
    bases = {bits: kmeans(arrays, bits) for bits in BITS}
    heads = ["whole", "delta", *(f"{tool} {kind}" for kind in (".sqz", ".tflite") for tool in TOOLS), "moved"]
    print(f"{'changed':<16}bits{''.join(f'{head:>16}' for head in heads)}  loss")
    for name, prefixes in CHANGES.items():
        changed, losses = finetune(spec, arrays, prefixes, *batches, args.learning_rate)
        losses_text = f"{np.mean(losses[:10]):.2f} to {np.mean(losses[-10:]):.2f}" if losses else ""
        for bits, old in bases.items():
            exact = kmeans(changed, bits)
            new = round_bias_changes(exact, old)
            base, whole = sqz.encode(spec, old), sqz.encode(spec, new)
            sizes = [len(whole), len(sqz.encode(spec, new, base=base)), *patch_sizes(base, whole)]
            sizes += patch_sizes(litert_file.convert(spec, old), litert_file.convert(spec, new))
            cells = "".join(f"{'-' if size is None else format(size, ','):>16}" for size in sizes)
            moved = largest_difference(spec, exact, new, batches[0][0])
            print(f"{name:<16}{bits:>4}{cells}{moved:>16.1e}  {losses_text}", flush=True)


def patch_sizes(old: bytes, new: bytes) -> list[int | None]:
    """Bytes of the patch from one file to the other by each of `TOOLS`; None for a tool that is not on the PATH."""
    sizes: list[int | None] = []
    with tempfile.TemporaryDirectory() as scratch:
        paths = [pathlib.Path(scratch, name) for name in ("old", "new", "patch")]
        for path, data in zip(paths, (old, new), strict=False):
            path.write_bytes(data)
        for tool, arguments in TOOLS.items():
            if shutil.which(tool) is None:
                sizes.append(None)
                continue
            subprocess.run([tool, *arguments, *paths], check=True)
            sizes.append(paths[2].stat().st_size)
    return sizes


def largest_difference(spec, one, other, inputs) -> float:
    """Largest difference between the probabilities that two sets of weights give, on network inputs."""
    from sqz_keras.models.squeezenet import assign, build

    model = build(spec, one)
    answers = model.predict_on_batch(inputs)
    assign(model, other)
    return float(np.abs(model.predict_on_batch(inputs) - answers).max())


def finetune(spec, arrays, prefixes, images, labels, learning_rate) -> tuple[dict[str, np.ndarray], list[float]]:
    """Updates the arrays whose names start with one of the prefixes, once per batch; returns all arrays, and losses."""
    import keras
    import tensorflow as tf

    from sqz_keras.models.squeezenet import build, named_arrays

    model = build(spec, arrays)
    weights = [weight.value for weight in model.trainable_variables if _name(weight).startswith(prefixes)]
    if not weights:
        return arrays, []
    masks = [tf.cast(weight != 0, tf.float32) if len(weight.shape) > 1 else 1.0 for weight in weights]
    velocities = [tf.Variable(tf.zeros(weight.shape)) for weight in weights]

    @tf.function(autograph=False)
    def update(batch, truth):
        with tf.GradientTape() as tape:
            answers = model(batch, training=False)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(truth, answers))
        gradients = tape.gradient(loss, weights)
        for weight, velocity, gradient, mask in zip(weights, velocities, gradients, masks, strict=True):
            velocity.assign(0.9 * velocity + learning_rate * mask * gradient)
            weight.assign_sub(velocity)
        return loss

    losses = [
        float(update(tf.constant(image), tf.constant(truth))) for image, truth in zip(images, labels, strict=True)
    ]
    return named_arrays(model), losses


def _name(weight) -> str:
    """The weight's name among the arrays, such as `conv10/bias`."""
    return "/".join(weight.path.split("/")[-2:])


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
