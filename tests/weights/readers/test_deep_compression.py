import math

import numpy as np
import pytest

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.readers import deep_compression
from tests.weights.readers.mutations import check_harmless, check_refused, flips, load, truncations

FILE_NAME = "copy.net"
SHAPES = ModelSpec(version="1.0").weight_shapes()
KERNELS = {name: shape for name, shape in SHAPES.items() if name.endswith("/kernel")}


@pytest.fixture(scope="module")
def data(test_data):
    return (test_data / "weights/deep_compression/compressed_SqueezeNet.net").read_bytes()


def sections(data):
    """Each kernel's name, shape, number of codes, and offsets of codebook, bias, codes and gaps, computed again."""
    counts = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(26)]
    at = 104
    for (name, shape), count in zip(KERNELS.items(), counts, strict=True):
        bias = at + 1024
        codes = bias + 4 * shape[3]
        gaps = codes + count
        yield name, shape, count, at, bias, codes, gaps
        at = gaps + math.ceil(count / 2)


def test_released_file_has_the_known_entries(data, path):
    path.write_bytes(data)
    arrays = load(path, SHAPES)
    assert sum(np.count_nonzero(arrays[name]) for name in KERNELS) == 415_921
    stored = sum(count for _, _, count, *_ in sections(data))
    fillers = sum(data[codes:gaps].count(0) for *_, codes, gaps in sections(data))
    assert (stored, fillers) == (422_083, 6_162)
    for name, _, count, _, _, codes, gaps in sections(data):
        assert np.count_nonzero(arrays[name]) == count - data[codes:gaps].count(0), name


@pytest.mark.parametrize("layer", ["conv1", "fire2_expand3x3", "fire9_squeeze1x1"])
def test_a_layer_decoded_entry_by_entry_is_the_same(data, path, layer):
    path.write_bytes(data)
    arrays = deep_compression.read(path)
    name, (height, width, channels, filters), count, codebook, bias, codes, gaps = next(
        section for section in sections(data) if section[0] == f"{layer}/kernel"
    )
    flat, position = [0.0] * (height * width * channels * filters), -1
    for entry in range(count):
        byte = data[gaps + entry // 2]
        position += (byte >> 4 if entry % 2 else byte & 15) + 1
        at = codebook + 4 * data[codes + entry]
        flat[position] = np.frombuffer(data[at : at + 4], "<f4")[0]
    kernel = np.zeros((height, width, channels, filters), np.float32)
    for index, value in enumerate(flat):
        rest, x = divmod(index, width)
        rest, y = divmod(rest, height)
        out, channel = divmod(rest, channels)
        kernel[y, x, channel, out] = value
    np.testing.assert_array_equal(arrays[name], kernel)
    np.testing.assert_array_equal(arrays[f"{layer}/bias"], np.frombuffer(data, "<f4", filters, bias))


def patched(data, *patches):
    copy = bytearray(data)
    for at, new in patches:
        copy[at : at + len(new)] = new
    return bytes(copy)


def structural(data):
    yield from truncations(data, 60)
    yield from (data + extra for extra in (b"\0", b"\xff", b"\0" * 1024, data[:104]))
    counts = np.frombuffer(data, "<u4", 26)
    for i, (_, shape) in enumerate(KERNELS.items()):
        for count in (0, counts[i] - 1, counts[i] + 1, math.prod(shape) + 1, 2**32 - 1):
            yield patched(data, (4 * i, int(count).to_bytes(4, "little")))
        if i and counts[i] != counts[i - 1]:
            yield patched(data, (4 * i - 4, counts[i].tobytes() + counts[i - 1].tobytes()))
    for _, _, count, codebook, bias, codes, gaps in sections(data):
        for value in (math.nan, math.inf, -math.inf):
            yield patched(data, (codebook + 4 * 255, np.float32(value).tobytes()))
            yield patched(data, (bias, np.float32(value).tobytes()))
        yield patched(data, (codebook, np.float32(0.5).tobytes()))
        yield patched(data, (gaps, b"\xff" * (count // 2)))  # far past the end
        if count % 2:
            last = gaps + count // 2
            yield patched(data, (last, bytes([data[last] | 0x10])))
        dense = data[codes:gaps].find(0) < 0
        if dense:
            yield patched(data, (codes, b"\0"))  # a filler whose gap is not 15


def test_structural_damage_is_refused(data, path):
    assert check_refused(path, structural(data), SHAPES) > 400


def test_one_gap_past_the_end_is_refused(data, path):
    name, shape, count, _, _, _, gaps = next(sections(data))
    positions_end = math.prod(shape)
    path.write_bytes(patched(data, (gaps + (count - 1) // 2, b"\x10")))
    with pytest.raises(ValueError, match=rf"{name.split('/')[0]}.*position {positions_end} of {positions_end}"):
        deep_compression.read(path)


def test_random_damage_is_refused_or_gives_finite_weights(data, path):
    assert check_harmless(path, flips(data, 200, seed=1), SHAPES) == 200
