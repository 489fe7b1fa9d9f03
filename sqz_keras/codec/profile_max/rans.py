"""An entropy coder for whole arrays: range asymmetric numeral systems (rANS) in lanes that move in lockstep.

Symbol i of a call is in lane i modulo the number of lanes. A lane's state is in [2**16, 2**32), frequencies add up to
2**15, words have 16 bits. `Encoder` and `Decoder` have the same methods, so that one model drives both: the encoder
takes the symbols and returns them, the decoder returns those that it decodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from sqz_keras.codec.errors import StreamError

PRECISION = 15
TOTAL = 1 << PRECISION  # the sum of the frequencies of a table
_MIN_STATE = 1 << 16
# The decoder's loops run thousands of times: these are made once.
_SLOT_MASK, _SLOT_BITS, _WORD_BITS, _REFILL_BELOW = (np.uint32(n) for n in (TOTAL - 1, PRECISION, 16, _MIN_STATE))


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


def frequency_tables(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> FrequencyTables:
    """Turns weights into frequencies that add up to 2**15 in each table.

    Args:
        blocks: Tables of the same symbols, block by block: int64 (tables, symbols) weights, with a sum below 2**46 in
            each table, 0 for impossible symbols; and int64 (symbols,), 1 for each symbol that can occur, which gets a
            frequency of at least 1, else 0.
    """
    starts, sizes, count = [], [], 0
    for weights, possible in blocks:
        before = np.cumsum(weights, axis=1)
        total = before[:, -1:].copy()
        before -= weights
        before *= TOTAL - possible.sum()
        before //= total
        before += np.cumsum(possible) - possible
        before += (np.arange(count, count + len(weights)) << PRECISION)[:, None]
        starts.append(before.astype(np.int32).ravel())
        sizes += [len(possible)] * len(weights)
        count += len(weights)
    starts.append(np.array([count << PRECISION], np.int32))
    return FrequencyTables(np.concatenate(starts), np.cumsum([0, *sizes[:-1]]))


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
        decoded, lanes = np.empty(len(zero_frequencies), bool), len(self._state)
        zeros = zero_frequencies.astype(np.uint32)
        ones = np.uint32(TOTAL) - zeros
        for at in range(0, len(zeros), lanes):
            zero, bit = zeros[at : at + lanes], decoded[at : at + lanes]
            slot = self._state[: len(zero)] & _SLOT_MASK
            np.greater_equal(slot, zero, out=bit)
            slot -= zero * bit
            self._advance(slot, np.where(bit, ones[at : at + lanes], zero))
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
        decoded, lanes = np.empty(len(table_of_symbol), np.int64), len(self._state)
        table_starts = (table_of_symbol << PRECISION).astype(np.uint32)
        starts = tables.starts.astype(np.uint32)
        blocks = np.arange(0, len(decoded), lanes)
        # Each search is among the tables from the first to the last one that its symbols have.
        first = tables.first[np.minimum.reduceat(table_of_symbol, blocks)].tolist()
        last = np.append(tables.first, len(starts) - 1)[np.maximum.reduceat(table_of_symbol, blocks) + 1].tolist()
        for at, begin_search, end_search in zip(blocks.tolist(), first, last, strict=True):
            table_start = table_starts[at : at + lanes]
            slot = self._state[: len(table_start)] & _SLOT_MASK
            slot += table_start
            among = starts[begin_search : end_search + 1]
            following = among.searchsorted(slot, "right")
            begin, end = among.take(following - 1), among.take(following)
            np.add(following, begin_search - 1, out=decoded[at : at + lanes])
            slot -= begin
            end -= begin
            self._advance(slot, end)
        return decoded - tables.first[table_of_symbol]

    def _advance(self, remainder: np.ndarray, frequency: np.ndarray) -> None:
        """Removes one symbol from each of the first lanes, and refills their states with words.

        Args:
            remainder: Uint32 (n,), the slot of the symbol less its begin.
            frequency: Uint32 (n,), the frequency of the symbol.
        """
        state = self._state[: len(remainder)]
        state >>= _SLOT_BITS
        state *= frequency
        state += remainder
        (low,) = (state < _REFILL_BELOW).nonzero()
        if not len(low):
            return
        start = self._next_word
        self._next_word += len(low)
        if self._next_word > self._word_count:
            raise StreamError("The coded stream ends too early", self._offset)
        refilled = state.take(low)
        refilled <<= _WORD_BITS
        refilled |= self._words[start : self._next_word]
        state[low] = refilled

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
