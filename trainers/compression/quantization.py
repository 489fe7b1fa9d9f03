"""--method=quantize: a file of a given size, or the smallest that still answers alike, from unlabelled images."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.calibration_images import find_problems
from sqz_keras.compression.quantize import Quantizer
from sqz_keras.compression.size_search import TooFewBytesError
from sqz_keras.images.files import find_images
from sqz_keras.models.squeezenet import assign, build
from sqz_keras.weights import sqz
from trainers.compression.config import UNSEEN_IMAGES, CalibratedConfig, QuantizeConfig
from trainers.data.image_reader import read_inputs
from trainers.progress import say
from trainers.training.interruption import mendable_errors

Arrays = dict[str, np.ndarray]
SENSIBLE = 0.8  # a size with a lower agreement gets a warning
FORECAST_SHARES = (0.8, 0.9, 0.95, 0.99)
_SEARCHES = 5
_CLOSE = 0.02  # the search ends when its bounds differ by less than this share of the size


@mendable_errors()
def quantize(
    config: QuantizeConfig, spec: ModelSpec, arrays: Arrays, provenance: Mapping[str, Any]
) -> tuple[Arrays, list[dict]]:
    """The quantised weights, and the settings of the stage, for the provenance.

    Raises:
        ValueError: The images are not for this model or are too few, or no file that was tried achieves the agreement.
        TooFewBytesError: Nothing useful fits into the size.
        OSError: Memory is exhausted.
    """
    model = build(spec, arrays)
    paths, others = _split_images(config)
    images = read_calibration(config, spec, model, paths)
    unseen = read_inputs(others, spec) if others else None
    stage = {"stage": "quantize", "images": len(images)}
    stage |= {"agreement": config.agreement} if config.agreement else {"target_bytes": config.target_bytes}
    header = header_bytes(config, spec, arrays, provenance, stage)
    quantizer = Quantizer(spec, arrays, images, profile=config.profile, report=say)
    _say_estimates(quantizer, header)
    if unseen is not None:
        return _smallest(quantizer, config.agreement, model, unseen, header), [stage]
    say(f"quantising to {config.target_bytes:,} bytes")
    target = config.target_bytes - header
    if target <= quantizer.least_estimate:
        say("Warning: in so few bytes most weights become 0; how many answers will stay the same cannot be predicted.")
    elif (estimated := quantizer.estimate_agreement(target)) < SENSIBLE:
        say(f"Warning: in so few bytes only about {estimated:.0%} of the answers will stay the same.")
    return quantizer.to_size(target), [stage]


def header_bytes(
    config: CalibratedConfig, spec: ModelSpec, arrays: Arrays, provenance: Mapping[str, Any], *stages: dict
) -> int:
    """Bytes of the file other than its weights, if its provenance names these stages."""
    return sqz.header_bytes(spec, arrays, {**provenance, "stages": [*provenance["stages"], *stages]}, config.self_test)


def _split_images(config: QuantizeConfig) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The images to round with, and with --agreement others to evaluate: at least half of those that are used."""
    if not config.agreement:
        return find_images(config.calibration_dir, config.calibration_images), []
    paths = find_images(config.calibration_dir, config.calibration_images + UNSEEN_IMAGES)
    if len(paths) < 2:
        raise ValueError(
            f"--agreement needs at least 2 images, to calibrate and to evaluate; {config.calibration_dir} holds 1."
        )
    every = max(2, math.ceil(len(paths) / config.calibration_images))
    return paths[::every], [path for index, path in enumerate(paths) if index % every]


def read_calibration(
    config: CalibratedConfig, spec: ModelSpec, model: keras.Model, paths: Sequence[pathlib.Path]
) -> np.ndarray:
    """The images to round with, as network inputs; warns if they are unfit for this model."""
    say(f"reading {len(paths)} images of {config.calibration_dir}")
    images = read_inputs(paths, spec)
    for problem in find_problems(images, _answers(model, images)):
        say(f"Warning: {problem}")
    return images


def _say_estimates(quantizer: Quantizer, header: int) -> None:
    least = quantizer.least_estimate
    estimates = {share: quantizer.estimate_size(share) for share in FORECAST_SHARES}
    sizes = ", ".join(f"{share:.0%} in {size + header:,}" for share, size in estimates.items() if size > least)
    if sizes:
        say(f"answers that will stay as they are, by bytes: about {sizes}")
    if least in estimates.values():
        say(f"In {least + header:,} bytes and fewer, how many answers will stay the same cannot be predicted.")


def _answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=32, verbose=0).argmax(axis=1)


def _smallest(quantizer: Quantizer, target: float, model: keras.Model, unseen: np.ndarray, header: int) -> Arrays:
    """The smallest weights found that give the expected answer on enough of the unseen images.

    Args:
        quantizer: Makes weights of a requested size.
        target: The share of the images whose answer must stay the same.
        model: The uncompressed model; its weights are replaced.
        unseen: Network inputs.
        header: Bytes of the file other than its weights.
    """
    expected = _answers(model, unseen)
    best, best_size, too_small, size = None, None, 0, quantizer.estimate_size(target)
    for _ in range(_SEARCHES):
        say(f"quantising to {size + header:,} bytes")
        try:
            candidate = quantizer.to_size(size)
        except TooFewBytesError as error:
            say(str(error))
            agreement = 0.0
        else:
            assign(model, candidate)
            agreement = float(np.mean(_answers(model, unseen) == expected))
            say(f"{agreement:.1%} of {len(unseen)} unseen images have the same answer as before")
        if agreement >= target:
            best, best_size = candidate, size
        else:
            too_small = size
        if best is None:
            size = round(size * 1.15)
        elif not too_small:
            size = round(size / 1.15)
        elif best_size - too_small < _CLOSE * best_size:
            break
        else:
            size = (best_size + too_small) // 2
    if best is None:
        raise ValueError(
            f"--agreement={target} was not achieved in {too_small + header:,} bytes: give a lower one, or give "
            "--target_bytes instead."
        )
    return best
