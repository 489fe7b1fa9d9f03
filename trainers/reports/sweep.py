"""The report of a sweep: accuracy against size with the front, beside the paper's Figure 3, and every trial."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from trainers.evaluation.objectives import pareto_front
from trainers.reports.page import Section, Table, save_chart, write_page

# Figure 3: (value, MB, top-5 on ImageNet); all but the first entry of each list are partly read off the figure.
FIGURE_3 = {
    "squeeze_ratio": [(0.125, 4.8, 0.803), (0.25, 7.6, 0.834), (0.5, 13, 0.853), (0.75, 19, 0.860), (1.0, 24, 0.860)],
    "pct_3x3": [
        (0.01, 5.7, 0.763),
        (0.125, 7.4, 0.809),
        (0.25, 9.3, 0.840),
        (0.375, 11, 0.847),
        (0.5, 13, 0.853),
        (0.625, 15, 0.856),
        (0.75, 17, 0.854),
        (0.875, 19, 0.855),
        (0.99, 21, 0.853),
    ],
}
_PAPER_WIDTH = 560  # of a chart that stands alone, in pixels
_COLUMNS = (
    "state",
    "top1",
    "test_top1",
    "parameters",
    "mebibytes",
    "compressed_bytes",
    "latency",
    "multiply_accumulates",
    "train_seconds",
)


def write_sweep_report(
    path: str | os.PathLike,
    space: str,
    objectives: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    importances: Mapping[str, float],
) -> None:
    """Writes the page of a sweep, one file that opens offline, and its first chart as SVG and PNG beside it.

    Args:
        path: Path of the page.
        space: Name of the space.
        objectives: Objectives of the sweep.
        records: Records as in trials.json; at least one is complete.
        importances: Importance of each dimension, as a share; may be empty.

    Raises:
        ValueError: `path` cannot be written.
    """
    complete = [record for record in records if record["state"] == "complete"]
    size = next((name for name in objectives if name != "top1"), "mebibytes")
    scatter = accuracy_chart(complete, size)
    sections = [Section("Accuracy and cost", chart=scatter, note="The line joins the networks that none beats.")]
    if space in FIGURE_3:
        sections.append(
            Section(
                "The paper's Figure 3",
                chart=_figure_3(space),
                note="Top-5 on ImageNet (arXiv 1602.07360, sections 5.2 and 5.3), partly read off the figure: "
                "the same networks, another dataset and measure.",
            )
        )
    sections.append(Section("Parallel coordinates", chart=_parallel(complete, objectives)))
    if importances:
        note = "How much each matters for good values of the first objective, within these trials (PED-ANOVA)."
        sections.append(Section("Importance", chart=_importance_chart(importances), note=note))
    note = "The command trains the network again. top1 is on the validation split, which was used to choose."
    sections.append(Section("Trials", table=_table(records), note=note))
    write_page(path, f"Sweep: {space}", sections)
    for suffix in (".svg", ".png"):
        save_chart(scatter.properties(width=_PAPER_WIDTH), f"{os.path.splitext(path)[0]}{suffix}")


def accuracy_chart(complete: Sequence[Mapping[str, Any]], size: str) -> alt.TopLevelMixin:
    """Validation top-1 over a measure of size or cost, with the Pareto front of both."""
    rows = [_flat(record) | {"size": record[size]} for record in complete]
    front = pareto_front(("top1", "bytes" if size == "mebibytes" else size), complete)
    tips = [name for name in rows[0] if name not in ("size", "state")]
    x = alt.X(
        "size:Q",
        title=size.replace("_", " "),
        axis=alt.Axis(format="~s", labelOverlap="greedy", labelSeparation=8),
        scale=alt.Scale(type="log", nice=False, padding=12),
    )
    y = alt.Y("top1:Q", title="validation top-1", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=50).encode(x=x, y=y, tooltip=_tips(tips))
    line = alt.Chart(alt.Data(values=[{"size": record[size], "top1": record["top1"]} for record in front]))
    return (line.mark_line(interpolate="step-after", strokeDash=[4, 3]).encode(x=x, y=y) + points).properties(
        width="container", height=360
    )


def _tips(names: Sequence[str]) -> list[alt.Tooltip]:
    return [alt.Tooltip(field=name, type="nominal", title=name) for name in names]


def _figure_3(space: str) -> alt.TopLevelMixin:
    rows = [{space: value, "MB": size, "top5": share} for value, size, share in FIGURE_3[space]]
    x = alt.X("MB:Q", title="MB of float32 weights, as the paper prints it")
    y = alt.Y("top5:Q", title="top-5 on ImageNet", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    chart = (
        alt.Chart(alt.Data(values=rows)).mark_line(point=True).encode(x=x, y=y, tooltip=_tips([space, "MB", "top5"]))
    )
    return chart.properties(width="container", height=260)


def _parallel(complete: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> alt.TopLevelMixin:
    """One line per net through its point's values and its objectives; each axis spans its least to greatest value."""
    axes, records = [*complete[0]["point"], *objectives], [_flat(record) for record in complete]
    scales = {}
    for axis in axes:
        values = [record[axis] for record in records]
        kinds = sorted(set(map(str, values))) if any(isinstance(value, str) for value in values) else None
        numbers = [kinds.index(str(value)) for value in values] if kinds else values
        low, high = min(numbers), max(numbers)
        scales[axis] = [(number - low) / (high - low) if high > low else 0.5 for number in numbers]
    rows = [
        {
            "number": record["number"],
            "axis": axis,
            "place": scales[axis][index],
            "top1": record["top1"],
        }
        for index, record in enumerate(records)
        for axis in axes
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(opacity=0.6)
        .encode(
            x=alt.X(
                "axis:N", sort=axes, title=None, axis=alt.Axis(labelAngle=0), scale=alt.Scale(type="point", padding=0.3)
            ),
            y=alt.Y("place:Q", title="least to greatest", axis=alt.Axis(labels=False, ticks=False, grid=False)),
            detail="number:N",
            color=alt.Color("top1:Q", title="top-1", scale=alt.Scale(range="ramp"), legend=alt.Legend(format="%")),
            tooltip=_tips(["number", "top1"]),
        )
        .properties(width="container", height=300)
    )


def _importance_chart(importances: Mapping[str, float]) -> alt.TopLevelMixin:
    rows = [{"name": name, "share": share} for name, share in importances.items()]
    x = alt.X("share:Q", title="share", axis=alt.Axis(format="%"))
    chart = alt.Chart(alt.Data(values=rows)).mark_bar().encode(x=x, y=alt.Y("name:N", sort="-x", title=None))
    return chart.properties(width="container", height=28 * len(rows) + 20)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "point"} | dict(record["point"])


def _table(records: Sequence[Mapping[str, Any]]) -> Table:
    measured = [name for name in _COLUMNS if any(name in record for record in records)]
    columns = ("number", *records[0]["point"], *measured)
    rows = [[*map(_flat(record).get, columns), record.get("command", "")] for record in records]
    return Table((*columns, "command"), rows)
