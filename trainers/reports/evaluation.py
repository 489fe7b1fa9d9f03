"""The report of an evaluation: results, calibration, confusions, accuracy by class, the worst mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from trainers.evaluation.metrics import Calibration, Predictions, calibration, wilson_interval
from trainers.reports.answers import Mistake, answer_sections, settings
from trainers.reports.page import Section, write_page


def write_evaluation_report(
    path: str | os.PathLike,
    *,
    title: str,
    labels: Sequence[str],
    predictions: Predictions,
    mistakes: Sequence[Mistake],
    results: Mapping[str, Any],
) -> None:
    """Writes one HTML file that opens offline.

    Args:
        path: Path of the file; an older file is replaced.
        title: Plain text.
        labels: One name per class.
        predictions: The predictions for all images that could be read.
        mistakes: Mistakes; the `MOST_MISTAKES` with the highest probability are shown.
        results: The results; may be nested.

    Raises:
        ValueError: The predictions, the labels or a mistake do not fit together, or `path` cannot be written.
    """
    answers = answer_sections(predictions.confusion(len(labels)), labels, mistakes)
    write_page(path, title, [settings("Results", results), _calibration(calibration(predictions)), *answers])


def _calibration(measured: Calibration) -> Section:
    """Accuracy by probability, beside the line on which both are equal."""
    points = []
    for count, correct, probability in zip(measured.counts, measured.correct, measured.probability, strict=True):
        if count:
            low, high = wilson_interval(int(correct), int(count))
            accuracy = float(correct / count)
            points.append(
                {
                    "probability": float(probability),
                    "accuracy": accuracy,
                    "low": low,
                    "high": high,
                    "images": int(count),
                }
            )
    axis, scale = alt.Axis(format="~%", tickCount=5), alt.Scale(domain=[0, 1])
    base = alt.Chart(alt.Data(values=points)).encode(
        alt.X("probability:Q", title="mean probability of the answers", axis=axis, scale=scale),
        tooltip=[
            alt.Tooltip("images:Q", format=","),
            alt.Tooltip("probability:Q", format=".1%"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("low:Q", title="at least", format=".1%"),
            alt.Tooltip("high:Q", title="at most", format=".1%"),
        ],
    )
    on_y = {"axis": axis, "scale": scale}
    intervals = base.mark_rule().encode(alt.Y("low:Q", title="accuracy", **on_y), alt.Y2("high:Q"))
    dots = base.mark_point(filled=True, size=60).encode(alt.Y("accuracy:Q", title="accuracy", **on_y))
    ends = alt.Chart(alt.Data(values=[{"probability": end, "accuracy": end} for end in (0, 1)]))
    diagonal = ends.mark_line(strokeDash=[4, 4], opacity=0.5).encode(x="probability:Q", y="accuracy:Q")
    note = (
        f"Expected calibration error {measured.expected_error:.3f}. On the dashed line, answers are right as often as "
        "their probability says; above it the model is underconfident, below it overconfident. Bars are 95% intervals "
        "(Wilson)."
    )
    chart = (diagonal + intervals + dots).properties(width=320, height=320)
    return Section("Calibration", chart=chart, note=note)
