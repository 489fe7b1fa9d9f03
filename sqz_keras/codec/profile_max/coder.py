"""The profile `max`: an adaptive model of zeros, codes and bytes, and one entropy coder for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sqz_keras.codec.cursor import Cursor
from sqz_keras.codec.errors import PaddingError, TableError
from sqz_keras.codec.profile_max.rans import Decoder, Encoder, cumulative
from sqz_keras.codec.profile_max.scan_order import places, rounds
from sqz_keras.codec.profile_max.value_model import ValueModel
from sqz_keras.codec.profile_max.zero_model import MaskModel
from sqz_keras.codec.types import Bits, Codes, Decoded, Shape

_BATCH_ELEMENTS = 1 << 22
_BATCH_CODES = 1 << 14
_BATCH_ARRAYS = 1 << 10
_MIXED, _DENSE = 0, 1  # arrays with zeros, arrays without
_RAW, _CODED = 0, 1  # planes


def write(arrays: Sequence[Codes], planes: Sequence[np.ndarray], steps: bytes) -> tuple[bytes, bytes, bytes]:
    """The profile's part of the table of arrays, the raw bytes, and the coded stream."""
    coder, forms, modes = Encoder(), _forms(arrays), [_mode(plane) for plane in planes]
    coded = [array for array in arrays if array.shape.coded]
    _run(coder, [array.shape for array in coded], forms, [array.flat for array in coded])
    for plane, mode in zip(planes, modes, strict=True):
        if mode == _CODED:
            _plane(coder, len(plane), plane)
    raw = steps + b"".join(plane.tobytes() for plane, mode in zip(planes, modes, strict=True) if mode == _RAW)
    lanes = _lanes([array.shape for array in coded], [len(plane) for plane in planes], modes, len(steps))
    return bytes([*forms, *modes]), raw[2 * lanes :], coder.finish(lanes, raw[: 2 * lanes])


def _lanes(coded: Sequence[Shape], plane_sizes: Sequence[int], modes: Sequence[int], step_bytes: int) -> int:
    """Number of lanes: few where their states would be most of the file, more where raw bytes fill them."""
    symbols = sum(shape.size for shape in coded)
    symbols += sum(size for size, mode in zip(plane_sizes, modes, strict=True) if mode == _CODED)
    raw = step_bytes + sum(size for size, mode in zip(plane_sizes, modes, strict=True) if mode == _RAW)
    return 1 << min(9 if raw >= 1024 else 8, (symbols // 1024).bit_length())


def measure(arrays: Sequence[Codes], planes: Sequence[np.ndarray]) -> Bits:
    """What `write` spends on each array and plane."""
    coder, meter = Encoder(), np.zeros((2, sum(array.shape.coded for array in arrays)))
    coded = [array for array in arrays if array.shape.coded]
    _run(coder, [array.shape for array in coded], _forms(arrays), [array.flat for array in coded], meter)
    spent = iter(meter.T.tolist())
    pairs = [next(spent) if array.shape.coded else (0.0, 0.0) for array in arrays]
    plane_bits = []
    for plane in planes:
        meter = np.zeros(1)
        if _mode(plane) == _CODED:
            _plane(coder, len(plane), plane, meter)
        plane_bits.append(float(meter[0]) if _mode(plane) == _CODED else 8.0 * len(plane))
    return Bits([codes for _, codes in pairs], [positions for positions, _ in pairs], plane_bits)


def read(
    table: Cursor, raw: Cursor, stream: Cursor, shapes: Sequence[Shape], plane_sizes: Sequence[int], step_bytes: int
) -> Decoded:
    """What `write` was given; the arguments are those of `paper.read`."""
    start, offset = table.offset, stream.offset
    coded = [shape for shape in shapes if shape.coded]
    forms, modes = list(table.take(len(coded))), list(table.take(len(plane_sizes)))
    if max([*forms, *modes]) > 1:
        raise TableError("A flag that is neither 0 nor 1", start)
    table.finish()
    coder = Decoder(stream.rest(), _lanes(coded, plane_sizes, modes, step_bytes), offset)
    found = iter(_run(coder, coded, forms))
    codes = [next(found) if shape.coded else np.zeros(shape.size, np.int16) for shape in shapes]
    planes = [_plane(coder, size) if mode else None for size, mode in zip(plane_sizes, modes, strict=True)]
    sizes = [step_bytes, *(size for size, mode in zip(plane_sizes, modes, strict=True) if mode == _RAW)]
    steps, *rest = _raw_parts(coder.finish(), raw, sizes, offset)
    full = [each.all() for each, shape in zip(codes, shapes, strict=True) if shape.coded]
    if any(dense and form == _MIXED for dense, form in zip(full, forms, strict=True)):
        raise TableError("An array without zeros is declared to have some", start)
    parts = iter(rest)
    return Decoded(codes, [next(parts) if plane is None else plane for plane in planes], steps.tobytes())


def _forms(arrays: Sequence[Codes]) -> list[int]:
    return [_DENSE if array.flat.all() else _MIXED for array in arrays if array.shape.coded]


def _raw_parts(payload: bytes, raw: Cursor, sizes: list[int], offset: int) -> list[np.ndarray]:
    """The raw bytes, split: they begin in the states of the coder's lanes and go on in their own section."""
    total = sum(sizes)
    joined = payload[:total] + raw.take(max(total - len(payload), 0))
    raw.finish()
    if any(payload[total:]):
        raise PaddingError("The states in which the lanes begin carry more than there is", offset)
    return np.split(np.frombuffer(joined, np.uint8), np.cumsum(sizes))[:-1]


def _run(
    coder: Encoder | Decoder,
    shapes: list[Shape],
    forms: list[int],
    known: list[np.ndarray] | None = None,
    meter: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Codes all arrays, batch by batch.

    Args:
        coder: which way.
        shapes: of the arrays.
        forms: `_MIXED` or `_DENSE` of each.
        known: the codes, for an encoder.
        meter: (2, arrays) to which the bits of positions and of codes are added, for an encoder.
    """
    result: list[np.ndarray] = []
    while len(result) < len(shapes):
        start = end = len(result)
        elements = codes = 0
        while end < len(shapes) and (end == start or _fits(shapes[end], elements, codes, end - start)):
            elements, codes = elements + shapes[end].size, codes + shapes[end].high - shapes[end].low + 1
            end += 1
        part = slice(start, end)
        given = None if known is None else known[part]
        result += _batch(coder, shapes[part], forms[part], given, None if meter is None else meter[:, part])
    return result


def _fits(shape: Shape, elements: int, codes: int, arrays: int) -> bool:
    """Whether an array belongs to a batch that has so much already; this bounds the model's memory."""
    few = elements + shape.size <= _BATCH_ELEMENTS and codes + shape.high - shape.low < _BATCH_CODES
    return few and arrays < _BATCH_ARRAYS


def _batch(
    coder: Encoder | Decoder,
    shapes: list[Shape],
    forms: list[int],
    known: list[np.ndarray] | None,
    meter: np.ndarray | None,
) -> list[np.ndarray]:
    """Codes the arrays of a batch: in each round first which elements are 0, then the codes of the others."""
    place = places([shape.shape for shape in shapes], [form == _DENSE for form in forms])
    masks = MaskModel(place, len(shapes))
    values = ValueModel(place, [(shape.low, shape.high) for shape in shapes])
    codes = np.zeros(len(place.order), np.int16) if known is None else np.concatenate(known)
    for begin, middle, end in zip(place.bounds[::2], place.bounds[1::2], place.bounds[2::2], strict=False):
        asked = place.order[begin:middle]
        nonzero = coder.bits(masks.zeros(asked), None if known is None else codes.take(asked) != 0)
        masks.learn(nonzero)
        if meter is not None:
            meter[0] += np.bincount(place.array[asked], coder.spent(), minlength=len(shapes))
        elements = np.concatenate([asked[nonzero], place.order[middle:end]])
        if len(elements):
            elements, lowest, *tables = values.tables(elements)
            found = coder.symbols(*tables, None if known is None else codes.take(elements) - lowest) + lowest
            values.learn(found)
            if meter is not None:
                meter[1] += np.bincount(place.array[elements], coder.spent(), minlength=len(shapes))
            codes[elements] = found
    return np.split(codes, np.cumsum([shape.size for shape in shapes]))[:-1]


def _plane(
    coder: Encoder | Decoder, size: int, known: np.ndarray | None = None, meter: np.ndarray | None = None
) -> np.ndarray:
    """Codes a plane of bytes by the counts of those coded so far."""
    plane = np.zeros(size, np.uint8) if known is None else known
    counts = np.zeros(256, np.int64)
    for start in range(0, size, _BATCH_ELEMENTS):
        part = plane[start : start + _BATCH_ELEMENTS]
        order, bounds = rounds(len(part))
        for begin, end in itertools.pairwise(bounds):
            chosen = order[begin:end]
            starts = cumulative((counts << 10) + 64, np.ones(256, np.int64), np.zeros(1, np.int64))
            zeros = np.zeros(len(chosen), np.int64)
            found = coder.symbols(starts, zeros, zeros[:1], None if known is None else part[chosen].astype(np.int64))
            if meter is not None:
                meter += coder.spent().sum()
            counts += np.bincount(found, minlength=256)
            part[chosen] = found
    return plane


def _mode(plane: np.ndarray) -> int:
    """Whether a plane's bytes have little enough entropy that to model them pays."""
    counts = np.bincount(plane, minlength=256)
    counts = counts[counts > 0]
    entropy = float((counts * np.log2(counts.sum() / counts)).sum()) if len(counts) else 0.0
    return _CODED if entropy + 6 * len(counts) + 64 < 8 * len(plane) else _RAW
