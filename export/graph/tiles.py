"""Tiles: the rows of the feature maps, divided between two chains of operations, so that two threads share an image.

A tile keeps its rows from conv1 to the sums after conv10. The 3x3 windows need one row from the neighbouring tile, with
only the few channels that a fire module squeezes to. Max pools need none, since tiles overlap by the rows both need.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import tensorflow as tf

_TILES = 2
_LEAST_ROWS = 4  # of a tile in the last map; in smaller maps, too large a part of the tiles would overlap


@dataclasses.dataclass(frozen=True)
class Stage:
    """The feature maps between two max pools.

    Args:
        size: Height of these maps, in pixels.
        rows: The first row of each tile, and the row after its last, from the top.
    """

    size: int
    rows: tuple[tuple[int, int], ...]

    def borders(self) -> list[tuple[bool, bool]]:
        """Whether each tile is at the top of the map, and at its bottom."""
        return [(start == 0, end == self.size) for start, end in self.rows]

    def with_neighbours(self, tiles: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Every tile (N, rows, W, channels) with the row above and the row below it, if the map has them."""
        extended = []
        for at, (start, end) in enumerate(self.rows):
            parts = [tiles[at]]
            if start > 0:
                above = start - 1 - self.rows[at - 1][0]
                parts.insert(0, tiles[at - 1][:, above : above + 1])
            if end < self.size:
                below = end - self.rows[at + 1][0]
                parts.append(tiles[at + 1][:, below : below + 1])
            extended.append(tf.concat(parts, 1) if len(parts) > 1 else parts[0])
        return extended


def divide(sizes: Sequence[int]) -> list[Stage]:
    """The stages of a network whose maps have heights `sizes`, from conv1 to conv10; each is pooled to the next."""
    tiles = _TILES if sizes[-1] >= _TILES * _LEAST_ROWS else 1
    cuts = [sizes[-1] * tile // tiles for tile in range(tiles + 1)]
    stages = [Stage(sizes[-1], tuple(itertools.pairwise(cuts)))]
    for size in reversed(sizes[:-1]):
        # Row i of a pooled map comes from the rows 2i, 2i + 1 and, if there is one, 2i + 2.
        rows = tuple((2 * start, min(2 * end + 1, size)) for start, end in stages[0].rows)
        stages.insert(0, Stage(size, rows))
    return stages
