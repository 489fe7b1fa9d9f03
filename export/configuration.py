"""The configuration files that a TensorFlow Serving server reads: models, batching, monitoring."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from export import contract
from sqz_keras.files import write_file

MODELS_NAME = "models.config"
NEXT_MODELS_NAME = "models.next.config"
BATCHING_NAME = "batching.config"
MONITORING_NAME = "monitoring.config"
DEFAULT_BASE_PATH = f"/models/{contract.MODEL_NAME}"  # where TensorFlow Serving's own image looks
METRICS_PATH = "/monitoring/prometheus/metrics"

_WORD = re.compile(r"[A-Za-z0-9_.-]+")  # names and labels: they also appear in paths of the REST interface
_PATH = re.compile(r"([a-z0-9]+:/)?/[^\s\"'\\]*")  # absolute, or a URI such as s3://bucket/model


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model that a server loads.

    Args:
        name: The name by which clients ask for the model.
        base_path: Folder of the model's versions as the server sees it: an absolute path, or a URI.
        versions: The versions to load; if empty, the newest one is loaded.
        version_labels: Names that clients may use instead of version numbers. `versions` must list those numbers.

    Raises:
        ValueError: A field is not as described.
    """

    name: str = contract.MODEL_NAME
    base_path: str = DEFAULT_BASE_PATH
    versions: tuple[int, ...] = ()
    version_labels: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for word in (self.name, *self.version_labels):
            if not _WORD.fullmatch(word):
                raise ValueError(f"Names and labels hold letters, digits, '_', '.' and '-'; got {word!r}.")
        if not _PATH.fullmatch(self.base_path):
            raise ValueError(f"base_path must be an absolute path, or a URI, without spaces; got {self.base_path!r}.")
        wrong = [version for version in self.versions if not 1 <= version <= contract.MAX_VERSION]
        if wrong or len(set(self.versions)) != len(self.versions):
            raise ValueError(f"versions must be different positive integers, got {self.versions}.")
        unlisted = {label: version for label, version in self.version_labels.items() if version not in self.versions}
        if unlisted:
            # The server would refuse to start, or to take the new file.
            raise ValueError(f"A label must name a version that is loaded: add those of {unlisted} to the versions.")

    def moving(self, label: str, version: int) -> tuple[ModelConfig, ModelConfig]:
        """The two steps that move a label, for a roll-out or a roll-back.

        A server moves a label that is in use only to a version that is loaded, so that no client is sent to a version
        that cannot answer yet.

        Returns:
            The config that also loads `version`, and the config that moves `label`, for when `version` is available.

        Raises:
            ValueError: This config does not list the versions that are loaded.
        """
        if not self.versions:
            raise ValueError(
                "Without --model_versions the server loads the newest version, and would unload it for the one of the "
                "label: give --model_versions, those that are loaded now."
            )
        loading = dataclasses.replace(self, versions=tuple(sorted({*self.versions, version})))
        return loading, dataclasses.replace(loading, version_labels={**self.version_labels, label: version})


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """How a server joins calls into batches.

    Args:
        allowed_batch_sizes: Ascending. A batch is padded to the next of these sizes; the last is the largest batch.
        batch_timeout_micros: How long a call waits for others, in microseconds. If no other call comes, it waits the
            whole time. With 0, calls that arrive while the threads are busy are joined, and no call waits for others.
        max_enqueued_batches: Length of the queue; calls beyond it are refused with UNAVAILABLE.
        num_batch_threads: How many batches are computed at once; None means the server's default, one per core.

    Raises:
        ValueError: A number is out of range.
    """

    allowed_batch_sizes: tuple[int, ...] = contract.ALLOWED_BATCH_SIZES
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 100
    num_batch_threads: int | None = None

    def __post_init__(self):
        sizes = self.allowed_batch_sizes
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"allowed_batch_sizes must be positive and ascending, got {sizes}.")
        threads = 1 if self.num_batch_threads is None else self.num_batch_threads
        if self.batch_timeout_micros < 0 or self.max_enqueued_batches < 1 or threads < 1:
            raise ValueError(f"batch_timeout_micros must be at least 0, the other numbers at least 1; got {self}.")


def models_config(models: Sequence[ModelConfig]) -> str:
    """The text of a `ModelServerConfig`."""
    lines = ["# For --model_config_file, and --model_config_file_poll_wait_seconds if it is to be read again."]
    if any(model.version_labels for model in models):
        lines.append("# The server starts with labels only by --allow_version_labels_for_unavailable_models.")
    lines.append("model_config_list {")
    for model in models:
        lines += [
            "  config {",
            f'    name: "{model.name}"',
            f'    base_path: "{model.base_path}"',
            '    model_platform: "tensorflow"',
        ]
        if model.versions:
            versions = " ".join(f"versions: {version}" for version in model.versions)
            lines.append(f"    model_version_policy {{ specific {{ {versions} }} }}")
        for label, version in model.version_labels.items():
            lines.append(f'    version_labels {{ key: "{label}" value: {version} }}')
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def batching_config(parameters: BatchingParameters) -> str:
    """The text of a `BatchingParameters`."""
    values = {
        "max_batch_size": parameters.allowed_batch_sizes[-1],
        "batch_timeout_micros": parameters.batch_timeout_micros,
        "max_enqueued_batches": parameters.max_enqueued_batches,
        "num_batch_threads": parameters.num_batch_threads,
    }
    lines = ["# For --batching_parameters_file, with --enable_batching."]
    lines += [f"{name} {{ value: {value} }}" for name, value in values.items() if value is not None]
    lines += [f"allowed_batch_sizes: {size}" for size in parameters.allowed_batch_sizes]
    return "\n".join([*lines, ""])


def monitoring_config(path: str = METRICS_PATH) -> str:
    """The text of a `MonitoringConfig`: metrics for Prometheus at `path` on the REST port.

    Raises:
        ValueError: `path` is not a path.
    """
    if not re.fullmatch(r"/[\w./-]*", path, re.ASCII):
        raise ValueError(f"The path of the metrics must begin with '/' and hold no spaces or quotes, got {path!r}.")
    lines = ["# For --monitoring_config_file, with --rest_api_port."]
    return "\n".join([*lines, f'prometheus_config {{ enable: true path: "{path}" }}', ""])


def write(
    folder: str | os.PathLike,
    model: ModelConfig,
    batching: BatchingParameters,
    metrics_path: str = METRICS_PATH,
    moving_label: tuple[str, int] | None = None,
) -> list[str]:
    """Writes the files, each in one step, since a running server may be reading the older ones.

    Args:
        folder: Where the files go; it is created if it does not exist.
        model: The model to serve.
        batching: For `BATCHING_NAME`.
        metrics_path: For `MONITORING_NAME`.
        moving_label: A label and its next version; `NEXT_MODELS_NAME` is then the config to use once that version is
            available.

    Returns:
        The names of the files, sorted.

    Raises:
        ValueError: An argument is not as described; nothing is written.
        OSError: A file cannot be written.
    """
    texts = {BATCHING_NAME: batching_config(batching), MONITORING_NAME: monitoring_config(metrics_path)}
    if moving_label:
        model, following = model.moving(*moving_label)
        texts[NEXT_MODELS_NAME] = models_config([following])
    texts[MODELS_NAME] = models_config([model])
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text.encode("utf-8"))
    return sorted(texts)
