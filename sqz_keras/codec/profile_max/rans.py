"""An entropy coder for whole arrays: range asymmetric numeral systems (rANS) in lanes that move in lockstep.

Symbol i of a call is in lane i modulo the number of lanes. A lane's state is in [2**16, 2**32), frequencies add up to
2**15, words have 16 bits. `Encoder` and `Decoder` have the same methods, so that one model drives both: the encoder
takes the symbols and returns them, the decoder returns those that it decodes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.errors import StreamError

PRECISION = 15
TOTAL = 1 << PRECISION  # the sum of the frequencies of a table
_MIN_STATE = 1 << 16


@dataclasses.dataclass(frozen=True)
class FrequencyTables:
    """Tables of cumulative frequencies, one after the other.

    Args:
        starts: Int32 (symbols of all tables + 1,): number of the table times 2**15, plus the frequencies before the
            symbol in its table. The last element is the number of tables times 2**15.
        first: Int64 (tables,), the index in `starts` of the first symbol of each table.
    """

    starts: np.ndarray
    first: np.ndarray


def frequency_tables(weights: np.ndarray, possible: np.ndarray, first: np.ndarray) -> FrequencyTables:
    """Turns weights into frequencies that add up to 2**15 in each table.

    Args:
        weights: Int64 (symbols of all tables,), with a sum below 2**46 in each table; 0 for impossible symbols.
        possible: Int64, 1 for each symbol that can occur, which gets a frequency of at least 1; else 0.
        first: Int64 (tables,), the index of the first symbol of each table.
    """
    sizes = np.diff(first, append=len(weights))
    before = np.cumsum(weights) - weights
    least = np.cumsum(possible) - possible
    total, room = np.add.reduceat(weights, first), TOTAL - np.add.reduceat(possible, first)
    before -= np.repeat(before[first], sizes)
    before *= np.repeat(room, sizes)
    before //= np.repeat(total, sizes)
    before += least + np.repeat((np.arange(len(first)) << PRECISION) - least[first], sizes)
    return FrequencyTables(np.append(before, len(first) << PRECISION).astype(np.int32), first)


def bit_intervals(zero_frequencies: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the begin and the frequency of bits.

    Args:
        zero_frequencies: Int64 (n,), the frequency of a 0 for each bit.
        bits: Bool (n,).
    """
    return np.where(bits, zero_frequencies, 0), np.where(bits, TOTAL - zero_frequencies, zero_frequencies)


def symbol_intervals(
    tables: FrequencyTables, table_of_symbol: np.ndarray, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the begin and the frequency of symbols in their tables.

    Args:
        tables: The tables.
        table_of_symbol: Int64 (n,), the number of the table of each symbol.
        symbols: Int64 (n,), the index of each symbol in its table.
    """
    index = tables.first[table_of_symbol] + symbols
    begin = tables.starts[index]
    return begin - (table_of_symbol << PRECISION), tables.starts[index + 1] - begin


def spent_bits(frequencies: np.ndarray) -> np.ndarray:
    """Returns the bits that the coder spends on symbols of these frequencies."""
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
            payload: At most 2 bytes per lane, stored at no cost in the states with which the lanes begin.
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
        self._state = np.frombuffer(data, "<u4", lanes).astype(np.uint32)
        if (self._state < _MIN_STATE).any():
            raise StreamError(f"The state of a lane is below {_MIN_STATE}", offset)
        words = np.frombuffer(data, "<u2", offset=4 * lanes).astype(np.uint32)
        self._words = np.concatenate([words, np.zeros(lanes, np.uint32)])  # room to read on, until `finish`
        self._word_count = len(words)
        self._next_word = 0

    def code_bits(self, zero_frequencies: np.ndarray, bits: None = None) -> np.ndarray:
        """Decodes bits.

        Args:
            zero_frequencies: Int64 (n,), the frequency of a 0 for each bit.
            bits: Only for the encoder.

        Returns:
            Bool (n,).
        """
        decoded = np.empty(len(zero_frequencies), bool)
        zeros = zero_frequencies.astype(np.uint32)
        ones = np.uint32(TOTAL) - zeros
        for at in range(0, len(zeros), len(self._state)):
            zero = zeros[at : at + len(self._state)]
            slot = self._state[: len(zero)] & np.uint32(TOTAL - 1)
            bit = decoded[at : at + len(zero)]
            np.greater_equal(slot, zero, out=bit)
            slot -= zero * bit
            self._advance(slot, np.where(bit, ones[at : at + len(zero)], zero))
        return decoded

    def code_symbols(self, tables: FrequencyTables, table_of_symbol: np.ndarray, symbols: None = None) -> np.ndarray:
        """Decodes symbols.

        Args:
            tables: The tables.
            table_of_symbol: Int64 (n,), the number of the table of each symbol.
            symbols: Only for the encoder.

        Returns:
            Int64 (n,), the index of each symbol in its table.
        """
        decoded = np.empty(len(table_of_symbol), np.int64)
        table_starts = (table_of_symbol << PRECISION).astype(np.uint32)
        starts = tables.starts.astype(np.uint32)
        for at in range(0, len(decoded), len(self._state)):
            table_start = table_starts[at : at + len(self._state)]
            slot = (self._state[: len(table_start)] & np.uint32(TOTAL - 1)) + table_start
            following = starts.searchsorted(slot, "right")
            begin = starts.take(following - 1)
            decoded[at : at + len(table_start)] = following
            self._advance(slot - begin, starts.take(following) - begin)
        return decoded - 1 - tables.first[table_of_symbol]

    def _advance(self, remainder: np.ndarray, frequency: np.ndarray) -> None:
        """Removes one symbol from each of the first lanes, and refills their states with words.

        Args:
            remainder: Uint32 (n,), the slot of the symbol less its begin.
            frequency: Uint32 (n,), the frequency of the symbol.
        """
        state = self._state[: len(remainder)]
        state >>= np.uint32(PRECISION)
        state *= frequency
        state += remainder
        (low,) = (state < _MIN_STATE).nonzero()
        if len(low):
            end = self._next_word + len(low)
            if end > self._word_count:
                raise StreamError("The coded stream ends too early", self._offset)
            state[low] = state[low] << np.uint32(16) | self._words[self._next_word : end]
            self._next_word = end

    def finish(self) -> bytes:
        """Returns the payload.

        Raises:
            StreamError: Words are left over, or a lane does not end in a state with which an encoder begins.
        """
        if self._next_word != self._word_count:
            left = self._word_count - self._next_word
            raise StreamError(f"{left} words of the coded stream are left over", self._offset)
        if (self._state >> np.uint32(16) != 1).any():
            raise StreamError("A lane of the coded stream does not end in an initial state", self._offset)
        return (self._state & np.uint32(0xFFFF)).astype("<u2").tobytes()
