"""The tables that sqz-sweep prints: a grid's nets before training, and the best nets after it."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution

from sqz_keras.architecture.spec import ModelSpec
from trainers.evaluation.objectives import pareto_front
from trainers.search.point import describe_net
from trainers.search.space import Space

_HEADS = ("parameters", "MiB", "as ls -lh", "MACs", "activations MiB", "field")


def dry_run_lines(space: Space, model: ModelSpec) -> Iterator[str]:
    """A table of the grid's nets, or the bounds of the space if a dimension has no steps."""
    names = list(space.dimensions)
    yield f"{space.name}, on v1.0 at {model.input_size} pixels with {model.classes} classes"
    try:
        points = list(space.grid())
    except ValueError as error:
        yield f"{error} What varies:"
        for name, dimension in space.dimensions.items():
            if isinstance(dimension, CategoricalDistribution):
                yield f"  {name}: {', '.join(map(str, dimension.choices))}"
            else:
                yield f"  {name}: {dimension.low} to {dimension.high}"
        return
    yield "  ".join([*(name.rjust(max(8, len(name))) for name in names), *(head.rjust(15) for head in _HEADS)])
    for point in points:
        cells = [str(point[name]).rjust(max(8, len(name))) for name in names]
        try:
            net = describe_net(space.spec(model, point))
        except ValueError as error:
            yield "  ".join([*cells, f"no network: {error}"])
            continue
        numbers = (
            f"{net['parameters']:,}",
            f"{net['mebibytes']:.2f}",
            listed_size(net["bytes"]),
            f"{net['multiply_accumulates'] / 1e6:.1f}M",
            f"{net['peak_activation_bytes'] / 2**20:.2f}",
            str(net["receptive_field"]),
        )
        yield "  ".join([*cells, *(number.rjust(15) for number in numbers)])


def listed_size(size: int) -> str:
    """Bytes as in `ls -lh` and the paper's figures: KiB or MiB, rounded up, with one decimal below 10."""
    unit, value = ("K", size / 2**10) if size <= 1023 * 2**10 else ("M", size / 2**20)
    return f"{math.ceil(value)}{unit}" if value > 9.9 else f"{math.ceil(10 * value) / 10:.1f}{unit}"


def best_lines(objectives: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The best net, or the Pareto front of several objectives; each net with the command that trains it again."""
    complete = [record for record in records if record["state"] == "complete"]
    front = pareto_front(objectives, complete)
    counts = collections.Counter(record["state"] for record in records)
    yield (
        f"{counts['complete']} networks trained, {counts['pruned']} ended early, {counts['invalid']} points without a "
        "network; the best:"
    )
    for record in sorted(front, key=lambda record: record["bytes"]):
        values = ", ".join(f"{name} {record[name]:,}" for name in objectives)
        yield f"  {values}, test top-1 {record['test_top1']:.3f}: {record['command']}"
