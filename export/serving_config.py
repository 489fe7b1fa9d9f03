"""Writes the three configuration files that a TensorFlow Serving server reads, or checks them.

python -m export.serving_config --output_dir=DIR [--base_path=/models/squeezenet] [--model_versions=1,2]
[--version_labels=stable=1,canary=2] [--move_label=stable=2]

writes models.config, batching.config and monitoring.config; a comment in each names the server's flags for it.
A label cannot move to a version that is not loaded yet, so --move_label also writes models.next.config, which the
server gets once that version is loaded.

python -m export.serving_config --check=DIR [--base_path=serving/squeezenet]

reads the files of DIR as a server would, and looks into the versions that they name. It says what would fail; the exit
status is then 1. --base_path is where this machine has the versions of --model_name, if not where the files say.
"""

from __future__ import annotations

import os
import re

from absl import flags

from export import configuration, contract
from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string("output_dir", None, "Folder for the files.")
    flags.DEFINE_string("check", None, "Folder of files to check; nothing is written.")
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "Name by which clients ask for the model.")
    flags.DEFINE_string(
        "base_path",
        configuration.DEFAULT_BASE_PATH,
        "Folder of the versions as the server sees it; with --check, as this machine does.",
    )
    flags.DEFINE_list("model_versions", [], "Versions to load; none for the newest.")
    flags.DEFINE_list("version_labels", [], "Names of versions, such as stable=1.")
    flags.DEFINE_string("move_label", None, "A label and its next version, such as stable=2.")
    batching = configuration.BatchingParameters()
    flags.DEFINE_list("allowed_batch_sizes", [str(size) for size in batching.allowed_batch_sizes], "Sizes, ascending.")
    flags.DEFINE_integer("batch_timeout_micros", batching.batch_timeout_micros, "How long a call waits for others.")
    flags.DEFINE_integer("max_enqueued_batches", batching.max_enqueued_batches, "How many batches may wait.")
    flags.DEFINE_integer("num_batch_threads", None, "Batches computed at once; by default one for each core.")
    flags.DEFINE_string("metrics_path", configuration.METRICS_PATH, "Path of the metrics for Prometheus.")


def main(argv) -> int:
    del argv
    args = flags.FLAGS
    if bool(args.output_dir) == bool(args.check):
        raise ValueError("Give either --output_dir, to write the files, or --check, to check those of a folder.")
    return _check(args) if args.check else _write(args)


def _check(args: flags.FlagValues) -> int:
    from export import configuration_check

    given = [name for name in ("model_versions", "version_labels", "move_label") if args[name].present]
    if given:
        raise ValueError(f"--{given[0]} is for writing the files; --check reads what they say.")
    if not os.path.isdir(args.check):
        raise ValueError(f"--check={args.check} is not a folder; give the one that holds {configuration.MODELS_NAME}.")
    elsewhere = {args.model_name: args.base_path} if args["base_path"].present else {}
    problems = configuration_check.find_problems(args.check, elsewhere)
    print("\n".join(problems) or f"{args.check}: nothing that would fail")
    return bool(problems)


def _write(args: flags.FlagValues) -> int:
    versions = tuple(_integer("model_versions", text) for text in args.model_versions)
    labels = dict(_label("version_labels", text) for text in args.version_labels)
    batching = configuration.BatchingParameters(
        tuple(_integer("allowed_batch_sizes", text) for text in args.allowed_batch_sizes),
        args.batch_timeout_micros,
        args.max_enqueued_batches,
        args.num_batch_threads,
    )
    model = configuration.ModelConfig(args.model_name, args.base_path, versions, labels)
    moving = _label("move_label", args.move_label) if args.move_label else None
    names = configuration.write(args.output_dir, model, batching, args.metrics_path, moving)
    print(f"{args.output_dir}: {', '.join(names)}")
    return 0


def _integer(flag: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise ValueError(f"--{flag}: expected a number, got {text!r}.")
    return int(text)


def _label(flag: str, text: str) -> tuple[str, int]:
    label, equals, version = text.partition("=")
    if not equals:
        raise ValueError(f"--{flag}: expected LABEL=VERSION, such as stable=1, got {text!r}.")
    return label, _integer(flag, version)


def run() -> None:
    command.run(main, define_flags, __doc__, extras=("client",))


if __name__ == "__main__":
    run()
