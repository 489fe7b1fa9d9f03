"""--method=tune: a file of a given size whose codes are trained on unlabelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sqz_keras import codec
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.compression import code_tuning
from sqz_keras.compression.quantize import Quantizer
from sqz_keras.compression.size_search import TooFewBytesError
from sqz_keras.compression.stage_folder import StageFolder
from sqz_keras.images.files import find_images
from sqz_keras.models.squeezenet import build
from sqz_keras.weights import sqz
from trainers.compression.config import TuneConfig
from trainers.compression.inputs import SPLIT, input_batches, unlabelled_source
from trainers.compression.quantization import header_bytes, read_calibration
from trainers.data.source import Source
from trainers.progress import progress_bar, say
from trainers.training.interruption import mendable_errors

Arrays = dict[str, np.ndarray]
_ENOUGH_IMAGES = 2000


@mendable_errors()
def tune(
    config: TuneConfig, spec: ModelSpec, arrays: Arrays, provenance: Mapping[str, Any]
) -> tuple[Arrays, list[dict]]:
    """Tunes weights on plain grids, as `Quantizer` rounds them or as `config.start` holds them.

    With a workdir, a run that was killed resumes from there.

    Returns:
        The weights, and the settings of the stages, for the provenance, those of `config.start` first.

    Raises:
        ValueError: The images are not for this model, or `config.start` was not made from it.
        TooFewBytesError: Nothing useful fits into the size.
        OSError: A file cannot be read or written, or memory is exhausted.
    """
    source = unlabelled_source(config.calibration_dir)
    images = source.sizes[SPLIT]
    start, earlier = (None, []) if config.start is None else _read_start(config.start, provenance)
    stage = {"stage": "tune", "images": images}
    if start is None:
        stage["calibration_images"] = min(config.calibration_images, images)
    stage |= {name: getattr(config, name) for name in ("steps", "batch_size", "target_bytes")}
    stage["learning_rate"] = config.learning_rate or code_tuning.learning_rate_for(config.steps)
    stages = [*earlier, stage]
    target = config.target_bytes - header_bytes(config, spec, arrays, provenance, *stages)
    if start is not None:
        _check_fits(start, target, config.profile)
    rounded = _round(config, spec, arrays, target) if start is None else start
    if all(np.array_equal(rounded[name], array) for name, array in arrays.items()):
        say(f"the model fits into {config.target_bytes:,} bytes as it is: nothing is tuned")
        return rounded, []
    if images < _ENOUGH_IMAGES:
        say(f"Warning: tuning on {images} images may overfit to them; use {_ENOUGH_IMAGES:,} or more.")
    say(f"tuning for {config.steps} updates on {images} images")
    return _train(config, spec, arrays, rounded, source, target, stage["learning_rate"]), stages


def _read_start(path: str, provenance: Mapping[str, Any]) -> tuple[Arrays, list[dict]]:
    """The tuned weights that a file holds, and the stages that made them from the model."""
    model = sqz.read_model(path)
    stages, before = model.provenance.get("stages"), provenance["stages"]
    is_of_model = model.provenance.get("weights_sha256") == provenance["weights_sha256"]
    if is_of_model and isinstance(stages, list) and stages[: len(before)] == before:
        last = (stages[len(before) :] or [None])[-1]
        if isinstance(last, dict) and last.get("stage") == "tune":
            return model.arrays, stages[len(before) :]
    raise ValueError(f"--start={path} must be a file that --method=tune made of the same --model, without --base.")


def _check_fits(start: Arrays, target: int, profile: str) -> None:
    """Refuses fewer bytes than the codec needs even if all kernels are 0."""
    zeros = {name: np.zeros_like(array) if name.endswith("/kernel") else array for name, array in start.items()}
    least = len(codec.encode(zeros, {}, profile=profile))
    if target < least:
        raise TooFewBytesError(
            f"The file's header leaves {max(target, 0):,} of --target_bytes for the weights, and kernels of zeros need "
            f"{least:,}; ask for more."
        )


def _round(config: TuneConfig, spec: ModelSpec, arrays: Arrays, target: int) -> Arrays:
    """The weights on plain grids, as a stage: if the workdir already holds its result, it is not computed again."""
    paths = find_images(config.calibration_dir, config.calibration_images)
    images = read_calibration(config, spec, build(spec, arrays), paths)
    request = {
        "stage": "round",
        "arrays": hash_arrays(arrays),
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "target_bytes": target,
        "profile": config.profile,
    }

    def compute() -> Arrays:
        say(f"quantising to {config.target_bytes:,} bytes")
        return Quantizer(spec, arrays, images, profile=config.profile, trellis=False, report=say).to_size(target)

    return StageFolder(config.folder_of("round"), request).once(spec.weight_shapes(), compute)


def _train(
    config: TuneConfig, spec: ModelSpec, arrays: Arrays, rounded: Arrays, source: Source, target: int, rate: float
) -> Arrays:
    """The rounded weights after the updates, in `target` bytes; the bar begins where an earlier run was stopped."""

    def batches(updates: int) -> tf.data.Dataset:
        options = {"batch_size": config.batch_size, "seed": config.seed, "augmentation": "authors"}
        dataset = input_batches(source, spec, start_example=updates * config.batch_size, **options)
        return dataset.map(lambda inputs, labels, weights: (inputs, weights))

    bar = None

    def report(update: int, updates: int, divergence: float) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(updates, "update", initial=update - 1)
        bar.update()
        bar.set_postfix_str(f"divergence {divergence:.4f}", refresh=False)

    result = code_tuning.tune(
        spec,
        arrays,
        rounded,
        batches,
        target_bytes=target,
        updates=config.steps,
        learning_rate=rate,
        profile=config.profile,
        source=f"files {source.files_sha256}, seed {config.seed}",
        workdir=config.folder_of("tune"),
        report=report,
    )
    if bar is not None:
        bar.close()
    return result
