"""The configs of sqz-compress: one frozen config per method, checked before any work."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import ClassVar

from sqz_keras.command import ModelConfig, flag_field
from sqz_keras.compression.densities import check_named_once
from sqz_keras.files import check_is_no_input, check_writable
from trainers.training.config import check_is_not_of_run

SUFFIX = ".sqz"
SIZE = "size="  # in --bits, before a number of bytes
SENSITIVITY = "sensitivity="  # in --densities, before a density
ROUNDING = "rounding"  # in --densities
FINETUNING_STEPS, TUNING_STEPS = 500, 1200
_ROUNDING_IMAGES, _TUNING_IMAGES = 100, 800
UNSEEN_IMAGES = 500  # that --agreement evaluates at most; 95% of them has a standard error of one point
_BITS = (
    "Bits of each layer's codes, 1 to 16 (2 to 12 with --method=finetune): 6, or 6,conv1=8. Layers without a number "
    "stay as they are. With --method=finetune also size=290000, for a file of about that many bytes."
)
_CALIBRATION_DIR = "Folder of unlabelled images, at any depth."


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressionConfig(ModelConfig):
    """The options that all methods share. A field's help is also the help of its flag.

    Raises:
        ValueError: A file or folder is not what it should be.
    """

    output: str = flag_field(None, "The .sqz file to write; an older one is replaced.", required=True)
    profile: str = flag_field("max", "Coding: Deep Compression's (paper), or the smallest.", choices=("paper", "max"))
    base: str | None = flag_field(None, "A .sqz file that the receiver has: only the difference is written.")
    self_test: bool = flag_field(False, "Put a known image and its answer into the file, for the receiver's self-test.")
    evaluation_dir: str | None = flag_field(None, "Folder of images on which to compare the result with the model.")

    def __post_init__(self):
        if pathlib.Path(self.output).suffix.lower() != SUFFIX:
            raise ValueError(f"--output={self.output} must end in {SUFFIX}.")
        inputs = {f"--{name}": getattr(self, name, None) for name in ("base", "model", "apply_to", "start")}
        for path in (self.output, *self.report_paths()):
            check_writable(path)
            check_is_no_input("output", path, inputs)
            check_is_not_of_run("output", path, self.model)
        for name in ("calibration_dir", "image_dir", "evaluation_dir"):
            folder = getattr(self, name, None)
            if folder and not os.path.isdir(folder):
                raise ValueError(f"--{name}={folder} is not a folder.")

    def report_paths(self) -> tuple[pathlib.Path, pathlib.Path]:
        """The JSON and the HTML report, beside the output."""
        output = pathlib.Path(self.output)
        return output.with_suffix(".json"), output.with_suffix(".html")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LosslessConfig(CompressionConfig):
    """The same weights, to the bit; or the whole file from a delta and the file on which it was made."""

    apply_to: str | None = flag_field(None, "The .sqz file on which --model, a delta, was made.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KMeansConfig(CompressionConfig):
    """Weights shared by k-means, without images."""

    bits: str = flag_field("", _BITS)

    def __post_init__(self):
        super().__post_init__()
        if not self.bits:
            raise ValueError("--method=kmeans needs --bits, such as --bits=6.")
        if self.bits.startswith(SIZE):
            raise ValueError(f"--bits={self.bits} needs images: use --method=finetune, or give bits by layer.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibratedConfig(CompressionConfig):
    """The options shared by the methods that round to a size."""

    target_bytes: int = flag_field(0, "Target size of the whole file, in bytes.", lower_bound=0)
    calibration_dir: str | None = flag_field(None, _CALIBRATION_DIR)
    calibration_images: int = flag_field(
        0,
        f"How many images of --calibration_dir to round with, at most; 0 is {_ROUNDING_IMAGES} with quantize, "
        f"{_TUNING_IMAGES} with tune. Each takes about 6 MB of memory, or 12 MB if there are at most 200, because "
        f"these are mirrored too.",
        lower_bound=0,
    )
    own_images: ClassVar[int]

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "calibration_images", self.calibration_images or self.own_images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedConfig(CompressionConfig):
    """The options shared by the methods that train."""

    workdir: str | None = flag_field(None, "Folder in which finished stages are kept, to resume after a kill.")
    steps: int = flag_field(
        0, f"Updates in each stage; 0 is {FINETUNING_STEPS} with finetune, {TUNING_STEPS} with tune.", lower_bound=0
    )
    batch_size: int = flag_field(32, "Images per update.", lower_bound=1)
    learning_rate: float = flag_field(
        0.0,
        "Highest learning rate (with tune, in steps of the grids); 0 is the default of each stage.",
        lower_bound=0.0,
    )
    seed: int = flag_field(0, "Seed of the order of the images and of their random crops.", lower_bound=0)
    own_steps: ClassVar[int]

    def __post_init__(self):
        super().__post_init__()
        if not math.isfinite(self.learning_rate):
            raise ValueError(f"--learning_rate={self.learning_rate} must be a finite number.")
        object.__setattr__(self, "steps", self.steps or self.own_steps)

    def folder_of(self, stage: str) -> pathlib.Path | None:
        """Where the workdir keeps a stage; None without a workdir."""
        return None if self.workdir is None else pathlib.Path(self.workdir, stage)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizeConfig(CalibratedConfig):
    """A file of a given size or agreement, from unlabelled images."""

    own_images = _ROUNDING_IMAGES
    agreement: float = flag_field(
        0.0,
        "Instead of a size: the share of images whose answer must stay the same, such as 0.95. Of the files found that "
        f"achieve it, the smallest is written. Up to {UNSEEN_IMAGES} images of --calibration_dir that do not calibrate "
        "are evaluated; in a small folder, half of the images.",
        lower_bound=0.0,
    )

    def __post_init__(self):
        super().__post_init__()
        if bool(self.target_bytes) == bool(self.agreement):
            raise ValueError("--method=quantize needs either --target_bytes, the size of the file, or --agreement.")
        if self.agreement and not 0.5 <= self.agreement < 1:
            raise ValueError(f"--agreement={self.agreement} must be at least 0.5 and below 1.")
        if not self.calibration_dir:
            raise ValueError("--method=quantize needs images: --calibration_dir=DIR.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneConfig(CalibratedConfig, TrainedConfig):
    """A file of a given size, whose codes are trained on thousands of unlabelled images."""

    own_steps = TUNING_STEPS
    own_images = _TUNING_IMAGES
    start: str | None = flag_field(
        None,
        "A .sqz file that tune made of the same --model, to train its codes further. Default: --model is rounded.",
    )

    def __post_init__(self):
        if self.start and self.calibration_images:
            raise ValueError(
                "--calibration_images are those to round with, and --start is already rounded; give one of them."
            )
        super().__post_init__()
        if not self.target_bytes:
            raise ValueError("--method=tune needs --target_bytes, the size of the file.")
        if not self.calibration_dir:
            raise ValueError("--method=tune needs images, preferably thousands: --calibration_dir=DIR.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainedConfig):
    """Pruned and clustered weights, fine-tuned on labelled images, or towards the uncompressed model's answers."""

    own_steps = FINETUNING_STEPS
    bits: str = flag_field("", _BITS)
    densities: str = flag_field(
        "",
        "Densities that pruning leaves: table1, 0.4, LAYER=0.3, or a list with commas; sensitivity=0.33 is "
        "an overall density; rounding prunes what --bits would round to 0.",
    )
    image_dir: str | None = flag_field(None, "Folder of labelled images, with one folder per class.")
    dataset: str | None = flag_field(None, "Dataset of TensorFlow Datasets with labelled images.")
    data_dir: str | None = flag_field(None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    calibration_dir: str | None = flag_field(None, _CALIBRATION_DIR)
    teacher: bool = flag_field(False, "Fine-tune towards the uncompressed model's answers instead of labels.")

    def __post_init__(self):
        super().__post_init__()
        labelled = [name for name in ("image_dir", "dataset") if getattr(self, name)]
        if len(labelled) > 1:
            raise ValueError("--image_dir and --dataset are two sources of labelled images; give one.")
        if self.calibration_dir and labelled:
            raise ValueError(f"--calibration_dir and --{labelled[0]} are two sources of images; give one.")
        if self.calibration_dir and not self.teacher:
            raise ValueError("--calibration_dir holds images without labels: add --teacher.")
        if not (self.calibration_dir or labelled):
            raise ValueError(
                "--method=finetune needs images: --image_dir or --dataset with labels, or --teacher with "
                "--calibration_dir."
            )
        if not (self.bits or self.densities):
            raise ValueError("--method=finetune needs something to fine-tune: --densities, --bits or both.")
        if self.densities == ROUNDING and not self.bits:
            raise ValueError(f"--densities={ROUNDING} prunes what the codes would round to 0: give --bits too.")


METHODS: dict[str, type[CompressionConfig]] = {
    "lossless": LosslessConfig,
    "kmeans": KMeansConfig,
    "quantize": QuantizeConfig,
    "tune": TuneConfig,
    "finetune": FinetuneConfig,
}


def parse_bits(text: str, layers: Sequence[str]) -> dict[str, int]:
    """Bits by layer from "6", "conv1=8", or "6,conv1=8"; later items win.

    Raises:
        ValueError: An item is neither a number nor LAYER=NUMBER, or its layer does not exist or is named twice.
    """
    check_named_once(text, "--bits", "bits")
    bits: dict[str, int] = {}
    for item in text.split(","):
        layer, equals, number = item.strip().rpartition("=")
        if not number.strip().isdecimal():
            raise ValueError(f"--bits: expected a number or LAYER=NUMBER, got {item!r}.")
        if equals and layer not in layers:
            raise ValueError(f"--bits: the model has no layer {layer!r}; its layers are {', '.join(layers)}.")
        bits |= {layer: int(number)} if equals else dict.fromkeys(layers, int(number))
    return bits
