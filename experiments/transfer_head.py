"""Transfer from a few pictures per class: a linear head on the trunk's averages, as they are and scaled to about 1.

    python experiments/transfer_head.py --image_dir=DIR [--model=imagenet] [--version=1.1] [--images_per_class=5]

DIR holds a folder of images per class. For each seed, --images_per_class images of every class are drawn for training,
and all others are for test. The trunk is frozen, so its features are computed once. The heads are trained as in
docs/models.md: Adam with Keras's learning rate. Prints the mean and the maximum of the features, and the top-1 accuracy
of each head over the seeds, which differ in the images and in the initial weights.
"""

from __future__ import annotations

import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command

HEADS = ("Dense", "Rescaling(1/20), Dense", "LayerNormalization, Dense")


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, with a folder for every class.", required=True)
    flags.DEFINE_integer("images_per_class", 5, "Of them for training.", lower_bound=1)
    flags.DEFINE_integer("epochs", 20, "Of the training.", lower_bound=1)
    flags.DEFINE_integer("seeds", 3, "How many.", lower_bound=1)


def main(argv) -> None:
    del argv
    from sqz_keras.images.files import split_by_suffix
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.image_reader import read_inputs

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    folders = sorted(path for path in pathlib.Path(args.image_dir).iterdir() if path.is_dir())
    classes = [split_by_suffix(folder.iterdir())[0] for folder in folders]
    labels = np.repeat(np.arange(len(classes)), [len(paths) for paths in classes])
    features = trunk_features(spec, arrays, read_inputs([path for paths in classes for path in paths], spec))
    if len(features) != len(labels):
        raise ValueError("Remove the images that cannot be read: they would shift the others.")
    print(
        f"{len(labels)} images, {len(classes)} classes; features: mean {features.mean():.1f}, max {features.max():.0f}"
    )
    for head in HEADS:
        runs = [train(head, features, labels, args.images_per_class, args.epochs, seed) for seed in range(args.seeds)]
        accuracies = ", ".join(f"{accuracy:.1%}" for accuracy in runs)
        print(f"{head}: top-1 {statistics.mean(runs):.1%} ({accuracies})", flush=True)


def trunk_features(spec, arrays, inputs: np.ndarray) -> np.ndarray:
    """What `include_top=False, pooling="avg"` returns: (N, 512)."""
    import keras

    from sqz_keras.models.squeezenet import build

    model = build(spec, arrays)
    averages = keras.layers.GlobalAveragePooling2D()(model.get_layer("drop9").input)
    return keras.Model(model.input, averages).predict(inputs, batch_size=32, verbose=0)


def train(head: str, features: np.ndarray, labels: np.ndarray, per_class: int, epochs: int, seed: int) -> float:
    """The top-1 accuracy on the images that were not drawn for training."""
    import keras

    keras.utils.set_random_seed(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
    others = np.setdiff1d(order, chosen)
    scale = {HEADS[0]: [], HEADS[1]: [keras.layers.Rescaling(1 / 20)], HEADS[2]: [keras.layers.LayerNormalization()]}
    model = keras.Sequential([*scale[head], keras.layers.Dense(int(labels.max()) + 1, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(features[chosen], labels[chosen], epochs=epochs, verbose=0)
    return float((model.predict(features[others], verbose=0).argmax(axis=1) == labels[others]).mean())


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
