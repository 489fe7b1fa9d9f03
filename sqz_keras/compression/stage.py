"""What all stages that train share: checks of the inputs, training of the tf_keras twin, checks of the result."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sqz_keras.architecture.plain_numbers import as_number, require_integer
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.compression import tf_keras_bridge as bridge
from sqz_keras.compression.stage_folder import StageFolder
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights.arrays import check_shapes

Arrays = dict[str, np.ndarray]
Report = Callable[[int, int, float], None]


class StageError(ValueError):
    """A stage's result is not what was requested."""


@dataclasses.dataclass(frozen=True)
class Training:
    """The options that all stages share; `tfmot_stages` describes them.

    Raises:
        ValueError: An option is out of range.
    """

    steps: int
    learning_rate: float
    dropout_rate: float
    workdir: str | os.PathLike | None
    checkpoint_every_steps: int
    report: Report | None
    source: str = ""

    def __post_init__(self):
        for name in ("steps", "checkpoint_every_steps"):
            object.__setattr__(self, name, require_integer(name, getattr(self, name), 1))
        learning_rate, dropout_rate = as_number(self.learning_rate), as_number(self.dropout_rate)
        if learning_rate is None or not learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if dropout_rate is None or not 0 <= dropout_rate < 1:
            raise ValueError(f"dropout_rate must be in [0, 1), got {self.dropout_rate}.")
        object.__setattr__(self, "learning_rate", learning_rate)
        object.__setattr__(self, "dropout_rate", dropout_rate)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of compression.

    Args:
        name: Name for messages.
        options: Options besides the `Training` that decide the result, as JSON values.
        wrap: See `to_tf_keras`.
        strip: Function from the trained tf_keras model to the same model without wrappers.
        check: Function that takes the result and raises a StageError if it is not what was requested.
        callbacks: Callbacks of tf_keras.
    """

    name: str
    options: Mapping
    wrap: Callable | None = None
    strip: Callable | None = None
    check: Callable[[Arrays], None] | None = None
    callbacks: Sequence = ()


def run_stage(stage: Stage, spec: ModelSpec, arrays: Mapping[str, np.ndarray], batches, training: Training) -> Arrays:
    """The weights after the stage, in net order.

    Raises:
        ValueError: The arrays or batches do not fit the spec, or the workdir belongs to another stage; it is raised
            before any work.
        StageError: The result is not what was requested.
    """
    shapes = spec.weight_shapes()
    check_shapes("arrays", arrays, shapes)
    check_batches(batches, spec)
    folder = StageFolder(
        training.workdir,
        {
            "stage": stage.name,
            **stage.options,
            **{name: getattr(training, name) for name in ("steps", "learning_rate", "dropout_rate")},
            "model_spec": dataclasses.replace(spec, weights_sha256=None).to_json(),
            "arrays": hash_arrays(arrays),
            "batches": str(batches.element_spec),
            "source": training.source,
        },
    )
    return folder.once(shapes, lambda: _train(stage, spec, arrays, batches, training, folder))


def _train(stage: Stage, spec: ModelSpec, arrays: Mapping, batches, training: Training, folder: StageFolder) -> Arrays:
    model = bridge.to_tf_keras(build(spec, dict(arrays), training.dropout_rate), stage.wrap)
    bridge.train(
        model,
        batches,
        steps=training.steps,
        learning_rate=training.learning_rate,
        callbacks=stage.callbacks,
        checkpoints=folder.checkpoints if training.workdir is not None else None,
        checkpoint_every_steps=training.checkpoint_every_steps,
        report=training.report,
    )
    trained = named_arrays(stage.strip(model) if stage.strip else model)
    # A mask makes -0.0, which would count as a value of its own.
    result = {name: trained[name] + np.float32(0) for name in spec.weight_shapes()}
    if not all(np.isfinite(array).all() for array in result.values()):
        raise StageError(f"{stage.name}: the weights are not finite any more; give a smaller learning_rate.")
    if stage.check:
        stage.check(result)
    return result


def check_batches(batches, spec: ModelSpec) -> None:
    """Refuses a dataset whose elements do not have the types that a stage trains on.

    Raises:
        ValueError: The types differ; the message says what is expected.
    """
    shape = (spec.input_size, spec.input_size, spec.channels)
    parts = getattr(batches, "element_spec", None)
    good = isinstance(parts, tuple) and len(parts) in (2, 3)
    if good:
        images, targets = parts[:2]
        fit = targets.shape.rank == 1 if targets.dtype.is_integer else targets.shape[1:] == (spec.classes,)
        good = images.dtype.name == "float32" and images.shape[1:] == shape and fit
    if not good:
        raise ValueError(
            f"batches must be a tf.data.Dataset of float32 images (B, {', '.join(map(str, shape))}) and targets, class "
            f"indices (B,) or probabilities (B, {spec.classes}); got {parts if parts is not None else batches!r}."
        )
