"""The configs of sqz-export, a frozen dataclass for each way of calling it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from export import contract, versions

SAVED_MODEL, LITERT_INT8 = "saved_model", "litert_int8"
FORMATS = (SAVED_MODEL, "litert", "litert_float16", LITERT_INT8, "onnx", "keras")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Checks an exported version.

    Args:
        verify: The version's folder.
    """

    verify: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ModelConfig:
    """The model to export.

    Args:
        model, version, bypass: As `resolve_model` takes them.
        labels: Text file with one class name per line, instead of the model's own labels.
        format: One of `FORMATS`.
        card: Whether to write a model card, README.md, into `base_path` or beside the file.
    """

    model: str = "imagenet"
    version: str | None = None
    bypass: str | None = None
    labels: str | None = None
    format: str = SAVED_MODEL
    card: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedModelConfig(_ModelConfig):
    """Exports a new version of a served model; the arguments are those of `export_saved_model`."""

    base_path: str
    model_version: str = versions.AUTO
    keep_versions: int = 0
    precision: str = contract.PRECISIONS[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileConfig(_ModelConfig):
    """Exports one file for another runtime.

    Args:
        output: The file; an older one is replaced.
    """

    output: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibratedFileConfig(FileConfig):
    """Exports one file in 8 bits.

    Args:
        calibration_dir: Folder of unlabelled images, at any depth.
        calibration_images: The most images to read from it.
    """

    calibration_dir: str
    calibration_images: int = 200


Config = VerifyConfig | SavedModelConfig | FileConfig | CalibratedFileConfig


def choose(values: Mapping[str, object], given: Collection[str]) -> Config:
    """The config that flags describe.

    Args:
        values: The value of every flag by its name, which is also the name of a field.
        given: The names of the flags that the caller has set.

    Raises:
        ValueError: A flag is missing, or does not belong to this way of calling the command.
    """
    if values["verify"] is not None:
        kind, way = VerifyConfig, "--verify"
    else:
        kinds = {SAVED_MODEL: SavedModelConfig, LITERT_INT8: CalibratedFileConfig}
        kind, way = kinds.get(values["format"], FileConfig), f"--format={values['format']}"
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [
        f"--{name}" for name, field in fields.items() if field.default is dataclasses.MISSING and not values[name]
    ]
    if missing:
        raise ValueError(f"{way} needs {' and '.join(missing)}.")
    all_kinds = (VerifyConfig, SavedModelConfig, CalibratedFileConfig)
    others = {field.name for other in all_kinds for field in dataclasses.fields(other)} - set(fields)
    extra = [f"--{name}" for name in sorted(others & set(given))]
    if extra:
        raise ValueError(f"{way} takes no {', '.join(extra)}: leave that out.")
    return kind(**{name: values[name] for name in fields})
