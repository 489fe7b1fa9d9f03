"""--method=quantize: a file of a given size, or the smallest that still answers alike, from unlabelled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.calibration_images import find_problems
from sqz_keras.compression.quantize import Quantizer, TooFewBytesError
from sqz_keras.images.files import find_images
from sqz_keras.models.squeezenet import assign, build
from sqz_keras.weights import sqz
from trainers.compression.config import CalibratedConfig, QuantizeConfig
from trainers.data.image_reader import read_inputs
from trainers.progress import say
from trainers.training.interruption import mendable_errors

Arrays = dict[str, np.ndarray]
SENSIBLE = 0.8  # a size with a lower agreement gets a warning
_SHARES = (0.8, 0.9, 0.95, 0.99)
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
    images, answers = read_calibration(config, spec, model)
    stage = {"stage": "quantize", "images": len(images)}
    stage |= {"agreement": config.agreement} if config.agreement else {"target_bytes": config.target_bytes}
    header = header_bytes(config, spec, arrays, provenance, stage)
    if config.agreement:
        if len(images) < 2:
            raise ValueError("--agreement needs at least 2 images, to calibrate and to evaluate; only 1 could be read.")
        quantizer = Quantizer(spec, arrays, images[::2], profile=config.profile, report=say)
        _say_estimates(quantizer, header)
        return _smallest(quantizer, config.agreement, model, images[1::2], answers[1::2], header), [stage]
    quantizer = Quantizer(spec, arrays, images, profile=config.profile, report=say)
    _say_estimates(quantizer, header)
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


def read_calibration(config: CalibratedConfig, spec: ModelSpec, model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """The images to round with, as network inputs, and the class that the model gives each; warns if they are unfit."""
    paths = find_images(config.calibration_dir, config.calibration_images)
    say(f"reading {len(paths)} images of {config.calibration_dir}")
    images = read_inputs(paths, spec)
    answers = _answers(model, images)
    for problem in find_problems(images, answers):
        say(f"Warning: {problem}")
    return images, answers


def _say_estimates(quantizer: Quantizer, header: int) -> None:
    least = quantizer.least_estimate
    estimates = {share: quantizer.estimate_size(share) for share in _SHARES}
    sizes = ", ".join(f"{share:.0%} in {size + header:,}" for share, size in estimates.items() if size > least)
    if sizes:
        say(f"answers that will stay as they are, by bytes: about {sizes}")
    if least in estimates.values():
        say(f"In {least + header:,} bytes and fewer, how many answers will stay the same cannot be predicted.")


def _answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=32, verbose=0).argmax(axis=1)


def _smallest(
    quantizer: Quantizer, target: float, model: keras.Model, unseen: np.ndarray, expected: np.ndarray, header: int
) -> Arrays:
    """The smallest weights found that give the expected answer on enough of the unseen images.

    Args:
        quantizer: Makes weights of a requested size.
        target: The share of the images whose answer must stay the same.
        model: A model of the same kind, whose weights are replaced.
        unseen: Network inputs.
        expected: The expected class of each input, int64 (N,).
        header: Bytes of the file other than its weights.
    """
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
