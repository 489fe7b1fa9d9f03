"""Finds what would keep a TensorFlow Serving server from starting or serving, before the server reads the files."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from google.protobuf import text_format
from google.protobuf.message import Message

from export import configuration, contract, verify, versions
from export.message_types import message_classes

# Excerpts of the .proto files of TensorFlow Serving, which are under the Apache License 2.0.
_CLASSES = message_classes(
    {
        "tensorflow.serving": """
enum ModelType { MODEL_TYPE_UNSPECIFIED = 0; TENSORFLOW = 1; OTHER = 2; }
message FileSystemStoragePathSourceConfig {
  message ServableVersionPolicy {
    message Latest { uint32 num_versions = 1; }
    message All {}
    message Specific { repeated int64 versions = 1; }
    oneof policy_choice { Latest latest = 100; All all = 101; Specific specific = 102; }
  }
}
message LogCollectorConfig { string type = 1; string filename_prefix = 2; }
message SamplingConfig { double sampling_rate = 1; int32 attributes = 2; }
message LoggingConfig { LogCollectorConfig log_collector_config = 1; SamplingConfig sampling_config = 2; }
message ModelConfig {
  string name = 1;
  string base_path = 2;
  ModelType model_type = 3;
  string model_platform = 4;
  FileSystemStoragePathSourceConfig.ServableVersionPolicy model_version_policy = 7;
  map<string, int64> version_labels = 8;
  LoggingConfig logging_config = 6;
}
message ModelConfigList { repeated ModelConfig config = 1; }
message ModelServerConfig {
  oneof config { ModelConfigList model_config_list = 1; google.protobuf.Any custom_model_config = 2; }
}
message BatchingParameters {
  google.protobuf.Int64Value max_batch_size = 1;
  google.protobuf.Int64Value batch_timeout_micros = 2;
  google.protobuf.Int64Value max_enqueued_batches = 3;
  google.protobuf.Int64Value num_batch_threads = 4;
  google.protobuf.StringValue thread_pool_name = 5;
  repeated int64 allowed_batch_sizes = 6;
  bool pad_variable_length_inputs = 7;
}
message PrometheusConfig { bool enable = 1; string path = 2; }
message MonitoringConfig { PrometheusConfig prometheus_config = 1; }
"""
    }
)
_TENSORFLOW = 1  # a ModelType
_DEFAULT_MAX_BATCH_SIZE = 1000  # the server's, if its file does not set one
# Spaces that come from web pages and word processors: Python's parser takes them for spaces, the server's does not.
_ODD_SPACE = re.compile(r"[^\S\x00-\x7f]")
_LOWEST = {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1, "num_batch_threads": 1}


def find_problems(folder: str | os.PathLike, base_paths: Mapping[str, str | os.PathLike]) -> list[str]:
    """Everything in a folder of configuration files that would make a server fail; empty if there is nothing.

    The versions are checked as well: that they exist, and that their files match their checksums.

    Args:
        folder: It holds `configuration.MODELS_NAME`; the other files may be missing.
        base_paths: For each model by name, where its versions are on this machine; models that are not listed have
            them at the base_path of the file.
    """
    folder = pathlib.Path(folder)
    checks = {
        configuration.MODELS_NAME: ("ModelServerConfig", lambda config: _in_models(config, base_paths)),
        configuration.NEXT_MODELS_NAME: ("ModelServerConfig", lambda config: _in_models(config, base_paths)),
        configuration.BATCHING_NAME: ("BatchingParameters", _in_batching),
        configuration.MONITORING_NAME: ("MonitoringConfig", _in_monitoring),
    }
    problems = []
    for name, (kind, check) in checks.items():
        path = folder / name
        if not path.exists() and name != configuration.MODELS_NAME:
            continue
        message = _CLASSES[f"tensorflow.serving.{kind}"]()
        try:
            text_format.Parse(_ODD_SPACE.sub(_visible, path.read_text("utf-8")), message)
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            problems.append(f"{path}: cannot be read as a {kind}: {error}")
            continue
        problems += [f"{path}: {problem}" for problem in check(message)]
    return problems


def _visible(space: re.Match) -> str:
    return f"<U+{ord(space[0]):04X}>"


def _in_models(config: Message, base_paths: Mapping[str, str | os.PathLike]) -> Iterator[str]:
    models = config.model_config_list.config
    if not models:
        yield "it lists no model."
    names = [model.name for model in models]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"it lists the model {name!r} more than once."
    for name in sorted(set(base_paths) - set(names)):
        yield f"it has no model {name!r}; it has {sorted(names)}."
    for model in models:
        if not model.name:
            yield "a model has no name."
        if model.model_type and model.model_platform:
            yield f"{model.name}: give model_platform alone; the server refuses model_type, its old name, beside it."
        elif model.model_platform != "tensorflow" and model.model_type != _TENSORFLOW:
            yield f"{model.name}: the model_platform must be 'tensorflow', got {model.model_platform!r}."
        if not (model.base_path.startswith("/") or "://" in model.base_path):
            yield f"{model.name}: base_path must be absolute, or a URI; got {model.base_path!r}."
        for problem in _in_versions(model, base_paths.get(model.name, model.base_path)):
            yield f"{model.name}: {problem}"


def _in_versions(model: Message, base_path: str | os.PathLike) -> Iterator[str]:
    folders = versions.list_versions(base_path)
    if not folders:
        if "://" in os.fspath(base_path):
            missing = f"the versions in {base_path} cannot be checked from here. If this machine has a copy, add"
        else:
            missing = f"no version is in {os.fspath(base_path)}. If this machine has them elsewhere, add"
        yield f"{missing} --model_name={model.name} --base_path=FOLDER."
        return
    policy = model.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        served = list(policy.specific.versions)
    elif choice == "all":
        served = list(folders)
    else:
        served = list(folders)[-max(1, policy.latest.num_versions) :]
    if not served:
        yield "its model_version_policy lists no version."
    for version in sorted(set(served) - set(folders)):
        yield f"version {version} is not there; {os.fspath(base_path)} has {sorted(folders)}."
    for label, version in sorted(model.version_labels.items()):
        if version not in served or version not in folders:
            yield f"the label {label!r} is on version {version}, which is not there, or not served."
    for version in sorted(set(served) & set(folders)):
        yield from _in_version(folders[version])


def _in_version(folder: pathlib.Path) -> Iterator[str]:
    if not (folder / "saved_model.pb").is_file():
        yield f"{folder} holds no saved_model.pb."
    elif (folder / contract.EXTRA_FOLDER / verify.CHECKSUMS_NAME).is_file():  # other exporters write no checksums
        try:
            verify.check_files(folder)
        except (ValueError, OSError) as error:
            yield str(error)


def _in_batching(config: Message) -> Iterator[str]:
    for name, lowest in _LOWEST.items():
        if config.HasField(name) and getattr(config, name).value < lowest:
            yield f"{name} must be at least {lowest}, got {getattr(config, name).value}."
    largest = config.max_batch_size.value if config.HasField("max_batch_size") else _DEFAULT_MAX_BATCH_SIZE
    sizes = list(config.allowed_batch_sizes)
    if sizes != sorted(set(sizes)) or any(size < 1 for size in sizes):
        yield f"allowed_batch_sizes must be positive and ascending, got {sizes}."
    elif sizes and sizes[-1] != largest:
        yield f"allowed_batch_sizes must end at max_batch_size, {largest}; they end at {sizes[-1]}."
    if largest < contract.MAX_BATCH_SIZE:
        yield f"max_batch_size is {largest}: clients send up to {contract.MAX_BATCH_SIZE} images, and such calls fail."


def _in_monitoring(config: Message) -> Iterator[str]:
    path = config.prometheus_config.path
    if path and not path.startswith("/"):
        yield f"the path of the metrics must begin with '/', got {path!r}."
