"""Writes the three configuration files that a TensorFlow Serving server reads.

python -m export.serving_config --output_dir=DIR [--base_path=/models/squeezenet] [--model_versions=1,2]
[--version_labels=stable=1,canary=2] [--move_label=stable=2]

writes models.config, batching.config and monitoring.config; a comment in each names the server's flags for it.
A label cannot move to a version that is not loaded yet: --move_label also writes models.next.config, for when it is.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

from absl import flags

from export import contract
from sqz_keras import command
from sqz_keras.files import write_file

MODELS_NAME = "models.config"
NEXT_MODELS_NAME = "models.next.config"
BATCHING_NAME = "batching.config"
MONITORING_NAME = "monitoring.config"
DEFAULT_BASE_PATH = f"/models/{contract.MODEL_NAME}"  # where TensorFlow Serving's own image looks
METRICS_PATH = "/monitoring/prometheus/metrics"

_WORD = re.compile(r"[A-Za-z0-9_.-]+")  # of names and labels: what also fits into a path of the REST interface
_PATH = re.compile(r"([a-z0-9]+:/)?/[^\s\"'\\]*")  # absolute, or a URI such as s3://bucket/model


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model that a server loads.

    Args:
        name: by which clients ask for it.
        base_path: the folder of its versions as the server sees it: an absolute path, or a URI.
        versions: those to load; none for the newest one, whichever that is.
        version_labels: names of versions, by which clients may ask instead of by number; `versions` lists these.

    Raises:
        ValueError: a field is not as described.
    """

    name: str = contract.MODEL_NAME
    base_path: str = DEFAULT_BASE_PATH
    versions: tuple[int, ...] = ()
    version_labels: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for word in (self.name, *self.version_labels):
            if not _WORD.fullmatch(word):
                raise ValueError(f"Names and labels are of letters, digits, '_', '.' and '-'; got {word!r}.")
        if not _PATH.fullmatch(self.base_path):
            raise ValueError(f"base_path must be an absolute path, or a URI, without spaces; got {self.base_path!r}.")
        wrong = [version for version in self.versions if not 1 <= version <= contract.MAX_VERSION]
        if wrong or len(set(self.versions)) != len(self.versions):
            raise ValueError(f"versions must be different positive integers, got {self.versions}.")
        unlisted = {label: version for label, version in self.version_labels.items() if version not in self.versions}
        if unlisted:
            # The server would refuse to start, or to take the new file.
            raise ValueError(f"A label names a version that is loaded: add those of {unlisted} to the versions.")

    def moving(self, label: str, version: int) -> tuple[ModelConfig, ModelConfig]:
        """The two steps in which a label moves, for a roll-out or a roll-back.

        A server takes a label that is in use to another version only once that one is loaded, so that no client is
        sent to a version that cannot answer yet.

        Returns:
            The config that loads `version` too, and the one for when it is available, with `label` moved.
        """
        loading = dataclasses.replace(self, versions=tuple(sorted({*self.versions, version})))
        return loading, dataclasses.replace(loading, version_labels={**self.version_labels, label: version})


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """How a server joins calls into batches.

    Args:
        allowed_batch_sizes: ascending; each batch is filled up to the next of them, the last is the largest.
        batch_timeout_micros: how long a call waits for others to come. A call that stays alone waits all of it; with 0
            those that came while the threads were busy are joined, and none waits for more.
        max_enqueued_batches: the length of the queue; calls beyond it are refused with UNAVAILABLE.
        num_batch_threads: batches that are computed at once; None for the server's default, one a core.

    Raises:
        ValueError: a number is out of range.
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
    """The text of a `MonitoringConfig`: metrics for Prometheus at this path of the REST port.

    Raises:
        ValueError: `path` is none.
    """
    if not re.fullmatch(r"/[\w./-]*", path, re.ASCII):
        raise ValueError(f"The path of the metrics must begin with '/' and hold no spaces or quotes, got {path!r}.")
    lines = ["# For --monitoring_config_file, with --rest_api_port."]
    return "\n".join([*lines, f'prometheus_config {{ enable: true path: "{path}" }}', ""])


def define_flags() -> None:
    flags.DEFINE_string("output_dir", None, "Folder for the files.", required=True)
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "Name by which clients ask for the model.")
    flags.DEFINE_string("base_path", DEFAULT_BASE_PATH, "Folder of the model's versions, as the server sees it.")
    flags.DEFINE_list("model_versions", [], "Versions to load; none for the newest.")
    flags.DEFINE_list("version_labels", [], "Names of versions, as stable=1.")
    flags.DEFINE_string("move_label", None, "A label and its next version, as stable=2.")
    batching = BatchingParameters()
    flags.DEFINE_list("allowed_batch_sizes", [str(size) for size in batching.allowed_batch_sizes], "Ascending.")
    flags.DEFINE_integer("batch_timeout_micros", batching.batch_timeout_micros, "How long a call waits for others.")
    flags.DEFINE_integer("max_enqueued_batches", batching.max_enqueued_batches, "Length of the queue.")
    flags.DEFINE_integer("num_batch_threads", None, "Batches computed at once; by default one a core.")
    flags.DEFINE_string("metrics_path", METRICS_PATH, "Path of the metrics for Prometheus.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    versions = tuple(_integer("model_versions", text) for text in args.model_versions)
    labels = dict(_labelled("version_labels", text) for text in args.version_labels)
    first = ModelConfig(args.model_name, args.base_path, versions, labels)
    batching = BatchingParameters(
        tuple(_integer("allowed_batch_sizes", text) for text in args.allowed_batch_sizes),
        args.batch_timeout_micros,
        args.max_enqueued_batches,
        args.num_batch_threads,
    )
    texts = {BATCHING_NAME: batching_config(batching), MONITORING_NAME: monitoring_config(args.metrics_path)}
    if args.move_label:
        first, following = first.moving(*_labelled("move_label", args.move_label))
        texts[NEXT_MODELS_NAME] = models_config([following])
    texts[MODELS_NAME] = models_config([first])
    folder = pathlib.Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text.encode("ascii"))  # whole: a running server may be reading the old one
    print(f"{args.output_dir}: {', '.join(sorted(texts))}")


def _integer(flag: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise ValueError(f"--{flag}: expected a number, got {text!r}.")
    return int(text)


def _labelled(flag: str, text: str) -> tuple[str, int]:
    label, _, version = text.partition("=")
    return label, _integer(flag, version)


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
