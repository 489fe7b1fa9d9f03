"""A range coder over whole arrays: asymmetric numeral systems in lanes that move in lockstep.

Symbol i of a call goes to lane i modulo the number of lanes. A lane's state lies in [2**16, 2**32); frequencies add up
to 2**15; words have 16 bits. `Encoder` and `Decoder` have the same methods, so that one model drives both: the encoder
is told the symbols and gives them back, the decoder finds them.
"""

from __future__ import annotations

import numpy as np

from sqz_keras.codec.errors import StreamError

PRECISION = 15
TOTAL = 1 << PRECISION
_LOW = 1 << 16


def cumulative(weights: np.ndarray, valid: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Where each symbol's frequencies begin, for tables that stand one behind the other.

    Args:
        weights: int64, below 2**46 in sum for each table; 0 where `valid` is.
        valid: 1 for each symbol that can occur, which gets a frequency of at least 1; else 0.
        first: index at which each table begins.

    Returns:
        int32, one more than `weights`: table number times 2**15, plus the frequencies before the symbol.
    """
    sizes = np.diff(first, append=len(weights))
    before = np.cumsum(weights) - weights
    least = np.cumsum(valid) - valid
    total, room = np.add.reduceat(weights, first), TOTAL - np.add.reduceat(valid, first)
    before -= np.repeat(before[first], sizes)
    before *= np.repeat(room, sizes)
    before //= np.repeat(total, sizes)
    before += least + np.repeat((np.arange(len(first)) << PRECISION) - least[first], sizes)
    return np.append(before, len(first) << PRECISION).astype(np.int32)


class Encoder:
    """Collects symbols with their frequencies, and writes them at the end, last symbol first."""

    def __init__(self):
        self._calls: list[tuple[np.ndarray, np.ndarray]] = []

    def spent(self) -> np.ndarray:
        """Bits that each symbol of the last call takes."""
        return PRECISION - np.log2(self._calls[-1][1])

    def bits(self, zeros: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes bits, of which each is 0 at the frequency `zeros`."""
        self._calls.append((np.where(known, zeros, 0), np.where(known, TOTAL - zeros, zeros)))
        return known

    def symbols(self, starts: np.ndarray, tables: np.ndarray, first: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes symbols, each by its own table.

        Args:
            starts: int32, the tables one behind the other: table number times 2**15, plus where the symbol's
                frequencies begin; at the end, number of tables times 2**15.
            tables: the table of each symbol.
            first: index in `starts` at which each symbol's table begins.
            known: index of each symbol in its table.
        """
        at = first[tables] + known
        begin = starts[at]
        self._calls.append((begin - (tables << PRECISION), starts[at + 1] - begin))
        return known

    def finish(self, lanes: int, payload: bytes) -> bytes:
        """The stream: the lanes' last states, then all words in the order in which the decoder reads them.

        Args:
            lanes: number of lanes.
            payload: at most two bytes a lane, carried for nothing in the states with which the lanes begin.
        """
        carried = np.frombuffer(payload.ljust(2 * lanes, b"\0"), "<u2")
        state = carried.astype(np.uint64) + np.uint64(_LOW)
        words = []
        for begin, frequency in reversed(self._calls):
            begin, frequency = begin.astype(np.uint64), frequency.astype(np.uint64)
            for at in range((len(begin) - 1) // lanes * lanes, -1, -lanes):
                start, width = begin[at : at + lanes], frequency[at : at + lanes]
                active = state[: len(start)]
                full = active >= width << np.uint64(32 - PRECISION)
                words.append(active[full].astype("<u2")[::-1])
                active[full] >>= np.uint64(16)
                quotient = active // width
                active[:] = (quotient << np.uint64(PRECISION)) + (active - quotient * width) + start
        tail = np.concatenate([np.zeros(0, "<u2"), *words])[::-1]
        return state.astype("<u4").tobytes() + tail.astype("<u2").tobytes()


class Decoder:
    """Reads what `Encoder.finish` wrote.

    Args:
        data: the stream.
        lanes: number of lanes.
        offset: where the stream lies in the file, for errors.
    """

    def __init__(self, data: bytes, lanes: int, offset: int):
        if len(data) < 4 * lanes or len(data) % 2:
            raise StreamError(f"{len(data)} bytes are no stream of {lanes} lanes", offset)
        self._offset = offset
        self._state = np.frombuffer(data, "<u4", lanes).astype(np.uint32)
        if (self._state < _LOW).any():
            raise StreamError("A lane begins below the least state", offset)
        words = np.frombuffer(data, "<u2", offset=4 * lanes).astype(np.uint32)
        self._words = np.concatenate([words, np.zeros(lanes, np.uint32)])  # as if it went on, until `finish`
        self._count = len(words)
        self._at = 0

    def bits(self, zeros: np.ndarray, known: None = None) -> np.ndarray:
        """bool: the bits that are 0 at the frequencies `zeros`."""
        found = np.empty(len(zeros), bool)
        ends = zeros.astype(np.uint32)
        others = np.uint32(TOTAL) - ends
        for at in range(0, len(zeros), len(self._state)):
            zero = ends[at : at + len(self._state)]
            slot = self._state[: len(zero)] & np.uint32(TOTAL - 1)
            bit = found[at : at + len(zero)]
            np.greater_equal(slot, zero, out=bit)
            slot -= zero * bit
            self._advance(slot, np.where(bit, others[at : at + len(zero)], zero))
        return found

    def symbols(self, starts: np.ndarray, tables: np.ndarray, first: np.ndarray, known: None = None) -> np.ndarray:
        """int64: the symbols; the arguments are those of the encoder."""
        found = np.empty(len(tables), np.int64)
        bases = (tables << PRECISION).astype(np.uint32)
        ends = starts.astype(np.uint32)
        for at in range(0, len(tables), len(self._state)):
            base = bases[at : at + len(self._state)]
            slot = (self._state[: len(base)] & np.uint32(TOTAL - 1)) + base
            place = ends.searchsorted(slot, "right")
            begin = ends.take(place - 1)
            found[at : at + len(base)] = place
            self._advance(slot - begin, ends.take(place) - begin)
        return found - 1 - first[tables]

    def _advance(self, rest: np.ndarray, width: np.ndarray) -> None:
        """Takes one symbol of the frequency `width` off the first lanes, and fills them up."""
        state = self._state[: len(rest)]
        state >>= np.uint32(PRECISION)
        state *= width
        state += rest
        (short,) = (state < _LOW).nonzero()
        if len(short):
            end = self._at + len(short)
            if end > self._count:
                raise StreamError("The coded stream ends too early", self._offset)
            state[short] = state[short] << np.uint32(16) | self._words[self._at : end]
            self._at = end

    def finish(self) -> bytes:
        """The payload; refuses a stream that does not end here as it began."""
        if self._at != self._count:
            raise StreamError(f"{self._count - self._at} words of the coded stream are left over", self._offset)
        if (self._state >> np.uint32(16) != 1).any():
            raise StreamError("A lane of the coded stream does not end in a state in which one begins", self._offset)
        return (self._state & np.uint32(0xFFFF)).astype("<u2").tobytes()
