"""The stages of compression that are fine-tuned, on the trainer's own batches: with labels, or with a teacher."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from sqz_keras.compression.densities import layer_names, measure_densities, parse_densities, sensitivity_densities
from sqz_keras.compression.teacher import teach
from sqz_keras.compression.tfmot_stages import cluster, prune
from sqz_keras.images import find_pictures
from sqz_keras.preprocessing import preprocess_input
from sqz_keras.spec import ModelSpec
from sqz_keras.squeezenet import assign, build
from trainers.compression_config import CompressionConfig
from trainers.image_folder import open_image_dir
from trainers.input_pipeline import Source, evaluation_batches, open_dataset, training_batches
from trainers.progress import say

Arrays = dict[str, np.ndarray]

SENSITIVITY = "sensitivity="
# Where a stage's rate is not given: of Adam, whose steps are of that size.
PRUNING_RATE = 1e-4
CLUSTERING_RATE = 1e-5
_SCAN_IMAGES = 128
_SHUFFLE_BUFFER = 4096
_SPLIT = "train"


def tune(config: CompressionConfig, spec: ModelSpec, arrays: Arrays, bits: dict[str, int]) -> tuple[Arrays, list[dict]]:
    """Prunes to `config.densities` and clusters to `bits`, whichever is given, and fine-tunes in each.

    Returns:
        The weights, and for each stage what it was asked for.

    Raises:
        ValueError: the pictures are not for this model, or an option is out of range.
    """
    source = _open(config, spec)
    batches = training_batches(
        source,
        _SPLIT,
        spec,
        batch_size=config.batch_size,
        seed=config.seed,
        augmentation="none" if config.dataset else "authors",
        shuffle_buffer_size=_SHUFFLE_BUFFER,
    ).map(lambda images, *others: (preprocess_input(images, "channels_last", spec.preprocessing.mode), *others))
    if config.teacher:
        batches = teach(batches, spec, arrays)
    report, stages = _report, []
    told = {"pictures": source.sizes[_SPLIT], "steps": config.steps, "teacher": config.teacher}
    if config.densities:
        densities = _densities(config, spec, arrays, source)
        say(f"pruning for {config.steps} updates")
        rate = config.learning_rate or PRUNING_RATE
        options = {"steps": config.steps, "learning_rate": rate, "workdir": _folder(config, "prune"), "report": report}
        arrays = prune(spec, arrays, batches, densities=densities, **options)
        say(f"density {_density(arrays):.1%}")
        stages.append({"stage": "prune", "densities": config.densities, "learning_rate": rate, **told})
    if bits:
        say(f"clustering for {config.steps} updates")
        rate = config.learning_rate or CLUSTERING_RATE
        options = {"steps": config.steps, "learning_rate": rate, "workdir": _folder(config, "cluster")}
        arrays = cluster(spec, arrays, batches, bits=bits, report=report, **options)
        stages.append({"stage": "cluster", "bits": config.bits, "learning_rate": rate, **told})
    return arrays, stages


def judging_batches(config: CompressionConfig, spec: ModelSpec) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Network inputs and labels of the test split of the labelled pictures, else of the validation split."""
    source = _open(config, spec)
    split = next((name for name in ("test", "validation") if source.sizes.get(name)), None)
    if split is None:
        raise ValueError(f"{source.name} has no split that fine-tuning leaves out: 'test' or 'validation'.")
    return (
        (images.numpy()[weights.numpy() > 0], labels.numpy()[weights.numpy() > 0])
        for images, labels, weights in evaluation_batches(source, split, spec, batch_size=config.batch_size)
    )


def unlabelled_source(folder: str) -> Source:
    """The photographs of a folder at any depth, all of class 0."""
    paths = [str(path) for path in find_pictures(folder)]

    def records(split: str) -> tf.data.Dataset:
        del split
        ids = [pathlib.Path(path).relative_to(folder).as_posix() for path in paths]

        def read(path, name):
            return {"image": tf.io.read_file(path), "label": tf.constant(0, tf.int64), "id": name}

        return tf.data.Dataset.from_tensor_slices((paths, ids)).map(read, num_parallel_calls=16)

    return Source(str(folder), ("any",), {_SPLIT: len(paths)}, records)


def _open(config: CompressionConfig, spec: ModelSpec) -> Source:
    if config.calibration_dir:
        return unlabelled_source(config.calibration_dir)
    source = open_image_dir(config.image_dir) if config.image_dir else open_dataset(config.dataset, config.data_dir)
    if source.labels != spec.labels:
        raise ValueError(
            f"{source.name} has {len(source.labels)} classes ({', '.join(source.labels[:3])}, ...), which are not the "
            f"model's {spec.classes} ({', '.join((spec.labels or ('nameless',))[:3])}, ...) in their order. Give the "
            "pictures that the model was trained on, or --teacher with --calibration_dir."
        )
    return source


def _densities(config: CompressionConfig, spec: ModelSpec, arrays: Arrays, source: Source) -> dict[str, float]:
    layers = layer_names(arrays)
    if not config.densities.startswith(SENSITIVITY):
        return parse_densities(config.densities, layers)
    target = config.densities.removeprefix(SENSITIVITY)
    try:
        target_density = float(target)
    except ValueError:
        raise ValueError(f"--densities={config.densities}: expected a density behind {SENSITIVITY}") from None
    say("scanning how sensitive each layer is")
    return sensitivity_densities(arrays, target_density, _damage(spec, arrays, source))


def _damage(spec: ModelSpec, arrays: Arrays, source: Source) -> Callable[[Arrays], float]:
    """From weights to the cross-entropy of their answers with those of the uncompressed net, on some photographs."""
    batches = evaluation_batches(source, _SPLIT, spec, batch_size=32).take(_SCAN_IMAGES // 32)
    images = np.concatenate([images.numpy()[weights.numpy() > 0] for images, _, weights in batches])
    model = build(spec, arrays)
    wanted = model.predict(images, verbose=0)

    def measure(changed: Arrays) -> float:
        assign(model, changed)
        return float(-(wanted * np.log(model.predict(images, verbose=0) + 1e-7)).sum(axis=1).mean())

    return measure


def _density(arrays: Arrays) -> float:
    sizes = {layer: arrays[f"{layer}/kernel"].size for layer in layer_names(arrays)}
    return sum(share * sizes[layer] for layer, share in measure_densities(arrays).items()) / sum(sizes.values())


def _folder(config: CompressionConfig, stage: str) -> pathlib.Path | None:
    return None if config.workdir is None else pathlib.Path(config.workdir, stage)


def _report(step: int, steps: int, loss: float) -> None:
    if step % 50 == 0 or step == steps:
        say(f"update {step}/{steps}, loss {loss:.4f}")
