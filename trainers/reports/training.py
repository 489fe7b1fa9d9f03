"""The report of a training run: curves, confusions, the worst mistakes, the config and the results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from trainers.evaluation.metrics import wilson_interval
from trainers.reports.page import Section, Table, write_page
from trainers.reports.thumbnails import distinct_names, gallery

MOST_MISTAKES = 24
_MOST_POINTS = 1000  # of a curve; a screen cannot show more
_MOST_CLASSES_DRAWN = 50
_MOST_CLASSES_COUNTED = 20  # with the counts written into the cells
_MOST_PAIRS = 50
# title -> the axis's format, and the fields of the history with the names that they have on the page
_CURVES = (
    ("Loss", "~g", {"loss": "training", "validation_loss": "validation"}),
    ("Top-1 accuracy", "~%", {"top1_accuracy": "training", "validation_top1_accuracy": "validation"}),
    ("Learning rate", "~g", {"learning_rate": "learning rate"}),
    ("Images a second", "~s", {"images_per_second": "images a second"}),
)


@dataclass(frozen=True)
class Mistake:
    """An image that the model classified wrongly.

    Attributes:
        image: Uint8 of shape (height, width, 3) or (height, width, 1), values 0 to 255.
        truth: True class number.
        predicted: Predicted class number.
        probability: Probability of `predicted`, in [0, 1].
    """

    image: np.ndarray
    truth: int
    predicted: int
    probability: float


def write_training_report(
    path: str | os.PathLike,
    *,
    title: str,
    history: Sequence[Mapping[str, Any]],
    confusion: np.ndarray,
    labels: Sequence[str],
    mistakes: Sequence[Mistake],
    config: Mapping[str, Any],
    results: Mapping[str, Any],
) -> None:
    """Writes report.html of a run, one file that opens without a network.

    Args:
        path: Path of the file; an older file is replaced.
        title: Plain text.
        history: One record per logged step, with `step` and any of `loss`, `learning_rate`, `images_per_second`,
            `top1_accuracy`, `validation_loss`, `validation_top1_accuracy`.
        confusion: Counts, integers of shape (classes, classes); rows are true classes, columns predicted ones.
        labels: One name per class.
        mistakes: Mistakes, of which the `MOST_MISTAKES` with the highest probability are shown.
        config: The run's config; may be nested.
        results: The run's results; may be nested.

    Raises:
        ValueError: `confusion`, `labels` or a mistake do not fit together, or `path` cannot be written.
    """
    confusion = np.asarray(confusion)
    _check(confusion, labels, mistakes)
    names = distinct_names(labels)
    sections = [Section("Results", table=_settings(results)), *_curves(history)]
    if confusion.sum():
        sections += _confusions(confusion, names)
    if mistakes:
        sections.append(_worst_mistakes(mistakes, names))
    sections.append(Section("Config", table=_settings(config)))
    write_page(path, title, sections)


def _check(confusion: np.ndarray, labels: Sequence[str], mistakes: Sequence[Mistake]) -> None:
    classes = len(labels)
    if confusion.shape != (classes, classes) or confusion.dtype.kind not in "iu" or (confusion < 0).any():
        raise ValueError(
            f"confusion must be counts of shape ({classes}, {classes}), as there are {classes} labels; "
            f"it is {confusion.dtype} of shape {confusion.shape}."
        )
    for mistake in mistakes:
        image = mistake.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
            raise ValueError(
                f"A mistake's image must be uint8 (height, width, 3 or 1), not {image.dtype} {image.shape}."
            )
        if not (0 <= mistake.truth < classes and 0 <= mistake.predicted < classes):
            raise ValueError(f"A mistake's classes must be 0 to {classes - 1}: {mistake.truth}, {mistake.predicted}.")


def _settings(values: Mapping[str, Any]) -> Table:
    return Table(("name", "value"), list(_flat(values)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values; those of a nested mapping are named `outer.inner`."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | Mapping):
            yield f"{prefix}{name}", json.dumps(value, default=str, ensure_ascii=False)
        else:
            yield f"{prefix}{name}", value


def _curves(history: Sequence[Mapping[str, Any]]) -> list[Section]:
    sections = []
    for title, axis_format, fields in _CURVES:
        points, left_out, thinned = [], 0, False
        for field, name in fields.items():
            records = [(record["step"], float(record[field])) for record in history if record.get(field) is not None]
            finite = [(step, value) for step, value in records if math.isfinite(value)]
            left_out += len(records) - len(finite)
            every = math.ceil(len(finite) / _MOST_POINTS) or 1
            thinned |= every > 1
            # Counted from the end, so that the last value is there.
            points += [{"step": step, "value": value, "of": name} for step, value in finite[::-every][::-1]]
        if points:
            notes = ["Some of the records are drawn." if thinned else ""]
            notes.append(f"{left_out} not finite, left out." if left_out else "")
            sections.append(
                Section(title, chart=_curve(points, title, axis_format), note=" ".join(filter(None, notes)))
            )
    return sections


def _curve(points: list[dict], title: str, axis_format: str) -> alt.LayerChart:
    near = alt.selection_point(on="pointerover", nearest=True, fields=["step"], empty=False, clear="pointerout")
    percent = axis_format.endswith("%")
    several = len({point["of"] for point in points}) > 1
    base = alt.Chart(alt.Data(values=points)).encode(
        alt.X("step:Q", title="update", axis=alt.Axis(grid=False, format=",d", tickCount=8, tickMinStep=1)),
        alt.Y("value:Q", title=None, axis=alt.Axis(format=axis_format, tickCount=5), scale=alt.Scale(zero=not percent)),
    )
    if several:
        base = base.encode(alt.Color("of:N", title=None, legend=alt.Legend(orient="top")))
    tooltip = [
        alt.Tooltip("step:Q", title="update", format=","),
        alt.Tooltip("value:Q", title=title, format=".2%" if percent else ".4~g"),
    ]
    # Few points are all shown (one alone makes no line); of many, the one under the pointer.
    shown = alt.value(1) if len(points) <= 40 else alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    dots = base.mark_point(filled=True, size=40).encode(opacity=shown, tooltip=tooltip).add_params(near)
    return (base.mark_line() + dots).properties(width="container", height=220)


def _confusions(confusion: np.ndarray, names: list[str]) -> list[Section]:
    totals = confusion.sum(axis=1)
    shares = confusion / np.maximum(totals, 1)[:, None]
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:_MOST_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    if len(names) <= _MOST_CLASSES_DRAWN:
        note = "Rows are the truth, columns the prediction."
        first = Section("Confusion matrix", chart=_heat_map(confusion, shares, names), note=note)
    else:
        rows = [(names[t], names[p], confusion[t, p], round(float(shares[t, p]), 4)) for t, p in pairs]
        first = Section("Worst confusions", table=Table(("truth", "taken for", "images", "share of the class"), rows))
    rows = []
    for index, name in enumerate(names):
        rival = int(wrong[index].argmax())
        taken = names[rival] if wrong[index, rival] else None
        accuracy = round(float(shares[index, index]), 4) if totals[index] else None
        low, high = wilson_interval(int(confusion[index, index]), int(totals[index])) if totals[index] else (None, None)
        bounds = [bound and round(bound, 4) for bound in (low, high)]
        rows.append((name, totals[index], confusion[index, index], accuracy, *bounds, taken))
    columns = ("class", "images", "right", "accuracy", "at least", "at most", "most often taken for")
    note = "At least and at most: the 95% interval (Wilson) of the accuracy, which is wide where images are few."
    return [first, Section("Accuracy by class", table=Table(columns, rows), note=note)]


def _heat_map(confusion: np.ndarray, shares: np.ndarray, names: list[str]) -> alt.LayerChart:
    cells = [
        {
            "truth": truth,
            "predicted": predicted,
            "images": int(confusion[t, p]),
            "share": round(float(shares[t, p]), 4),
        }
        for t, truth in enumerate(names)
        for p, predicted in enumerate(names)
    ]
    # sort=None keeps the classes in their own order, which is that of the cells.
    base = alt.Chart(alt.Data(values=cells)).encode(
        alt.X("predicted:N", sort=None, title="prediction", axis=alt.Axis(labelAngle=-90, labelLimit=140, ticks=False)),
        alt.Y("truth:N", sort=None, title="truth", axis=alt.Axis(labelLimit=140, ticks=False)),
        tooltip=["truth:N", "predicted:N", "images:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    # The square root makes the few mistakes of a good model visible.
    scale = alt.Scale(type="sqrt", domain=[0, 1])
    chart = base.mark_rect().encode(
        alt.Color("share:Q", title="share of row", scale=scale, legend=alt.Legend(format=".0%"))
    )
    step = 14
    if len(names) <= _MOST_CLASSES_COUNTED:
        step = 36
        for style, side in (("on-weak", "datum.share <= 0.4"), ("on-strong", "datum.share > 0.4")):
            text = base.mark_text(style=style, fontSize=12).encode(text=alt.Text("images:Q", format=","))
            chart += text.transform_filter(f"datum.images > 0 && {side}")
    return chart.properties(width=alt.Step(step), height=alt.Step(step))


def _worst_mistakes(mistakes: Sequence[Mistake], names: list[str]) -> Section:
    worst = sorted(mistakes, key=lambda mistake: -mistake.probability if mistake.probability >= 0 else 1.0)
    figures = []
    for mistake in worst[:MOST_MISTAKES]:
        truth, predicted = names[mistake.truth], names[mistake.predicted]
        caption = [("is", truth), ("taken for", predicted), ("at", f"{float(mistake.probability):.1%}")]
        figures.append((mistake.image, f"{truth}, taken for {predicted}", caption))
    note = "The images that the model got wrong with the highest probability."
    return Section("Worst mistakes", html=gallery(figures), note=note)
