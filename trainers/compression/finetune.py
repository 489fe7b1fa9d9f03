"""--method=finetune: pruning, clustering and choosing codes, on labelled images or with a teacher."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.compression.bits import bits_for_size, check_bits, round_evenly
from sqz_keras.compression.choose_codes import choose_codes
from sqz_keras.compression.densities import layer_names, measure_densities, parse_densities, sensitivity_densities
from sqz_keras.compression.sensitivities import sensitivities
from sqz_keras.compression.stage_folder import StageFolder
from sqz_keras.compression.teacher import teach
from sqz_keras.compression.tfmot_stages import BITS, cluster, prune
from sqz_keras.differences import describe_changes
from sqz_keras.files import write_json
from sqz_keras.models.squeezenet import assign, build
from sqz_keras.weights import sqz
from trainers.compression.config import ROUNDING, SENSITIVITY, SIZE, FinetuneConfig, parse_bits
from trainers.compression.inputs import SPLIT, input_batches, unlabelled_source
from trainers.data.batches import readable_batches
from trainers.data.image_folder import check_is_no_class, open_image_dir
from trainers.data.source import Source, has_labels, open_dataset
from trainers.progress import say
from trainers.training.interruption import mendable_errors

Arrays = dict[str, np.ndarray]
Images = Callable[[], np.ndarray]

# Adam's default learning rates. A teacher's answers say more than labels, so the rate with a teacher is higher.
TAUGHT_RATE = 1.5e-4
PRUNING_RATE = 1e-4
CLUSTERING_RATE = 1e-5
_SOME_IMAGES = 128
BITS_NAME = "bits.json"  # in the workdir


@mendable_errors()
def finetune(config: FinetuneConfig, spec: ModelSpec, arrays: Arrays) -> tuple[Arrays, list[dict]]:
    """Prunes to `config.densities`, clusters to `config.bits`, or does both, and fine-tunes in each of these stages.

    With a teacher, the code of each clustered weight is then chosen again, to bring the answers as close as possible to
    the teacher's. With a workdir, each stage resumes after a kill, and a finished stage is not repeated.

    Returns:
        The weights, and the settings of each stage, for the provenance.

    Raises:
        ValueError: The images are not for this model, or an option is out of range.
        OSError: A file cannot be read or written, or memory is exhausted.
    """
    source = _open(config, spec)
    images = functools.cache(lambda: _some(spec, source))  # read only if a stage needs them
    bits = _bits(config, spec, arrays, images)
    densities = _densities(config, spec, arrays, images, bits)
    batches = _training_batches(config, spec, arrays, source)
    fields = {"images": source.sizes[SPLIT], "steps": config.steps, "teacher": config.teacher}
    stages, before = [], arrays
    if densities:
        say(f"pruning for {config.steps} updates")
        options = _options(config, source, "prune", PRUNING_RATE)
        arrays = prune(spec, arrays, batches, densities=densities, **options)
        say(f"density {_density(arrays):.1%}")
        rate = options["learning_rate"]
        stages.append({"stage": "prune", "densities": config.densities, "learning_rate": rate, **fields})
    if bits:
        say(f"clustering for {config.steps} updates")
        options = _options(config, source, "cluster", CLUSTERING_RATE)
        arrays = cluster(spec, arrays, batches, bits=bits, **options)
        stages.append({"stage": "cluster", "bits": config.bits, "learning_rate": options["learning_rate"], **fields})
        if config.teacher:
            arrays = _choose_codes(config, spec, before, arrays, images(), list(bits))
            stages.append({"stage": "choose_codes", "images": len(images())})
    return arrays, stages


def _training_batches(config: FinetuneConfig, spec: ModelSpec, arrays: Arrays, source: Source) -> tf.data.Dataset:
    """Batches of network inputs with labels, or with the teacher's answers instead of labels."""
    augmentation = "none" if config.dataset else "authors"
    batches = input_batches(source, spec, batch_size=config.batch_size, seed=config.seed, augmentation=augmentation)
    return teach(batches, spec, arrays) if config.teacher else batches


def _options(config: FinetuneConfig, source: Source, stage: str, learning_rate: float) -> dict:
    """The arguments that `prune` and `cluster` share."""
    return {
        "steps": config.steps,
        "learning_rate": config.learning_rate or (TAUGHT_RATE if config.teacher else learning_rate),
        "workdir": config.folder_of(stage),
        "report": _report,
        "source": f"{config.dataset or 'files'} {source.files_sha256}, seed {config.seed}",
    }


def _choose_codes(
    config: FinetuneConfig, spec: ModelSpec, before: Arrays, clustered: Arrays, images: np.ndarray, layers: list[str]
) -> Arrays:
    """`choose_codes` as a stage: if the workdir already holds its result, it is not computed again."""
    request = {
        "stage": "choose_codes",
        "before": hash_arrays(before),
        "clustered": hash_arrays(clustered),
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "layers": layers,
    }

    def compute() -> Arrays:
        say("choosing the codes again")
        return choose_codes(spec, before, clustered, images, say, layers)

    return StageFolder(config.folder_of("choose_codes"), request).once(spec.weight_shapes(), compute)


def held_out_batches(config: FinetuneConfig, spec: ModelSpec) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of network inputs and labels from the test split, or else from the validation split.

    A split without labels is used only if neither split has labels; the labels are then None.
    """
    source = _open(config, spec)
    splits = [name for name in ("test", "validation") if source.sizes.get(name)]
    if not splits:
        raise ValueError(f"{source.name} has no split that fine-tuning does not use: 'test' or 'validation'.")
    labelled = [name for name in splits if has_labels(source, name)]
    split = (labelled or splits)[0]
    if not labelled:
        say(f"The split {split!r} of {source.name} has no labels, so only the agreement is measured.")

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with mendable_errors():
            for images, labels in readable_batches(source, split, spec, batch_size=config.batch_size):
                yield images, labels if labelled else None

    return batches()


def _open(config: FinetuneConfig, spec: ModelSpec) -> Source:
    if config.calibration_dir:
        return unlabelled_source(config.calibration_dir)
    if config.image_dir and config.workdir:
        check_is_no_class(config.workdir, config.image_dir)
    source = open_image_dir(config.image_dir) if config.image_dir else open_dataset(config.dataset, config.data_dir)
    if not source.sizes.get(SPLIT):
        raise ValueError(f"{source.name} has no split {SPLIT!r} to fine-tune on, only {sorted(source.sizes)}.")
    if source.labels != spec.labels:
        raise ValueError(
            f"{source.name} has {len(source.labels)} classes ({', '.join(source.labels[:3])}, ...), which are not the "
            f"model's {spec.classes} ({', '.join((spec.labels or ('nameless',))[:3])}, ...) in their order. Give the "
            "images that the model was trained on, or --teacher with --calibration_dir."
        )
    return source


def _bits(config: FinetuneConfig, spec: ModelSpec, arrays: Arrays, images: Images) -> dict[str, int]:
    """Bits by layer; bits chosen for a size are kept in the workdir, because choosing them takes a while."""
    if not config.bits.startswith(SIZE):
        bits = parse_bits(config.bits, layer_names(arrays)) if config.bits else {}
        return check_bits(bits, layer_names(arrays), BITS)
    size = int(_number_after(SIZE, "--bits", config.bits))
    request = {"size": size, "profile": config.profile, "weights_sha256": hash_arrays(arrays)}
    path = config.folder_of(BITS_NAME)
    bits = _kept_bits(path, request) if path is not None and path.exists() else None
    if bits is None:
        say("measuring how sensitive each layer is")
        target = size - sqz.header_bytes(spec, arrays, {}, config.self_test)
        bits = bits_for_size(arrays, sensitivities(build(spec, arrays), images()), target, config.profile)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"request": request, "bits": bits})
    say(", ".join(f"{layer} {number}" for layer, number in bits.items()))
    return bits


def _kept_bits(path: pathlib.Path, request: dict) -> dict[str, int]:
    """The bits that an earlier call left in the workdir.

    Raises:
        ValueError: They were chosen for another request, or the file is damaged.
    """
    try:
        kept = json.loads(path.read_text("utf-8"))
        changes, bits = describe_changes(kept["request"], request), {**kept["bits"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}. Remove it to choose the bits again.") from error
    if changes:
        raise ValueError(
            f"{path} holds the bits for another request: {changes}. Repeat that request, or choose another workdir."
        )
    return bits


def _densities(
    config: FinetuneConfig, spec: ModelSpec, arrays: Arrays, images: Images, bits: dict[str, int]
) -> dict[str, float]:
    if config.densities == ROUNDING:
        return {layer: share for layer, share in measure_densities(round_evenly(arrays, bits)).items() if share}
    if not config.densities.startswith(SENSITIVITY):
        return parse_densities(config.densities, layer_names(arrays)) if config.densities else {}
    mean = _number_after(SENSITIVITY, "--densities", config.densities)
    say("scanning how sensitive each layer is")
    return sensitivity_densities(arrays, mean, _damage(spec, arrays, images()))


def _number_after(prefix: str, flag: str, text: str) -> float:
    try:
        number = float(text.removeprefix(prefix))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{flag}={text}: expected a number after {prefix}")
    return number


def _some(spec: ModelSpec, source: Source) -> np.ndarray:
    """Some of the training images, as network inputs."""
    batches = list(itertools.islice(readable_batches(source, SPLIT, spec, batch_size=32), _SOME_IMAGES // 32))
    if not batches:
        raise ValueError(f"None of the images of {source.name} could be read.")
    return np.concatenate([images for images, _ in batches])


def _damage(spec: ModelSpec, arrays: Arrays, images: np.ndarray) -> Callable[[Arrays], float]:
    """A function of weights: the cross-entropy of their answers with the uncompressed network's, on these images."""
    model = build(spec, arrays)
    expected = model.predict(images, verbose=0)

    def measure(changed: Arrays) -> float:
        assign(model, changed)
        return float(-(expected * np.log(model.predict(images, verbose=0) + 1e-7)).sum(axis=1).mean())

    return measure


def _density(arrays: Arrays) -> float:
    sizes = {layer: arrays[f"{layer}/kernel"].size for layer in layer_names(arrays)}
    return sum(share * sizes[layer] for layer, share in measure_densities(arrays).items()) / sum(sizes.values())


def _report(step: int, steps: int, loss: float) -> None:
    if step % 50 == 0 or step == steps:
        say(f"update {step}/{steps}, loss {loss:.4f}")
