"""Sections about a model's answers to labelled images: confusions, accuracy by class, the worst mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from trainers.evaluation.metrics import wilson_interval
from trainers.reports.page import Section, Table
from trainers.reports.thumbnails import distinct_names, gallery

MOST_MISTAKES = 24
_MOST_CLASSES_DRAWN = 50
_MOST_CLASSES_COUNTED = 20  # with the counts written into the cells
_MOST_PAIRS = 50


@dataclass(frozen=True)
class Mistake:
    """An image that the model classified wrongly.

    Attributes:
        image: Uint8 of shape (height, width, 3) or (height, width, 1), values 0 to 255.
        truth: True class number.
        predicted: Predicted class number.
        probability: Probability of `predicted`, in [0, 1].
        seen: Where the model saw `predicted`: uint8 (height, width, 3), as `overlay` draws it, or None.
    """

    image: np.ndarray
    truth: int
    predicted: int
    probability: float
    seen: np.ndarray | None = None


def answer_sections(confusion: np.ndarray, labels: Sequence[str], mistakes: Sequence[Mistake]) -> list[Section]:
    """Confusions, accuracy by class, and the worst mistakes; sections with nothing to show are left out.

    Args:
        confusion: Counts, integers of shape (classes, classes); rows are true classes, columns predicted ones.
        labels: One name per class.
        mistakes: Mistakes; the `MOST_MISTAKES` with the highest probability are shown.

    Raises:
        ValueError: `confusion`, `labels` or a mistake do not fit together.
    """
    _check_answers(confusion, labels, mistakes)
    names = distinct_names(labels)
    sections = _confusions(confusion, names) if confusion.any() else []
    return [*sections, _worst_mistakes(mistakes, names)] if mistakes else sections


def _check_answers(confusion: np.ndarray, labels: Sequence[str], mistakes: Sequence[Mistake]) -> None:
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


def settings(title: str, values: Mapping[str, Any]) -> Section:
    """A section with a table of names and values, which may be nested."""
    return Section(title, table=Table(("name", "value"), list(_flat(values))))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values; those of a nested mapping are named `outer.inner`."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | Mapping):
            yield f"{prefix}{name}", json.dumps(value, default=str, ensure_ascii=False)
        else:
            yield f"{prefix}{name}", value


def _confusions(confusion: np.ndarray, names: list[str]) -> list[Section]:
    """Which classes are taken for which, and the accuracy by class with its interval; no two names may be equal."""
    totals = confusion.sum(axis=1)
    if len(names) <= _MOST_CLASSES_DRAWN:
        note = "Rows are the truth, columns the prediction."
        shares = confusion / np.maximum(totals, 1)[:, None]
        first = Section("Confusion matrix", chart=_heat_map(confusion, shares, names), note=note)
    else:
        table = Table(("truth", "taken for", "images", "share of the class"), _worst_pairs(confusion, totals, names))
        first = Section("Worst confusions", table=table)
    rows, most_lack_images = [], np.mean(totals > 0) < 0.5
    for index, name in enumerate(names):
        if most_lack_images and not totals[index]:
            continue  # for example most of ImageNet's classes if the folder holds only a few
        right, total, others = int(confusion[index, index]), int(totals[index]), confusion[index].copy()
        others[index] = 0
        rival = int(others.argmax())
        taken = names[rival] if others[rival] else None
        accuracy = [None] * 3
        if total:
            accuracy = [round(share, 4) for share in (right / total, *wilson_interval(right, total))]
        rows.append((name, total, right, *accuracy, taken))
    columns = ("class", "images", "right", "accuracy", "at least", "at most", "most often taken for")
    note = "At least and at most: the 95% interval (Wilson) of the accuracy, which is wide where images are few."
    return [first, Section("Accuracy by class", table=Table(columns, rows), note=note)]


def _worst_pairs(confusion: np.ndarray, totals: np.ndarray, names: list[str]) -> list[tuple]:
    """Rows of the most frequent confusions."""
    truth, predicted = np.nonzero(confusion)  # most pairs have none, and with 10,000 classes all of them take 800 MB
    is_wrong = truth != predicted
    truth, predicted = truth[is_wrong], predicted[is_wrong]
    counts = confusion[truth, predicted]
    return [
        (names[truth[place]], names[predicted[place]], counts[place], round(counts[place] / totals[truth[place]], 4))
        for place in np.argsort(counts, kind="stable")[::-1][:_MOST_PAIRS]
    ]


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
    # sort=None keeps the classes in the order of the cells.
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
    """The mistakes with the highest probability, each with what the model saw if `seen` is there."""
    worst = sorted(mistakes, key=lambda mistake: -mistake.probability if mistake.probability >= 0 else 1.0)
    figures = []
    for mistake in worst[:MOST_MISTAKES]:
        truth, predicted = names[mistake.truth], names[mistake.predicted]
        caption = [("is", truth), ("taken for", predicted), ("at", f"{float(mistake.probability):.1%}")]
        figures.append((mistake.image, f"{truth}, taken for {predicted}", caption))
        if mistake.seen is not None:
            figures.append((mistake.seen, f"where the model sees {predicted}", [("seen", predicted)]))
    note = "The images that the model got wrong with the highest probability."
    if any(mistake.seen is not None for mistake in worst[:MOST_MISTAKES]):
        note += " Beside each: the places that speak for the answer, light where most."
    return Section("Worst mistakes", html=gallery(figures), note=note)
