"""Model cards: the `README.md` that model hubs read, first fields for the hubs, then text for people."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

from sqz_keras.architecture.in_words import describe, describe_architecture
from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec, imagenet_wnids
from sqz_keras.files import write_file
from sqz_keras.weights.records import IMAGENET, RECORDS, Record

NAME = "README.md"
_MARK = "<!-- written by sqz-keras -->"
# Model hubs' identifiers for the licences of the records.
_LICENCES = {"BSD": "bsd", "MIT": "mit", "Apache 2.0": "apache-2.0", "BSD-3-Clause (torchvision)": "bsd-3-clause"}
_METRICS = {"top1_accuracy": ("accuracy", "Top-1 accuracy"), "top5_accuracy": ("top5_accuracy", "Top-5 accuracy")}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracies of a model, with their source.

    Args:
        dataset: Name of the dataset.
        split: The part of the dataset.
        source: Where the figures come from.
        accuracies: Fractions by "top1_accuracy" and "top5_accuracy".
        intervals: The 95% interval of some of them.
        num_images: How many images, or None if the source does not say.
    """

    dataset: str
    split: str
    source: str
    accuracies: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    num_images: int | None = None


def find_record(model: str | os.PathLike, spec: ModelSpec) -> Record | None:
    """The record with a model's name or with the hash of its weights; None if there is none."""
    name = IMAGENET.get((spec.version, spec.bypass)) if model == "imagenet" else os.fspath(model)
    digest = spec.weights_sha256
    return next((r for r in RECORDS if r.name == name or (digest and r.spec.weights_sha256 == digest)), None)


def record_evaluation(record: Record) -> Evaluation | None:
    """The published accuracies of a record, or None if there are none."""
    accuracies = {name: getattr(record, name) for name in _METRICS if getattr(record, name) is not None}
    return Evaluation("ILSVRC2012", "validation", record.source, accuracies) if accuracies else None


def training_evaluation(results: Mapping) -> Evaluation:
    """What `sqz-train` measured.

    Args:
        results: The content of evaluation.json.

    Raises:
        ValueError: The content is not what `sqz-train` writes.
    """
    try:
        config = results["config"]
        name = pathlib.PurePath(config.get("image_dir") or "").name
        dataset = config.get("dataset") or (name if name not in ("", "..") else "a folder of images")
        low, high = (float(bound) for bound in results["top1_interval"])
        return Evaluation(
            dataset=str(dataset),
            split=str(results["split"]),
            source="measured by sqz-train on pictures that were not trained on",
            accuracies={"top1_accuracy": float(results["top1_accuracy"])},
            intervals={"top1_accuracy": (low, high)},
            num_images=int(results["num_images"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"no results of sqz-train: {error!r}") from error


def find_evaluation(model: str | os.PathLike, record: Record | None) -> Evaluation | None:
    """The accuracies that a record or the folder of `sqz-train` holds for a model; None if neither does."""
    if record is not None:
        return record_evaluation(record)
    path = pathlib.Path(model, "evaluation.json")
    if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
        return None
    try:
        return training_evaluation(json.loads(path.read_text("utf-8")))
    except ValueError:
        return None


def model_card(
    spec: ModelSpec,
    files: Mapping[str, int],
    loading: str,
    record: Record | None = None,
    evaluation: Evaluation | None = None,
) -> str:
    """The text of a card.

    Args:
        spec: Describes the model.
        files: The size in bytes of each file that the card describes, by its name.
        loading: Markdown that says how to load them.
        record: Where the weights come from, if that is known.
        evaluation: What is known about the accuracy.
    """
    title = f"{describe_architecture(spec)}, {spec.classes:,} classes"
    licence = _LICENCES.get(record.licence, "other") if record else "unknown"
    fields = {
        "license": licence,
        "library_name": "sqz-keras",
        "pipeline_tag": "image-classification",
        "tags": ["squeezenet", "keras", "image-classification"],
    }
    if evaluation is not None:
        fields["metrics"] = ["accuracy"]
        fields["model-index"] = [_index_entry(title, evaluation)]
    front = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items())
    rows = [*describe(spec), ("Weights, sha256", spec.weights_sha256 or "not recorded")]
    rows += [(name, f"{size:,} bytes") for name, size in files.items()]
    sections = {
        "": _table(("", ""), rows),
        "Licence": _licence_text(record),
        "Intended use": _use_text(spec),
        "Limits": _limits_text(spec),
        "Accuracy": _accuracy_text(evaluation),
        "Load it": loading.strip(),
    }
    text = "\n\n".join(f"## {name}\n\n{body}" if name else body for name, body in sections.items())
    return f"---\n{front}---\n\n{_MARK}\n\n# {title}\n\n{text}\n"


def check_card(path: pathlib.Path) -> None:
    """Refuses to replace a `README.md` that is not a card of this project.

    Raises:
        ValueError: There is such a file.
    """
    if path.exists() and _MARK not in path.read_text("utf-8", "replace"):
        raise ValueError(f"{path} exists and is not a model card of sqz-keras; move it, or choose another folder.")


def write_card(path: pathlib.Path, text: str) -> None:
    """Writes a card, whole or not at all; an older one is replaced.

    Raises:
        ValueError: There is a file that is not a card of this project.
    """
    check_card(path)
    write_file(path, text.encode("utf-8", "replace"))  # a folder's name may hold what UTF-8 cannot encode


def _index_entry(title: str, evaluation: Evaluation) -> dict:
    """One model of the field `model-index`."""
    metrics = []
    for name, value in evaluation.accuracies.items():
        kind, text = _METRICS[name]
        metrics.append({"type": kind, "name": text + _interval(evaluation, name), "value": round(value, 6)})
    dataset = {"type": evaluation.dataset, "name": evaluation.dataset, "split": evaluation.split}
    result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
    return {"name": title, "results": [result]}


def _interval(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.intervals:
        return ""
    low, high = evaluation.intervals[name]
    return f" (95% interval {low:.1%} to {high:.1%})"


def _accuracy_text(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "Not measured. `sqz-evaluate` measures it on a folder of labelled pictures."
    where = f"{evaluation.dataset}, {evaluation.split}"
    if evaluation.num_images is not None:
        where += f", {evaluation.num_images:,} pictures"
    rows = [
        (_METRICS[name][1], f"{value:.2%}{_interval(evaluation, name)}", where, evaluation.source)
        for name, value in evaluation.accuracies.items()
    ]
    return _table(("metric", "value", "pictures", "source"), rows)


def _licence_text(record: Record | None) -> str:
    if record is None:
        return "Not stated: the publisher of the model chooses it, as far as the training pictures allow."
    return f"{record.licence}, of the weights `{record.name}`: {record.url or record.source}."


def _use_text(spec: ModelSpec) -> str:
    return (
        f"Classifying pictures into {spec.classes:,} classes where memory, bandwidth or energy are scarce, and as a "
        "start for networks of one's own."
    )


def _limits_text(spec: ModelSpec) -> str:
    lines = [
        "- Every picture gets one of the classes, whatever it shows; only a low probability hints that none fits.",
        "- Pictures unlike those of the training, such as drawings or medical scans, get worse answers than the table "
        "says. Measure on pictures of your own first.",
    ]
    if spec.labels == imagenet_wnids():
        lines.append(
            "- ImageNet's classes and pictures are those that people put on the web before 2012, mostly from North "
            "America and Europe. It is not meant for recognising people."
        )
    return "\n".join(lines)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
