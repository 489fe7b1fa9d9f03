"""What a training run is: one frozen config, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
import os
import re

from sqz_keras.architecture.plain_numbers import as_integer, as_number
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.command import flag_field
from sqz_keras.compression.densities import layer_names, parse_densities
from sqz_keras.files import check_is_no_input

_CHOICES = {
    "solver": ("authors", "modern"),
    "augmentation": ("none", "crop", "authors", "modern"),
    "class_weights": ("none", "balanced"),
    "precision": ("float32", "bfloat16"),
    "strategy": ("one", "mirrored", "multiworker", "tpu"),
}
HEAD_STRATEGIES = ("one", "mirrored")  # conv10 can be fitted with these, which need only one process
# Fields that may change between the parts of a run without changing its result.
FREE_FIELDS = {"checkpoint_every_steps", "data_service", "keep_checkpoints", "max_bad_pictures", "strategy"}
# What a finished run leaves in its folder.
RUN_FILES = (
    "README.md",
    "config.json",
    "evaluation.json",
    "metrics.csv",
    "model.keras",
    "model.spec.json",
    "model.weights.h5",
    "report.html",
)
_AT_LEAST_1 = (
    "global_batch_size",
    "shuffle_buffer_size",
    "eval_every_steps",
    "accumulation_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the authors' solver for ImageNet (their solver.prototxt).

    The text beside each field says what it means; it is also the help of the field's flag.

    Raises:
        ValueError: A value is out of range.
    """

    model: ModelSpec = dataclasses.field(
        metadata={"help": "The architecture, input size and preprocessing; its classes and labels are the dataset's."}
    )
    dataset: str = flag_field(
        "",
        'A name of TensorFlow Datasets with features "image" and "label", or "" with `image_dir`.',
    )
    image_dir: str = flag_field("", "A folder with one folder of images per class, instead of a dataset.")
    weights: str = flag_field(
        "",
        'What training starts from: name of pretrained weights or a path, "" for random weights. conv10 is kept for '
        "the labels that both have, and random for the others.",
    )
    head_images: int = flag_field(
        0,
        "Number of augmented training images to fit conv10 to before the first update, by logistic regression on the "
        "features of the other layers of `weights`; 0 fits nothing.",
    )
    frozen_steps: int = flag_field(0, "Number of first updates that train conv10 alone.")
    densities: str = flag_field(
        "",
        'What pruning leaves of each layer of `weights` before the first update: "table1", a density for all layers, '
        'LAYER=DENSITY, or a list of these with commas; "" prunes nothing.',
    )
    sparse_steps: int = flag_field(
        0,
        "Number of first updates in which pruned weights stay 0. Then they are trained again, from 0: dense-sparse-"
        "dense training (arXiv 1607.04381).",
    )
    solver: str = flag_field(
        "authors",
        '"authors": SGD with momentum and "poly" decay; "modern": SGD with Nesterov momentum and cosine decay.',
    )
    max_steps: int = flag_field(170_000, "Number of updates; 0 is allowed only with head_images.")
    base_learning_rate: float = flag_field(0.04, "Learning rate of the first update.")
    power: float = flag_field(1.0, 'Power of the "poly" decay: base_learning_rate * (1 - step / max_steps) ** power.')
    warmup_steps: int = flag_field(0, "Number of first updates over which the learning rate rises linearly.")
    momentum: float = flag_field(0.9, "Momentum of SGD, in [0, 1).")
    weight_decay: float = flag_field(2e-4, "Caffe's coupled L2: gradient += weight_decay * weight, biases too.")
    clip_norm: float = flag_field(0.0, "Largest norm of the gradient, before weight decay; 0 for no clipping.")
    label_smoothing: float = flag_field(0.0, "Share of the target that is spread over all classes, in [0, 1).")
    class_weights: str = flag_field(
        "none",
        '"none", or "balanced": the loss of an image is multiplied by images / (classes * images of its class), so '
        "that all classes count equally however many images they have.",
    )
    mixup_alpha: float = flag_field(0.0, "alpha of mixup's Beta(alpha, alpha); 0 for no mixup.")
    ema_decay: float = flag_field(
        0.0,
        "Decay of the moving average of the weights; the average is then evaluated and kept. 0 for no average.",
    )
    augmentation: str = flag_field(
        "authors",
        '"none", "authors" (random crop of the stretched image, mirror), "crop" (the same without the mirror) or '
        '"modern" (random resized crop, mirror).',
    )
    global_batch_size: int = flag_field(512, "Images per update, over all replicas.")
    accumulation_steps: int = flag_field(
        1,
        "Slices into which each replica splits its part of a batch, to save memory.",
    )
    precision: str = flag_field("float32", '"float32", or "bfloat16" for the activations.')
    jit_compile: bool = flag_field(False, "Compile the update with XLA; on one device only.")
    strategy: str = flag_field(
        "one",
        '"one" device, "mirrored" over this machine\'s GPUs, "multiworker" by TF_CONFIG, or "tpu" (untested).',
    )
    data_service: str = flag_field(
        "",
        "Address of a tf.data service, grpc://HOST:PORT, whose workers then decode the training images (tested with "
        'workers on one machine only); "" for none.',
    )
    deterministic: bool = flag_field(False, "Give the same weights, bit for bit, from the same seed; somewhat slower.")
    dropout_rate: float = flag_field(0.5, "Dropout rate of drop9, in [0, 1).")
    conv10_stddev: float = flag_field(
        0.01,
        "Standard deviation of conv10's first kernel. The authors' 0.01 is for 1000 classes; with few classes, the "
        "ReLU after it can then silence whole classes for good.",
    )
    conv10_bias: float = flag_field(
        0.0,
        "First value of conv10's biases, at least 0. From the authors' 0, the first updates can push all of a class's "
        "map below the ReLU, and no gradient reaches it again; 1 keeps every class alive.",
    )
    bypass_scale: float = flag_field(
        1.0,
        "Factor on the first weights of the 1x1 convolutions of complex bypasses, above 0. With the authors' 1, the "
        "signal grows from module to module; in the other networks it shrinks or stays.",
    )
    seed: int = flag_field(0, "Seed of the initial weights, the order of the images and dropout.")
    train_split: str = flag_field("train", "Split to train on; of a --dataset also a part, such as train[:80%].")
    validation_split: str = flag_field("validation", "Split to evaluate during training.")
    test_split: str = flag_field("test", "Split to evaluate once, at the end.")
    shuffle_buffer_size: int = flag_field(
        16_384, "Encoded images in the shuffle buffer, from which the next one is drawn."
    )
    eval_every_steps: int = flag_field(5_000, "Updates between two evaluations on the validation split.")
    checkpoint_every_steps: int = flag_field(1_000, "Updates between two checkpoints; each evaluation ends in one too.")
    keep_checkpoints: int = flag_field(2, "How many of the newest checkpoints are kept, beside the best.")
    max_bad_pictures: int = flag_field(0, "How many training images may fail to decode; with more, the run ends.")

    def __post_init__(self):
        self._check_types()
        self._check_ranges()
        if bool(self.dataset) == bool(self.image_dir):
            raise ValueError(f"Give either dataset or image_dir; got {self.dataset!r} and {self.image_dir!r}.")
        if self.densities:
            parse_densities(self.densities, layer_names(self.model.weight_shapes()))
            if not self.weights:
                raise ValueError(f"densities={self.densities} prunes trained weights; give those as weights.")
        if self.sparse_steps and not self.densities:
            raise ValueError(f"sparse_steps={self.sparse_steps} needs densities, which say what is pruned.")
        if self.head_images and (not self.weights or self.strategy not in HEAD_STRATEGIES):
            raise ValueError(
                f"head_images={self.head_images} needs weights, whose features conv10 is fitted to, and the strategy "
                f"one or mirrored; got weights={self.weights!r} and strategy={self.strategy!r}."
            )
        least = self.model.metaparameters.min_input_size()
        if self.model.input_size < least:
            raise ValueError(
                f"model.input_size must be at least {least} pixels for these metaparameters, got "
                f"{self.model.input_size}. Enlarge it, or take fewer pools."
            )

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if field.name == "model":
                kind = ModelSpec
            plain = {int: as_integer, float: as_number}.get(kind, lambda value: value)(value)
            if type(plain) is not kind:
                raise ValueError(f"{field.name} must be {kind.__name__}, got {value!r}.")
            object.__setattr__(self, field.name, plain)

    def _check_ranges(self) -> None:
        for name in _AT_LEAST_1:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {getattr(self, name)!r}.")
        least = 0 if self.head_images else 1
        if self.max_steps < least:
            raise ValueError(f"max_steps must be an integer of at least {least}, got {self.max_steps!r}.")
        for name in ("warmup_steps", "frozen_steps", "sparse_steps"):
            if not 0 <= getattr(self, name) <= self.max_steps:
                raise ValueError(
                    f"{name} must be an integer in 0..{self.max_steps} (max_steps), got {getattr(self, name)!r}."
                )
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed must be an integer in 0..{(1 << 32) - 1}, got {self.seed!r}.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(field.default) is float and not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be a finite number of at least 0, got {value!r}.")
        if self.bypass_scale == 0:
            raise ValueError(
                "bypass_scale must be above 0: with 0, the ReLU after those convolutions would keep them from learning."
            )
        for name in ("momentum", "dropout_rate", "label_smoothing", "ema_decay"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        if self.jit_compile and self.deterministic:
            raise ValueError("jit_compile and deterministic exclude each other: XLA has no deterministic max pool.")
        if self.class_weights == "balanced" and self.mixup_alpha:
            raise ValueError(
                "class_weights=balanced and mixup_alpha exclude each other: a mixed image has two classes."
            )
        if self.data_service and not re.fullmatch(r"grpc://[^/\s]+:\d+", self.data_service):
            raise ValueError(f"data_service must be grpc://HOST:PORT, got {self.data_service!r}.")
        if self.data_service and self.deterministic:
            raise ValueError("data_service and deterministic exclude each other: several workers keep no order.")
        for name in ("max_bad_pictures", "head_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")

    def check_replicas(self, replicas: int) -> None:
        """Refuses a number of replicas over which the run cannot be spread.

        Args:
            replicas: Number of devices, on all machines.

        Raises:
            ValueError: The batch cannot be divided, or XLA is requested for several devices.
        """
        parts = replicas * self.accumulation_steps
        if self.global_batch_size % parts:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} must be a multiple of {parts}: {replicas} replicas times "
                f"accumulation_steps={self.accumulation_steps}."
            )
        if self.jit_compile and replicas > 1:
            raise ValueError(
                f"jit_compile works on one device only, as XLA cannot reach another's variables, and there are "
                f"{replicas} replicas; leave it out."
            )

    def to_json(self) -> dict:
        """The JSON form: plain dicts, strings and numbers."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"model": self.model.to_json()}

    def deciding_fields(self) -> dict:
        """The JSON form of the fields that decide the run's result."""
        return {name: value for name, value in self.to_json().items() if name not in FREE_FIELDS}


def check_is_not_of_run(flag: str, path: str | os.PathLike, model: str | os.PathLike) -> None:
    """Refuses to overwrite a file of a training run; `model` is the folder of the run, or a file in it.

    Raises:
        ValueError: `path` is one of the `RUN_FILES` of that run.
    """
    folder = os.path.dirname(os.path.abspath(model)) if os.path.isfile(model) else model
    if os.path.exists(os.path.join(folder, "model.spec.json")):
        for name in RUN_FILES:
            check_is_no_input(flag, path, {"--model": os.path.join(folder, name)})
