"""An entropy coder for whole arrays: range asymmetric numeral systems (rANS) in lanes that move in lockstep.

Symbol i of a call is in lane i modulo the number of lanes. A lane's state is in [2**16, 2**32), frequencies add up to
2**15, words have 16 bits. `Encoder` and `Decoder` have the same methods, so that one model drives both: the encoder
takes the symbols and returns them, the decoder returns the symbols that it decodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from sqz_keras.codec.errors import StreamError

PRECISION = 15
TOTAL = 1 << PRECISION  # the sum of the frequencies of a table
_MIN_STATE = 1 << 16
# The decoder's loops run thousands of times, so these are made once, and as arrays, which are faster than scalars.
_SLOT_MASK, _SLOT_BITS, _REFILL_BELOW = (np.array(n, np.uint32) for n in (TOTAL - 1, PRECISION, _MIN_STATE))


@dataclasses.dataclass(frozen=True)
class FrequencyTables:
    """Tables of cumulative frequencies, one after the other.

    Args:
        starts: Uint32 (symbols of all tables + 1,): index of the table times 2**15, plus the sum of the frequencies
            before the symbol in its table. The last element is the number of tables times 2**15.
        first: Int64 (tables,), the index in `starts` of the first symbol of each table.
    """

    starts: np.ndarray
    first: np.ndarray


def frequency_tables(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> FrequencyTables:
    """Turns weights into frequencies that add up to 2**15 in each table.

    Args:
        blocks: Blocks of tables with the same symbols. A block is int64 (tables, symbols) weights, with a sum below
            2**46 in each table and 0 for impossible symbols; and int64 (symbols,), how many symbols up to and
            including each one can occur. Symbols that can occur get a frequency of at least 1.
    """
    starts, sizes = [np.zeros(1, np.uint32)], []
    for weights, reserved in blocks:
        ends = np.cumsum(weights, axis=1)  # a symbol ends where the next one starts
        total = ends[:, -1:].copy()
        ends *= TOTAL - reserved[-1]
        ends //= total
        ends += reserved
        starts.append(ends.astype(np.uint32).ravel())
        sizes += [len(reserved)] * len(weights)
    joined = np.concatenate(starts)
    joined[1:] += np.repeat(np.arange(len(sizes), dtype=np.uint32) << _SLOT_BITS, sizes)
    return FrequencyTables(joined, np.cumsum([0, *sizes[:-1]]))


def bit_intervals(zero_frequencies: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the interval of each bit begins, and its frequency.

    Args:
        zero_frequencies: Int64 (n,), the frequency of a 0 for each bit.
        bits: Bool (n,).
    """
    return np.where(bits, zero_frequencies, 0), np.where(bits, TOTAL - zero_frequencies, zero_frequencies)


def symbol_intervals(
    tables: FrequencyTables, table_of_symbol: np.ndarray, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the interval of each symbol begins in its table, and its frequency.

    Args:
        tables: The tables.
        table_of_symbol: Int64 (n,), the number of the table of each symbol.
        symbols: Int64 (n,), the index of each symbol in its table.
    """
    index = tables.first[table_of_symbol] + symbols
    begin = tables.starts[index]
    return begin - (table_of_symbol << PRECISION), tables.starts[index + 1] - begin


def spent_bits(frequencies: np.ndarray) -> np.ndarray:
    """Returns the bits that the coder spends on symbols with these frequencies."""
    return PRECISION - np.log2(frequencies)


class Encoder:
    """Collects symbols with their frequencies, and encodes them at the end, last symbol first."""

    def __init__(self):
        self._calls: list[tuple[np.ndarray, np.ndarray]] = []

    def code_bits(self, zero_frequencies: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Encodes bits and returns them; the arguments are those of `bit_intervals`."""
        self._calls.append(bit_intervals(zero_frequencies, bits))
        return bits

    def code_symbols(self, tables: FrequencyTables, table_of_symbol: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Encodes symbols and returns them; the arguments are those of `symbol_intervals`."""
        self._calls.append(symbol_intervals(tables, table_of_symbol, symbols))
        return symbols

    def finish(self, lanes: int, payload: bytes) -> bytes:
        """Builds the stream: the lanes' last states, then all words in the order in which the decoder reads them.

        Args:
            lanes: Number of lanes.
            payload: At most 2 bytes per lane, stored at no cost in the lanes' initial states.
        """
        initial = np.frombuffer(payload.ljust(2 * lanes, b"\0"), "<u2")
        state = initial.astype(np.uint64) + np.uint64(_MIN_STATE)
        words = []
        for begins, frequencies in reversed(self._calls):
            begins, frequencies = begins.astype(np.uint64), frequencies.astype(np.uint64)
            for at in range((len(begins) - 1) // lanes * lanes, -1, -lanes):
                begin, frequency = begins[at : at + lanes], frequencies[at : at + lanes]
                active = state[: len(begin)]
                full = active >= frequency << np.uint64(32 - PRECISION)
                words.append(active[full].astype("<u2")[::-1])
                active[full] >>= np.uint64(16)
                quotient = active // frequency
                active[:] = (quotient << np.uint64(PRECISION)) + (active - quotient * frequency) + begin
        reversed_words = np.concatenate([np.zeros(0, "<u2"), *words])[::-1]
        return state.astype("<u4").tobytes() + reversed_words.astype("<u2").tobytes()


class Decoder:
    """Decodes what `Encoder.finish` returned.

    Args:
        data: The stream.
        lanes: Number of lanes.
        offset: Position of the stream in the file, for errors.

    Raises:
        StreamError: The stream is too short for its lanes, or a state is out of range.
    """

    def __init__(self, data: bytes, lanes: int, offset: int):
        if len(data) < 4 * lanes or len(data) % 2:
            raise StreamError(f"A stream of {lanes} lanes cannot have {len(data)} bytes", offset)
        self._offset = offset
        self._state = np.frombuffer(data, "<u4", lanes).copy()
        self._low_half, self._high_half = self._state.view("<u2").reshape(lanes, 2).T
        if (self._state < _MIN_STATE).any():
            raise StreamError(f"The state of a lane is below {_MIN_STATE}", offset)
        self._words = np.frombuffer(data, "<u2", offset=4 * lanes)
        self._next_word = 0

    def code_bits(self, zero_frequencies: np.ndarray, bits: None = None) -> np.ndarray:
        """Decodes bits.

        Args:
            zero_frequencies: Int64 (n,), the frequency of a 0 for each bit.
            bits: Only for the encoder.

        Returns:
            Bool (n,).
        """
        state, zeros = self._state, self._in_steps(zero_frequencies, TOTAL)
        is_zero = np.empty(zeros.shape, bool)
        for zero, zero_flags in zip(zeros, is_zero, strict=True):
            state_of_zero = state & _SLOT_MASK
            np.less(state_of_zero, zero, out=zero_flags)
            product = state >> _SLOT_BITS
            product *= zero
            state_of_zero += product
            product += zero
            state -= product  # (TOTAL - zero) * (state >> 15) + slot - zero
            np.copyto(state, state_of_zero, where=zero_flags)
            self._refill()
        return ~is_zero.ravel()[: len(zero_frequencies)]

    def code_symbols(self, tables: FrequencyTables, table_of_symbol: np.ndarray, symbols: None = None) -> np.ndarray:
        """Decodes symbols.

        Args:
            tables: The tables.
            table_of_symbol: Int64 (n,), the number of the table of each symbol.
            symbols: Only for the encoder.

        Returns:
            Int64 (n,), the index of each symbol in its table.
        """
        state, table_count = self._state, len(tables.first)
        # Lanes without a symbol in the last step get a table with one symbol.
        table = self._in_steps(table_of_symbol, table_count)
        starts = np.append(tables.starts, np.uint32((table_count + 1) << PRECISION))
        bounds = np.append(tables.first, [len(starts) - 2, len(starts) - 1])
        # Each search covers only the tables from the first to the last one that the symbols of its step use.
        first, last = bounds[table.min(axis=1)], bounds[table.max(axis=1) + 1]
        decoded = np.empty(table.shape, np.int64)
        table <<= _SLOT_BITS
        for table_start, begin, end, index in zip(table, first.tolist(), last.tolist(), decoded, strict=True):
            slot = state & _SLOT_MASK
            slot += table_start
            ends = starts[begin + 1 : end + 1]
            index[...] = ends.searchsorted(slot, "right")
            symbol_start = starts[begin:end].take(index)
            slot -= symbol_start
            frequency = ends.take(index)
            frequency -= symbol_start
            state >>= _SLOT_BITS
            state *= frequency
            state += slot
            self._refill()
        decoded += first[:, None]
        return decoded.ravel()[: len(table_of_symbol)] - tables.first[table_of_symbol]

    def _in_steps(self, values: np.ndarray, filler: int) -> np.ndarray:
        """Returns uint32 (steps, lanes): the value of each symbol of a call, and `filler` in lanes without a symbol.

        A filler stands for a symbol with the frequency `TOTAL`, which does not change a state.
        """
        lanes = len(self._state)
        steps = np.full((-(-len(values) // lanes), lanes), filler, np.uint32)
        steps.ravel()[: len(values)] = values
        return steps

    def _refill(self) -> None:
        """Refills states that are too small with words of the stream."""
        (lanes,) = (self._state < _REFILL_BELOW).nonzero()
        if len(lanes):
            start, self._next_word = self._next_word, self._next_word + len(lanes)
            if self._next_word > len(self._words):
                raise StreamError("The coded stream ends too early", self._offset)
            self._high_half[lanes] = self._low_half[lanes]
            self._low_half[lanes] = self._words[start : self._next_word]

    def finish(self) -> bytes:
        """Returns the payload.

        Raises:
            StreamError: Words are left over, or a lane does not end in an initial state of an encoder.
        """
        if self._next_word != len(self._words):
            left = len(self._words) - self._next_word
            raise StreamError(f"{left} words of the coded stream are left over", self._offset)
        if (self._high_half != 1).any():
            raise StreamError("A lane of the coded stream does not end in an initial state", self._offset)
        return self._low_half.tobytes()
