"""The byte planes in the profile `max`: the mode in which each is stored, and the coding of a plane in its mode."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from sqz_keras.codec.cursor import Cursor
from sqz_keras.codec.entropy import entropy_bits
from sqz_keras.codec.errors import TableError
from sqz_keras.codec.planes import CODED, FLOAT_PLANES, MODELLED, RAW
from sqz_keras.codec.profile_max.float_planes import BITMAP_SIZE, FloatPlanes, from_bitmap, to_bitmap
from sqz_keras.codec.profile_max.rans import Decoder, Encoder, frequency_tables, spent_bits, symbol_intervals
from sqz_keras.codec.profile_max.scan_order import BATCH_ELEMENTS, scan_plane


@dataclasses.dataclass(frozen=True)
class PlaneModes:
    """How the planes are stored.

    Args:
        modes: `RAW`, `CODED` or `MODELLED` for each plane.
        used: For each modelled plane, by number: int64, the bytes that occur in it, in ascending order.
    """

    modes: list[int]
    used: dict[int, np.ndarray]

    @property
    def version(self) -> int:
        """The lowest version of the format that has these modes."""
        return 2 if self.used else 1


def choose_modes(planes: Sequence[np.ndarray], floats: FloatPlanes) -> PlaneModes:
    """Chooses the modes of version 1, or the modes of version 2 if modelling makes a plane smaller.

    Args:
        planes: Uint8 (n,), the eight planes.
        floats: The coder of the planes of floats.
    """
    modes = [_choose_mode(plane) for plane in planes]
    best = list(modes)
    for number in range(FLOAT_PLANES if floats.can_be_modelled else 0):
        sizes = [plane_bits(planes, floats, mode, number) for mode in (RAW, CODED)]
        if not _needs_exponents(number) or best[0] != RAW:
            sizes.append(plane_bits(planes, floats, MODELLED, number) + 8 * BITMAP_SIZE)
        best[number] = int(np.argmin(sizes))
    return modelled(planes, best if MODELLED in best else modes)


def modelled(planes: Sequence[np.ndarray], modes: list[int]) -> PlaneModes:
    """Returns the modes together with the bytes that occur in the modelled planes."""
    numbers = [number for number, mode in enumerate(modes) if mode == MODELLED]
    return PlaneModes(modes, {number: _used_bytes(planes[number]) for number in numbers})


def modes_to_bytes(planes: Sequence[np.ndarray], modes: PlaneModes) -> bytes:
    """Encodes the modes as they are stored in the file."""
    return bytes(modes.modes) + b"".join(to_bitmap(planes[number]) for number in modes.used)


def read_modes(table: Cursor, floats: FloatPlanes, count: int, version: int) -> PlaneModes:
    """Reads the modes of all planes.

    Args:
        table: Cursor at the modes.
        floats: The coder of the planes of floats.
        count: Number of planes.
        version: Version of the file.

    Raises:
        TableError: A mode does not exist, or is not allowed here.
    """
    start, modes = table.offset, list(table.take(count))
    highest = [MODELLED if version > 1 and number < FLOAT_PLANES else CODED for number in range(count)]
    if any(mode > limit for mode, limit in zip(modes, highest, strict=True)):
        raise TableError("A flag is neither 0 nor 1", start)
    used = {}
    for number in [number for number, mode in enumerate(modes) if mode == MODELLED]:
        if not floats.can_be_modelled or (_needs_exponents(number) and modes[0] == RAW):
            raise TableError(f"Plane {number} cannot be modelled: no floats, too many, or no coded exponents", start)
        used[number] = from_bitmap(table.take(BITMAP_SIZE))
        if len(used[number]) == 0:
            raise TableError(f"No byte is declared to occur in plane {number}", start)
    return PlaneModes(modes, used)


def read_planes(
    decoder: Decoder, modes: PlaneModes, sizes: Sequence[int], floats: FloatPlanes, offset: int
) -> list[np.ndarray | None]:
    """Decodes the planes that are not raw; the result has None for each raw plane.

    Raises:
        TableError: A byte is declared to occur in a plane, but does not.
    """
    planes: list[np.ndarray | None] = []
    for number, (mode, size) in enumerate(zip(modes.modes, sizes, strict=True)):
        if mode == MODELLED:
            exponents = planes[0] if _needs_exponents(number) else None
            planes.append(floats.code(decoder, number, modes.used[number], exponents))
            if np.count_nonzero(np.bincount(planes[number])) != len(modes.used[number]):
                raise TableError(f"A byte is declared to occur in plane {number}, and does not", offset)
        else:
            planes.append(code_plane(decoder, size) if mode == CODED else None)
    return planes


def write_planes(encoder: Encoder, modes: PlaneModes, planes: Sequence[np.ndarray], floats: FloatPlanes) -> None:
    """Encodes the planes that are not raw."""
    for number, mode in enumerate(modes.modes):
        _encode(encoder, planes, floats, mode, number, None)


def plane_bits(planes: Sequence[np.ndarray], floats: FloatPlanes, mode: int, number: int) -> float:
    """Returns the bits that a plane takes in the given mode, without the bits of its bitmap."""
    if mode == RAW:
        return 8.0 * len(planes[number])
    bits = np.zeros(1)
    _encode(Encoder(), planes, floats, mode, number, bits)
    return float(bits[0])


def _encode(
    encoder: Encoder,
    planes: Sequence[np.ndarray],
    floats: FloatPlanes,
    mode: int,
    number: int,
    spent: np.ndarray | None,
) -> None:
    """Encodes a plane, unless it is raw, and adds its bits to `spent`."""
    plane = planes[number]
    if mode == CODED:
        code_plane(encoder, len(plane), plane, spent)
    elif mode == MODELLED:
        floats.code(encoder, number, _used_bytes(plane), planes[0], plane, spent)


def _used_bytes(plane: np.ndarray) -> np.ndarray:
    """The bytes that occur in a plane, in ascending order."""
    return np.flatnonzero(np.bincount(plane))


def _needs_exponents(number: int) -> bool:
    """Whether the model of a plane takes its contexts from plane 0."""
    return number in (1, 2)


def _choose_mode(plane: np.ndarray) -> int:
    """Returns `CODED` if a plane's entropy says that the model of version 1 makes it smaller, else `RAW`."""
    counts = np.bincount(plane, minlength=256)
    return CODED if entropy_bits(counts) + 6 * np.count_nonzero(counts) + 64 < 8 * len(plane) else RAW


def code_plane(
    coder: Encoder | Decoder, size: int, bytes_to_encode: np.ndarray | None = None, spent: np.ndarray | None = None
) -> np.ndarray:
    """Codes a plane of bytes by the counts of the bytes coded so far.

    Args:
        coder: An encoder or a decoder.
        size: Number of bytes.
        bytes_to_encode: Uint8 (size,), the plane, for an encoder.
        spent: Float64 (1,), to which the bits of the plane are added, for an encoder.

    Returns:
        Uint8 (size,), the plane.
    """
    encoding = bytes_to_encode is not None
    plane = bytes_to_encode if encoding else np.zeros(size, np.uint8)
    counts = np.zeros(256, np.int64)
    for start in range(0, size, BATCH_ELEMENTS):
        part = plane[start : start + BATCH_ELEMENTS]
        order, bounds = scan_plane(len(part))
        for begin, end in itertools.pairwise(bounds):
            elements = order[begin:end]
            tables = frequency_tables([((counts << 10)[None] + 64, np.arange(1, 257))])
            table_of_element = np.zeros(len(elements), np.int64)
            symbols_to_encode = part[elements].astype(np.int64) if encoding else None
            symbols = coder.code_symbols(tables, table_of_element, symbols_to_encode)
            if spent is not None:
                spent += spent_bits(symbol_intervals(tables, table_of_element, symbols)[1]).sum()
            counts += np.bincount(symbols, minlength=256)
            part[elements] = symbols
    return plane
