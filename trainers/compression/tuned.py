"""The stages of compression that are fine-tuned, on the trainer's own batches: with labels, or with a teacher."""

from __future__ import annotations

import functools
import itertools
import pathlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression import quantize
from sqz_keras.compression.activations import sensitivities
from sqz_keras.compression.bits import bits_for_size, round_evenly
from sqz_keras.compression.densities import layer_names, measure_densities, parse_densities, sensitivity_densities
from sqz_keras.compression.teacher import teach
from sqz_keras.compression.tfmot_stages import cluster, prune
from sqz_keras.images.files import find_images
from sqz_keras.images.preprocessing import preprocess_input
from sqz_keras.models.squeezenet import assign, build
from sqz_keras.weights import sqz
from trainers.compression.config import ROUNDING, SENSITIVITY, SIZE, CompressionConfig, parse_bits
from trainers.data.batches import Source, open_dataset, readable_batches, training_batches
from trainers.data.image_folder import open_image_dir
from trainers.progress import say

Arrays = dict[str, np.ndarray]
Images = Callable[[], np.ndarray]

# Where a stage's rate is not given: of Adam, whose steps are of that size. A teacher's answers say more than labels.
TAUGHT_RATE = 1.5e-4
PRUNING_RATE = 1e-4
CLUSTERING_RATE = 1e-5
_SOME_IMAGES = 128
_SHUFFLE_BUFFER = 4096
_SPLIT = "train"


def tune(config: CompressionConfig, spec: ModelSpec, arrays: Arrays) -> tuple[Arrays, list[dict]]:
    """Prunes to `config.densities` and clusters to `config.bits`, whichever is given, and fine-tunes in each.

    With a teacher, each clustered weight's code is then chosen anew, so that all answer most like the teacher.

    Returns:
        The weights, and for each stage what it was asked for.

    Raises:
        ValueError: the images are not for this model, or an option is out of range.
    """
    source = _open(config, spec)
    images = functools.cache(lambda: _some(spec, source))  # read only where something asks for them
    bits = _bits(config, spec, arrays, images)
    densities = _densities(config, spec, arrays, images, bits)
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
    report, stages, before = _report, [], arrays
    told = {"pictures": source.sizes[_SPLIT], "steps": config.steps, "teacher": config.teacher}
    if densities:
        say(f"pruning for {config.steps} updates")
        rate = _rate(config, PRUNING_RATE)
        options = {"steps": config.steps, "learning_rate": rate, "workdir": _folder(config, "prune"), "report": report}
        arrays = prune(spec, arrays, batches, densities=densities, **options)
        say(f"density {_density(arrays):.1%}")
        stages.append({"stage": "prune", "densities": config.densities, "learning_rate": rate, **told})
    if bits:
        say(f"clustering for {config.steps} updates")
        rate = _rate(config, CLUSTERING_RATE)
        options = {"steps": config.steps, "learning_rate": rate, "workdir": _folder(config, "cluster")}
        arrays = cluster(spec, arrays, batches, bits=bits, report=report, **options)
        stages.append({"stage": "cluster", "bits": config.bits, "learning_rate": rate, **told})
        if config.teacher:
            say("choosing the codes anew")
            arrays = quantize.choose_codes(spec, before, arrays, images(), say)
            stages.append({"stage": "choose_codes", "images": len(images())})
    return arrays, stages


def judging_batches(config: CompressionConfig, spec: ModelSpec) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Network inputs and labels of the test split of the labelled images, else of the validation split."""
    source = _open(config, spec)
    split = next((name for name in ("test", "validation") if source.sizes.get(name)), None)
    if split is None:
        raise ValueError(f"{source.name} has no split that fine-tuning leaves out: 'test' or 'validation'.")
    return readable_batches(source, split, spec, batch_size=config.batch_size)


def unlabelled_source(folder: str) -> Source:
    """The images of a folder at any depth, all of class 0, in an order in which its folders are mixed."""
    paths = [str(path) for path in find_images(folder)]
    random.Random(0).shuffle(paths)

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
            "images that the model was trained on, or --teacher with --calibration_dir."
        )
    return source


def _rate(config: CompressionConfig, of_stage: float) -> float:
    return config.learning_rate or (TAUGHT_RATE if config.teacher else of_stage)


def _bits(config: CompressionConfig, spec: ModelSpec, arrays: Arrays, images: Images) -> dict[str, int]:
    if not config.bits.startswith(SIZE):
        return parse_bits(config.bits, layer_names(arrays)) if config.bits else {}
    wanted = int(_number_behind(SIZE, "--bits", config.bits))
    say("measuring how sensitive each layer is")
    room = wanted - sqz.header_bytes(spec, arrays, {})
    bits = bits_for_size(arrays, sensitivities(build(spec, arrays), images()), room, config.profile)
    say(", ".join(f"{layer} {number}" for layer, number in bits.items()))
    return bits


def _densities(
    config: CompressionConfig, spec: ModelSpec, arrays: Arrays, images: Images, bits: dict[str, int]
) -> dict[str, float]:
    if config.densities == ROUNDING:
        return {layer: share for layer, share in measure_densities(round_evenly(arrays, bits)).items() if share}
    if not config.densities.startswith(SENSITIVITY):
        return parse_densities(config.densities, layer_names(arrays)) if config.densities else {}
    mean = _number_behind(SENSITIVITY, "--densities", config.densities)
    say("scanning how sensitive each layer is")
    return sensitivity_densities(arrays, mean, _damage(spec, arrays, images()))


def _number_behind(prefix: str, flag: str, text: str) -> float:
    try:
        return float(text.removeprefix(prefix))
    except ValueError:
        raise ValueError(f"{flag}={text}: expected a number behind {prefix}") from None


def _some(spec: ModelSpec, source: Source) -> np.ndarray:
    """Some of the training images, as network inputs."""
    batches = itertools.islice(readable_batches(source, _SPLIT, spec, batch_size=32), _SOME_IMAGES // 32)
    return np.concatenate([images for images, _ in batches])


def _damage(spec: ModelSpec, arrays: Arrays, images: np.ndarray) -> Callable[[Arrays], float]:
    """From weights to the cross-entropy of their answers with those of the uncompressed net, on these images."""
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
