"""The objectives by which nets are compared, and the nets that no other net beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The objectives of a search, and the direction in which each gets better, in Optuna's words.
OBJECTIVES = {"top1": "maximize", "bytes": "minimize", "latency": "minimize", "compressed_bytes": "minimize"}


def pareto_front(objectives: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records that no other record beats by being at least as good in every objective and better in one."""
    signs = [-1 if OBJECTIVES[name] == "maximize" else 1 for name in objectives]
    losses = [tuple(sign * record[name] for name, sign in zip(objectives, signs, strict=True)) for record in records]

    def beaten(loss):
        return any(other != loss and all(a <= b for a, b in zip(other, loss, strict=True)) for other in losses)

    return [record for record, loss in zip(records, losses, strict=True) if not beaten(loss)]
