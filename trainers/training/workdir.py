"""The folder of a run: whether it may be used, and what a finished run leaves in it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.differences import describe_changes
from sqz_keras.files import sync, write_file, write_json
from sqz_keras.images.files import read_image
from sqz_keras.models.squeezenet import build
from sqz_keras.weights import model_card
from sqz_keras.weights.description import SPEC_NAME, embed_spec, write_spec
from trainers.data.source import Source
from trainers.evaluation.metrics import Predictions
from trainers.reports.answers import MOST_MISTAKES, Mistake
from trainers.reports.thumbnails import reduce_image
from trainers.reports.training import write_training_report
from trainers.training import checkpoints
from trainers.training.config import FREE_FIELDS, TrainConfig

_LOADING = """
```python
import sqz_keras

model = sqz_keras.load(".")  # this folder
```

`sqz-classify photo.jpg --model=.` classifies a picture; every command of sqz-keras takes the folder as its `--model`.
"""
OUTPUTS = ("model.keras", "model.weights.h5", SPEC_NAME, "evaluation.json")
_AFTER_A_CHECKPOINT = ("metrics.csv", "report.html")  # a run writes these only once it has one


def check_workdir(workdir: pathlib.Path) -> None:
    """Refuses a folder that cannot be written to, that holds a trained model, or whose files a run would replace.

    The files of an unfinished run may be replaced. A run that is killed while it writes its outputs leaves some of them
    beside checkpoints, without evaluation.json; one that is killed before its first checkpoint leaves only config.json.

    Raises:
        ValueError: The folder cannot be used; the message says what to do.
    """
    present = [name for name in OUTPUTS if (workdir / name).exists()]
    has_checkpoints = bool(checkpoints.steps(workdir / "checkpoints"))
    if present and ("evaluation.json" in present or not has_checkpoints):
        raise ValueError(f"{workdir} holds {present[0]} of an earlier run; choose another --workdir, or remove it.")
    others = [name for name in _AFTER_A_CHECKPOINT if (workdir / name).exists()]
    others += [] if _may_write_config(workdir / "config.json") else ["config.json"]
    if others and not has_checkpoints:
        raise ValueError(
            f"{workdir} holds {others[0]}, which a run would replace, and no checkpoints; choose another --workdir, or "
            "remove it."
        )
    model_card.check_card(workdir / model_card.NAME)
    existing = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"--workdir={workdir} must be a folder that you may write to; {existing} is not.")


def _may_write_config(path: pathlib.Path) -> bool:
    """Whether there is no such file, or it is the config of a run."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.keys() == {field.name for field in dataclasses.fields(TrainConfig)}


def check_same_run(config: TrainConfig, source: Source, meta: Mapping, workdir: pathlib.Path) -> None:
    """Refuses a checkpoint that does not belong to a run with this config on these images.

    Args:
        config: The config of this run.
        source: Its images.
        meta: What the checkpoint says of its run.
        workdir: The checkpoint's folder, for messages.

    Raises:
        ValueError: Fields that decide the run's result, or the images, differ; the message names them.
    """
    changes = describe_changes(meta["config"], config.to_json(), ignore=FREE_FIELDS)
    if changes:
        raise ValueError(
            f"{workdir} holds checkpoints of a run with another config: {changes}. Run with the earlier values, or "
            "choose another --workdir."
        )
    before, now = meta.get("images", {}), images_of(source)
    # An older checkpoint records less.
    changes = describe_changes(before, {name: value for name, value in now.items() if name in before})
    if changes:
        raise ValueError(
            f"{workdir} holds checkpoints of a run on other images than {source.name} has now: {changes}. Restore "
            "them, or choose another --workdir."
        )


def images_of(source: Source) -> dict[str, Any]:
    """What a checkpoint records of its run's images: not their bytes, since damaged ones may be replaced later."""
    images = {"labels": list(source.labels), "sizes": dict(source.sizes)}
    if source.class_sizes is not None:
        images["sizes_by_class"] = {split: counts.tolist() for split, counts in source.class_sizes.items()}
    return images


def save_outputs(workdir: pathlib.Path, spec: ModelSpec, arrays: Mapping[str, np.ndarray], results: Mapping) -> None:
    """Writes the model, its spec and its results under temporary names first: each appears whole or not at all.

    evaluation.json is written last: if it exists, so do all the other files.
    """
    model = build(spec, dict(arrays))
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".partial-") as partial:
        folder = pathlib.Path(partial)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        for name in ("model.keras", "model.weights.h5"):
            embed_spec(folder / name, spec)
            sync(folder / name)  # Keras does not
        write_spec(folder / "model.weights.h5", spec, arrays)
        write_json(folder / "evaluation.json", dict(results))
        sizes = {name: (folder / name).stat().st_size for name in ("model.keras", "model.weights.h5")}
        hashed = dataclasses.replace(spec, weights_sha256=hash_arrays(arrays))
        evaluation = model_card.training_evaluation(results)
        card = model_card.model_card(hashed, sizes, _LOADING, evaluation=evaluation)
        model_card.write_card(folder / model_card.NAME, card)
        for name in (model_card.NAME, *OUTPUTS):
            os.replace(folder / name, workdir / name)
    sync(workdir)


def write_report(
    workdir: pathlib.Path,
    spec: ModelSpec,
    source: Source,
    predictions: Predictions,
    history: Sequence[Mapping],
    results: Mapping,
) -> None:
    """Writes report.html: curves, confusions, the surest mistakes with their images, results and config.

    A mistake is left out if Pillow refuses its image: TensorFlow decoded it, and the report is no reason to fail.
    """
    wrong = {position: answer for position, *answer in predictions.surest_mistakes(MOST_MISTAKES)}
    mistakes = []
    for position, record in enumerate(source.records(results["split"]).as_numpy_iterator()):
        if position in wrong:
            with contextlib.suppress(ValueError):
                mistakes.append(Mistake(reduce_image(read_image(record["image"])), *wrong[position]))
    write_training_report(
        workdir / "report.html",
        title=f"{results['top1_accuracy']:.1%} top-1 on {source.name}",
        history=list(history),
        confusion=predictions.confusion(spec.classes),
        labels=spec.class_names(),
        mistakes=mistakes,
        config=results["config"] | {"model": spec.to_json()},  # with the classes of the dataset
        results={name: value for name, value in results.items() if name != "config"},
    )


def write_history(workdir: pathlib.Path, history: Sequence[Mapping]) -> None:
    """Writes metrics.csv, one row per evaluation on the validation split, whole or not at all."""
    if not history:
        return
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, history[0].keys())
    writer.writeheader()
    writer.writerows(history)
    write_file(workdir / "metrics.csv", table.getvalue().encode())
