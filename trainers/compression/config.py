"""What sqz-compress is asked for, checked as a whole before any work."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from sqz_keras.files import check_writable

SUFFIX = ".sqz"
SIZE = "size="  # of --bits, with bytes behind it
SENSITIVITY = "sensitivity="  # of --densities, with a density behind it
ROUNDING = "rounding"  # likewise


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """One run of sqz-compress. Without `bits`, `densities` and `target_bytes` it is lossless.

    Args:
        model: as `resolve_model` takes it; or a delta, which is then laid on `base`.
        output: the `.sqz` file to write.
        version: as `resolve_model` takes it.
        bypass: likewise.
        profile: "max" for the smallest file, "paper" for Deep Compression's coding.
        base: a `.sqz` file that the receiver has already: only what differs is written.
        bits: of a layer's codes: "6", "6,conv1=8", or "size=290000", for a file of about that many bytes; "" leaves the
            values apart.
        densities: "table1", "0.4", "conv10=0.2" or several with commas; "sensitivity=0.33", that overall; "rounding",
            without those that the codes would round to 0; "" prunes nothing.
        target_bytes: size of the whole file that is aimed at without labels; 0 for no such aim.
        calibration_dir: unlabelled images, at any depth.
        calibration_images: at most so many of them are held in memory for `target_bytes`.
        teacher: fine-tune with the uncompressed net's answers as labels, on `calibration_dir`, or on the labelled
            images, whose own labels then only judge.
        image_dir: labelled images to fine-tune on, a folder a class.
        dataset: likewise, of TensorFlow Datasets.
        data_dir: TensorFlow Datasets' own folder.
        evaluation_dir: images, labelled by their names or not, that judge the result; left out, the test or
            validation split of `image_dir` or `dataset` does, where there is one.
        workdir: keeps the stages of fine-tuning, which go on from there after a kill.
        steps: updates of each stage of fine-tuning.
        batch_size: images an update.
        learning_rate: of the fine-tuning; 0 for each stage's own.
        seed: of the order of the images.

    Raises:
        ValueError: two of these contradict each other, or one lacks its companion.
    """

    model: str
    output: str
    version: str | None = None
    bypass: str | None = None
    profile: str = "max"
    base: str | None = None
    bits: str = ""
    densities: str = ""
    target_bytes: int = 0
    calibration_dir: str | None = None
    calibration_images: int = 100
    teacher: bool = False
    image_dir: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    evaluation_dir: str | None = None
    workdir: str | None = None
    steps: int = 500
    batch_size: int = 32
    learning_rate: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if pathlib.Path(self.output).suffix != SUFFIX:
            raise ValueError(f"--output={self.output} must end in {SUFFIX}.")
        labelled = [name for name in ("image_dir", "dataset") if getattr(self, name)]
        for wrong, text in (
            (len(labelled) > 1, "--image_dir and --dataset are two sources of labelled images; give one."),
            (
                self.teacher and not (self.calibration_dir or labelled),
                "--teacher needs images: --calibration_dir=DIR, or labelled ones: --image_dir or --dataset.",
            ),
            (
                self.teacher and self.calibration_dir and labelled,
                f"--calibration_dir and --{'/'.join(labelled)} are two sources of images for --teacher; give one.",
            ),
            (
                self.target_bytes and not self.calibration_dir,
                "--target_bytes needs images: --calibration_dir=DIR.",
            ),
            (
                self.target_bytes and (self.bits or self.densities or self.tuned),
                "--target_bytes chooses bits and values itself; leave out --bits, --densities, --teacher and labelled "
                "images.",
            ),
            (
                self.calibration_dir and not (self.target_bytes or self.teacher),
                "--calibration_dir is for --target_bytes or --teacher; give one of them.",
            ),
            (
                self.densities and not self.tuned,
                "--densities needs images to fine-tune on: --image_dir or --dataset with labels, or --teacher with "
                "--calibration_dir.",
            ),
            (
                self.tuned and not (self.bits or self.densities),
                "Images to fine-tune on need something to fine-tune: --densities, --bits or both.",
            ),
            (
                self.bits.startswith(SIZE) and not self.tuned,
                f"--bits={self.bits} needs images to find out with: --image_dir, --dataset, or --teacher with "
                "--calibration_dir.",
            ),
            (
                self.densities == ROUNDING and not self.bits,
                f"--densities={ROUNDING} prunes what the codes would round to 0: give --bits too.",
            ),
            (self.workdir and not self.tuned, "--workdir keeps the stages of fine-tuning, and there are none."),
        ):
            if wrong:
                raise ValueError(text)
        for path in (self.output, *self.report_paths()):
            check_writable(path)
        for name in ("calibration_dir", "image_dir", "evaluation_dir"):
            folder = getattr(self, name)
            if folder and not os.path.isdir(folder):
                raise ValueError(f"--{name}={folder} is not a folder.")

    @property
    def tuned(self) -> bool:
        """Whether the stages are fine-tuned on images."""
        return bool(self.teacher or self.image_dir or self.dataset)

    def report_paths(self) -> tuple[pathlib.Path, pathlib.Path]:
        """The JSON and the HTML report, beside the output."""
        output = pathlib.Path(self.output)
        return output.with_suffix(".json"), output.with_suffix(".html")


def parse_bits(text: str, layers: list[str]) -> dict[str, int]:
    """Bits by layer from "6", "conv1=8", or "6,conv1=8", where what stands further right wins.

    Raises:
        ValueError: an item is neither, or names no layer.
    """
    bits: dict[str, int] = {}
    for item in text.split(","):
        layer, equals, number = item.strip().rpartition("=")
        if not number.strip().isdecimal():
            raise ValueError(f"--bits: expected a number or LAYER=NUMBER, got {item!r}.")
        if equals and layer not in layers:
            raise ValueError(f"--bits: the model has no layer {layer!r}; its layers are {', '.join(layers)}.")
        bits |= {layer: int(number)} if equals else dict.fromkeys(layers, int(number))
    return bits
