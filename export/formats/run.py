"""Runs sqz-export from its config."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from export import contract, versions
from export.formats import card
from export.formats.config import CalibratedFileConfig, Config, FileConfig, SavedModelConfig, VerifyConfig
from sqz_keras.backend import use_default_settings
from sqz_keras.extras import needs
from sqz_keras.weights.model_card import check_card

if TYPE_CHECKING:
    import numpy as np

    from sqz_keras import ModelSpec


def run_export(config: Config) -> str:
    """Exports or verifies a model.

    Returns:
        What was done, in one line.

    Raises:
        ValueError: The config or the model cannot be exported, or the result does not answer as Keras does.
        OSError: A file cannot be read or written.
        MissingExtraError: A package is missing.
    """
    with needs("tensorflow" if isinstance(config, FileConfig) else "serve"):
        if isinstance(config, VerifyConfig):
            return _verify(config)
        if config.card:
            check_card(card.card_path(config))
        return _export_version(config) if isinstance(config, SavedModelConfig) else _export_file(config)


def _verify(config: VerifyConfig) -> str:
    _use_defaults_of_keras()
    from export.verify import verify

    return f"{config.verify}: {verify(config.verify)}"


def _export_version(config: SavedModelConfig) -> str:
    from export.formats import saved_model

    # Check what can be checked before downloading and reading the model, which takes longer.
    versions.choose_version(config.base_path, config.model_version, config.keep_versions)
    saved_model.check_installed()
    spec, arrays = _resolve(config)
    path = saved_model.export_saved_model(
        spec, arrays, config.base_path, config.model_version, config.keep_versions, config.precision
    )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if config.card:
        card.write(config, spec, {f"{path.name}/": size})
    signatures = ", ".join(signature.name for signature in contract.EXPORTED)
    return f"{path}: {size / 1e6:.2f} MB, {spec.classes} classes, signatures {signatures}"


def _export_file(config: FileConfig) -> str:
    from export.formats import single_file
    from sqz_keras.files import check_is_no_input
    from sqz_keras.images.files import find_images
    from sqz_keras.weights.description import check_no_other_spec

    single_file.check_output(config.output, config.format)
    check_is_no_input("output", config.output, {"--model": config.model})
    images = []
    if isinstance(config, CalibratedFileConfig):
        images = find_images(config.calibration_dir, config.calibration_images)
    spec, arrays = _resolve(config)
    check_no_other_spec(config.output, spec, arrays)
    _use_defaults_of_keras()
    comparison = single_file.write(config.format, spec, arrays, config.output, images)
    size = os.path.getsize(config.output)
    if config.card:
        card.write(config, spec, {os.path.basename(config.output): size})
    return f"{config.output}: {size:,} bytes, {spec.classes} classes; {comparison}"


def _resolve(config: SavedModelConfig | FileConfig) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    """The config's model, with the config's labels."""
    from sqz_keras.weights.labels import read_labels, with_labels
    from sqz_keras.weights.resolve import resolve_model

    labels = read_labels(config.labels) if config.labels else None
    spec, arrays = resolve_model(config.model, version=config.version, bypass=config.bypass)
    return (with_labels(spec, labels) if labels is not None else spec), arrays


def _use_defaults_of_keras() -> None:
    """Sets what the formats need, overriding keras.json and the environment: TensorFlow, channels_last, float32."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    use_default_settings()
