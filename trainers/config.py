"""What a training run is: one frozen config, checked when it is made, and the recipes by name."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil

from sqz_keras.spec import ModelSpec
from trainers import configs


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the authors' solver for ImageNet (their solver.prototxt).

    Args:
        model: the architecture, input size and preprocessing; its classes and labels are the dataset's.
        dataset: a name of TensorFlow Datasets, with features "image" and "label".
        max_steps: updates.
        base_learning_rate: of the first update.
        power: of the "poly" decay, base_learning_rate * (1 - step / max_steps) ** power.
        warmup_steps: first updates, over which the rate rises linearly to that decay; 0 is none.
        momentum: in [0, 1).
        weight_decay: Caffe's coupled L2: gradient += weight_decay * weight, biases too.
        global_batch_size: images an update.
        dropout_rate: of drop9, in [0, 1).
        conv10_stddev: of the normal distribution that conv10's kernel is drawn from. The authors' 0.01 is for 1000
            classes; with few classes the ReLU behind it can then silence whole classes for good.
        seed: of the initial weights, the order of the images and dropout.
        train_split: trained on.
        validation_split: watched during training.
        test_split: evaluated once, at the end.
        shuffle_buffer_size: encoded images among which the next one is drawn.
        eval_every_steps: updates between two looks at the validation split.

    Raises:
        ValueError: a value is outside the range given above.
    """

    model: ModelSpec
    dataset: str
    max_steps: int = 170_000
    base_learning_rate: float = 0.04
    power: float = 1.0
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 2e-4
    global_batch_size: int = 512
    dropout_rate: float = 0.5
    conv10_stddev: float = 0.01
    seed: int = 0
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    shuffle_buffer_size: int = 16_384
    eval_every_steps: int = 5_000

    def __post_init__(self):
        for name in ("max_steps", "global_batch_size", "shuffle_buffer_size", "eval_every_steps"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {getattr(self, name)!r}.")
        if type(self.warmup_steps) is not int or not 0 <= self.warmup_steps <= self.max_steps:
            raise ValueError(f"warmup_steps must be an integer in 0..max_steps, got {self.warmup_steps!r}.")
        if type(self.seed) is not int or not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed must be an integer in 0..{(1 << 32) - 1}, got {self.seed!r}.")
        for name in ("base_learning_rate", "power", "momentum", "weight_decay", "dropout_rate", "conv10_stddev"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")
        for name in ("momentum", "dropout_rate"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        least = self.model.metaparameters.min_input_size()
        if self.model.input_size < least:
            raise ValueError(
                f"model.input_size must be at least {least} pixels for these metaparameters, got "
                f"{self.model.input_size}. Enlarge it, or take fewer pools."
            )

    def to_json(self) -> dict:
        """The JSON form: plain dicts, strings and numbers."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"model": self.model.to_json()}


def list_configs() -> list[str]:
    """The names that `--config` takes."""
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load_config(name: str) -> TrainConfig:
    """The recipe of this name.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name not in list_configs():
        raise ValueError(f"No config is called {name!r}; there are {', '.join(list_configs())}.")
    return importlib.import_module(f"{configs.__name__}.{name}").get_config()
