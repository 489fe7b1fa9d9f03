"""The profile `max`: adaptive context models of zeros, codes and bytes, and one entropy coder for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sqz_keras.codec.cursor import Cursor
from sqz_keras.codec.errors import PaddingError, TableError
from sqz_keras.codec.planes import RAW
from sqz_keras.codec.profile_max.float_planes import FloatPlanes
from sqz_keras.codec.profile_max.plane_coder import (
    choose_modes,
    modes_to_bytes,
    plane_bits,
    read_modes,
    read_planes,
    write_planes,
)
from sqz_keras.codec.profile_max.rans import Decoder, Encoder, bit_intervals, spent_bits, symbol_intervals
from sqz_keras.codec.profile_max.scan_order import batches, scan_arrays
from sqz_keras.codec.profile_max.value_model import ValueModel
from sqz_keras.codec.profile_max.zero_model import ZeroModel
from sqz_keras.codec.types import BitCounts, Codes, CodesSpec, DecodedStreams, EncodedStreams, PlanesSpec

_WITH_ZEROS, _DENSE = 0, 1  # whether an array has zeros


def write(
    arrays: Sequence[Codes], planes: Sequence[np.ndarray], steps: bytes, float_shapes: Sequence[tuple[int, ...]]
) -> EncodedStreams:
    """Encodes arrays of codes and byte planes; the arguments are those of `profile_paper.write`."""
    encoder, floats = Encoder(), FloatPlanes(float_shapes)
    plane_modes = choose_modes(planes, floats)
    modes = plane_modes.modes
    coded = [array for array in arrays if not array.spec.all_zero]
    densities = [_DENSE if array.flat.all() else _WITH_ZEROS for array in coded]
    specs = [array.spec for array in coded]
    _code_arrays(encoder, specs, densities, [array.flat for array in coded])
    write_planes(encoder, plane_modes, planes, floats)
    raw = steps + b"".join(plane.tobytes() for plane, mode in zip(planes, modes, strict=True) if mode == RAW)
    lanes = _lane_count(specs, [len(plane) for plane in planes], modes, len(steps))
    table = bytes(densities) + modes_to_bytes(planes, plane_modes)
    coded_bytes = encoder.finish(lanes, raw[: 2 * lanes])
    return EncodedStreams(table, raw[2 * lanes :], coded_bytes, plane_modes.version)


def read(
    table: Cursor,
    raw: Cursor,
    stream: Cursor,
    specs: Sequence[CodesSpec],
    planes_spec: PlanesSpec,
    step_bytes: int,
    version: int,
    count_bits: bool = False,
) -> DecodedStreams:
    """Decodes what `write` encoded; the arguments are those of `profile_paper.read`."""
    start, offset = table.offset, stream.offset
    coded_specs = [spec for spec in specs if not spec.all_zero]
    densities = list(table.take(len(coded_specs)))
    if max(densities, default=0) > 1:
        raise TableError("A flag is neither 0 nor 1", start)
    plane_sizes, floats = planes_spec.sizes, FloatPlanes(planes_spec.float_shapes)
    plane_modes = read_modes(table, floats, len(plane_sizes), version)
    modes = plane_modes.modes
    table.finish()
    decoder = Decoder(stream.rest(), _lane_count(coded_specs, plane_sizes, modes, step_bytes), offset)
    spent = np.zeros((2, len(coded_specs))) if count_bits else None
    coded = _code_arrays(decoder, coded_specs, densities, spent=spent)
    planes = read_planes(decoder, plane_modes, plane_sizes, floats, start)
    raw_sizes = [step_bytes, *(size for size, mode in zip(plane_sizes, modes, strict=True) if mode == RAW)]
    steps, *raw_planes = _split_raw_bytes(decoder.finish(), raw, raw_sizes, offset)
    for flat, density in zip(coded, densities, strict=True):
        if density == _WITH_ZEROS and flat.all():
            raise TableError("An array without zeros is declared to have some", start)
    remaining_codes, remaining_planes = iter(coded), iter(raw_planes)
    planes = [next(remaining_planes) if plane is None else plane for plane in planes]
    return DecodedStreams(
        codes=[np.zeros(spec.size, np.int16) if spec.all_zero else next(remaining_codes) for spec in specs],
        planes=planes,
        steps=steps.tobytes(),
        modes=modes,
        bits=None if spent is None else _bit_counts(spent, specs, planes, floats, modes),
    )


def _bit_counts(
    spent: np.ndarray,
    specs: Sequence[CodesSpec],
    planes: Sequence[np.ndarray],
    floats: FloatPlanes,
    modes: Sequence[int],
) -> BitCounts:
    """Returns the bits of all arrays and planes.

    Args:
        spent: Float64 (2, coded arrays), the bits of the positions and of the codes.
        specs: Shape and range of each array of codes, including those with only zeros, which are not coded.
        planes: Uint8 (n,), the eight planes.
        floats: The coder of the planes of floats.
        modes: The mode of each plane.
    """
    remaining = iter(spent.T.tolist())
    pairs = [(0.0, 0.0) if spec.all_zero else next(remaining) for spec in specs]
    bits = [plane_bits(planes, floats, mode, number) for number, mode in enumerate(modes)]
    return BitCounts([codes for _, codes in pairs], [positions for positions, _ in pairs], bits)


def _lane_count(specs: Sequence[CodesSpec], plane_sizes: Sequence[int], modes: Sequence[int], step_bytes: int) -> int:
    """Returns the number of lanes: few in small files, which the states would fill; more if raw bytes fill the states.

    Args:
        specs: Shape and range of each coded array.
        plane_sizes: Number of bytes of each plane.
        modes: Mode of each plane.
        step_bytes: Number of bytes of the steps of all grids.
    """
    symbols = sum(spec.size for spec in specs)
    symbols += sum(size for size, mode in zip(plane_sizes, modes, strict=True) if mode != RAW)
    raw_bytes = step_bytes + sum(size for size, mode in zip(plane_sizes, modes, strict=True) if mode == RAW)
    return 1 << min(9 if raw_bytes >= 1024 else 8, (symbols // 1024).bit_length())


def _split_raw_bytes(payload: bytes, raw: Cursor, sizes: list[int], offset: int) -> list[np.ndarray]:
    """Splits the raw bytes, which begin in the states of the coder's lanes and continue in the section VALS.

    Args:
        payload: The bytes in the states.
        raw: Cursor over the section VALS.
        sizes: Number of bytes of each part.
        offset: Byte of the file to report in errors.

    Raises:
        PaddingError: The states hold more bytes than all parts need, and the unused ones are not 0.
    """
    total = sum(sizes)
    joined = payload[:total] + raw.take(max(total - len(payload), 0))
    raw.finish()
    if any(payload[total:]):
        raise PaddingError("The unused bytes of the lanes' initial states must be 0", offset)
    return np.split(np.frombuffer(joined, np.uint8), np.cumsum(sizes))[:-1]


def _code_arrays(
    coder: Encoder | Decoder,
    specs: list[CodesSpec],
    densities: list[int],
    codes: list[np.ndarray] | None = None,
    spent: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Codes all arrays, batch by batch.

    Args:
        coder: An encoder or a decoder.
        specs: Shape and range of each array.
        densities: `_WITH_ZEROS` or `_DENSE` for each array.
        codes: Int16 (n,) codes of each array, for an encoder.
        spent: Float64 (2, arrays), to which the bits of positions and of codes are added.

    Returns:
        Int16 (n,) codes of each array.
    """
    result: list[np.ndarray] = []
    for batch in batches([(spec.size, spec.code_count) for spec in specs]):
        batch_codes = None if codes is None else np.concatenate(codes[batch])
        batch_spent = None if spent is None else spent[:, batch]
        result += _code_batch(coder, specs[batch], densities[batch], batch_codes, batch_spent)
    return result


def _code_batch(
    coder: Encoder | Decoder,
    specs: list[CodesSpec],
    densities: list[int],
    codes_to_encode: np.ndarray | None,
    spent: np.ndarray | None,
) -> list[np.ndarray]:
    """Codes the arrays of a batch: in each round first which elements are 0, then the codes of the others.

    Args:
        coder: An encoder or a decoder.
        specs: Shape and range of each array.
        densities: `_WITH_ZEROS` or `_DENSE` for each array.
        codes_to_encode: Int16, the codes of all arrays, for an encoder.
        spent: Float64 (2, arrays), to which the bits of positions and of codes are added.

    Returns:
        Int16 (n,) codes of each array.
    """
    dense = [density == _DENSE for density in densities]
    scan = scan_arrays([spec.shape for spec in specs], dense, [spec.rows for spec in specs])
    zeros = ZeroModel(scan, len(specs))
    values = ValueModel(scan, [(spec.low, spec.high) for spec in specs])
    encoding = codes_to_encode is not None
    codes = codes_to_encode if encoding else np.zeros(sum(spec.size for spec in specs), np.int16)
    for round_places, with_zeros in scan.rounds():
        places = round_places[:, :with_zeros]
        odds = zeros.predict(places)
        nonzero = coder.code_bits(odds.zero_frequencies, codes.take(places[0]) != 0 if encoding else None)
        zeros.update(odds, nonzero)
        if spent is not None:
            _, frequencies = bit_intervals(odds.zero_frequencies, nonzero)
            spent[0] += np.bincount(scan.array_of_row.take(places[1]), spent_bits(frequencies), minlength=len(specs))
        found = np.concatenate([np.flatnonzero(nonzero), np.arange(with_zeros, round_places.shape[1])])
        if len(found) == 0:
            continue
        prediction = values.predict(round_places.take(found, axis=1))
        elements = prediction.places[0]
        symbols_to_encode = codes.take(elements) - prediction.lowest if encoding else None
        symbols = coder.code_symbols(prediction.tables, prediction.table_of_element, symbols_to_encode)
        round_codes = symbols + prediction.lowest
        values.update(prediction, round_codes)
        if spent is not None:
            _, frequencies = symbol_intervals(prediction.tables, prediction.table_of_element, symbols)
            spent[1] += np.bincount(prediction.array, spent_bits(frequencies), minlength=len(specs))
        codes[elements] = round_codes
    return np.split(codes, np.cumsum([spec.size for spec in specs]))[:-1]
