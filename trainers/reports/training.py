"""The report of a training run: curves, confusions, the worst mistakes, the config and the results."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from trainers.reports.answers import Mistake, answer_sections, settings
from trainers.reports.page import Section, write_page

_MOST_POINTS = 1000  # of a curve; a screen cannot show more
# title -> the axis's format, and the fields of the history with the names that they have on the page
_CURVES = (
    ("Loss", "~g", {"loss": "training", "validation_loss": "validation"}),
    ("Top-1 accuracy", "~%", {"top1_accuracy": "training", "validation_top1_accuracy": "validation"}),
    ("Learning rate", "~g", {"learning_rate": "learning rate"}),
    ("Images a second", "~s", {"images_per_second": "images a second"}),
)


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
    """Writes report.html of a run, one file that opens offline.

    Args:
        path: Path of the file; an older file is replaced.
        title: Plain text.
        history: One record per logged step, with `step` and any of `loss`, `learning_rate`, `images_per_second`,
            `top1_accuracy`, `validation_loss`, `validation_top1_accuracy`.
        confusion: Counts, integers of shape (classes, classes); rows are true classes, columns predicted ones.
        labels: One name per class.
        mistakes: Mistakes; the `MOST_MISTAKES` with the highest probability are shown.
        config: The run's config; may be nested.
        results: The run's results; may be nested.

    Raises:
        ValueError: `confusion`, `labels` or a mistake do not fit together, or `path` cannot be written.
    """
    answers = answer_sections(confusion, labels, mistakes)
    write_page(path, title, [settings("Results", results), *_curves(history), *answers, settings("Config", config)])


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
            # Counted from the end, so that the last value is drawn.
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
    # Few points are all shown (one alone makes no line); of many, only the one under the pointer.
    shown = alt.value(1) if len(points) <= 40 else alt.when(near).then(alt.value(1)).otherwise(alt.value(0))
    dots = base.mark_point(filled=True, size=40).encode(opacity=shown, tooltip=tooltip).add_params(near)
    return (base.mark_line() + dots).properties(width="container", height=220)
