"""One malformation at a time, each with its own error and the byte at which it is noticed."""

import hashlib
import sys
import tracemalloc
import zlib

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.codec import container, huffman, planes
from sqz_keras.codec.cursor import Cursor, encode_varint
from tests.codec.samples import (
    arrays_of_version_2,
    bell,
    codebook,
    floats,
    grid,
    noise,
    sealed,
    sections,
    trellis,
    with_section,
)

ARRAYS = {"k": grid((200,), 1, 8), "b": codebook((400,), 2, 1), "f": np.float32([0.1, 0.723, -3.3])}


def whole(profile="paper", arrays=ARRAYS):
    return codec.encode(arrays, {}, profile=profile)


def refused(data, error, match, offset=None):
    with pytest.raises(error, match=match) as caught:
        codec.decode(data)
    assert type(caught.value) is error
    if offset is not None:
        assert caught.value.offset == offset


def changed(data, at, new):
    """The file with `new` at byte `at`, and its checksums corrected."""
    return sealed(data[:at] + new + data[at + len(new) :])


def test_the_frame():
    data = whole()
    refused(b"", codec.TruncatedError, "12 more bytes", 0)
    refused(b"PK" + data[2:], codec.MagicError, "does not begin", 0)
    refused(data[:16], codec.TruncatedError, f"Expected {len(data)} bytes, got 16", 16)
    refused(data[:-1], codec.TruncatedError, "Expected", len(data) - 1)
    refused(data + b"\0", codec.TrailingBytesError, "1 bytes too many", len(data))
    refused(data[:10] + b"\7" + data[11:], codec.ChecksumError, "fixed header", 0)
    refused(data[:20] + b"\7" + data[21:], codec.ChecksumError, "damaged", 16)
    refused(changed(data, 4, b"\3"), codec.VersionError, "version 3", 4)
    refused(changed(data, 5, b"\2"), codec.VersionError, "profile 2", 4)
    refused(changed(data, 7, b"\1"), codec.PaddingError, "reserved", 7)
    refused(changed(data, 6, b"\3"), codec.TrailingBytesError, "too many")
    refused(changed(data, 16, b"JSOX"), codec.SectionError, "Unknown", 16)


def test_the_sections():
    parts = sections(whole())
    for order in (["JSON", "ARRS", "VALS"], ["JSON", "ARRS", "CODE", "VALS"], ["ARRS", "JSON", "VALS", "CODE"]):
        refused(
            container.write(1, "paper", {tag: parts[tag] for tag in order}), codec.SectionError, "in this order", 16
        )
    refused(container.write(1, "paper", {**parts, "BASE": bytes(32)}), codec.SectionError, "in this order", 16)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        (b"{", codec.HeaderError, "not valid JSON"),
        (b"\xff", codec.HeaderError, "not valid JSON"),
        (b"[" * 100_000, codec.HeaderError, "not valid JSON"),
        (b"[]", codec.HeaderError, "must be an object"),
        (b'{"arrays":{}}', codec.HeaderError, "must be an object"),
        (b'{"arrays":{},"header":[]}', codec.HeaderError, "JSON objects"),
        (b'{"arrays":{},"header":{"a":NaN}}', codec.HeaderError, "not valid JSON"),
        (b'{"arrays":{"a":[1],"a":[1]},"header":{}}', codec.HeaderError, "twice"),
        (b'{"arrays":{},"header":{"a":' + b"[" * 63 + b"]" * 63 + b"}}", codec.HeaderError, "64 levels"),
        (b'{"arrays":{"":[1]},"header":{}}', codec.ShapeError, "dimensions"),
        (b'{"arrays":{"a":[1,1,1,1,1,1,1,1,1]},"header":{}}', codec.ShapeError, "dimensions"),
        (b'{"arrays":{"a":[-1]},"header":{}}', codec.ShapeError, "not an integer"),
        (b'{"arrays":{"a":[1.0]},"header":{}}', codec.ShapeError, "not an integer"),
        (b'{"arrays":{"a":[true]},"header":{}}', codec.ShapeError, "not an integer"),
        (b'{"arrays":{"a":[100000,100000]},"header":{}}', codec.TooLargeError, "would have"),
        (b'{"arrays":{"a":[0,100000,100000]},"header":{}}', codec.TooLargeError, "would have"),
    ],
)
def test_the_json(text, error, match):
    refused(with_section(whole(), "JSON", zlib.compress(text)), error, match, 28)


@pytest.mark.parametrize("limit", [0, 640, 4300])
def test_long_integers_do_not_depend_on_the_limit_of_python(limit):
    text = '{"arrays":{},"header":{"a":[-%s]}}'
    right, wrong = (
        with_section(whole(arrays={}), "JSON", zlib.compress((text % ("9" * digits)).encode()))
        for digits in (4300, 4301)
    )
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        assert codec.decode(right).header == {"a": [1 - 10**4300]}
        refused(wrong, codec.HeaderError, "4300 digits", 28)
        with pytest.raises(ValueError, match="4300 digits"):
            codec.encode({}, {"a": [10**4300]})
    finally:
        sys.set_int_max_str_digits(before)


def test_the_zlib_stream():
    packed = sections(whole())["JSON"]
    refused(with_section(whole(), "JSON", b"abc"), codec.StreamError, "zlib", 28)
    refused(with_section(whole(), "JSON", packed[:-2]), codec.TruncatedError, "zlib", 28)
    refused(with_section(whole(), "JSON", packed + b"a"), codec.TrailingBytesError, "zlib", 28)
    refused(with_section(whole(), "JSON", zlib.compress(bytes(5 << 20))), codec.TooLargeError, "zlib", 28)


def rows(first, rest=None):
    """A file of the array k whose table begins with another row; `rest` replaces what follows the row."""
    data = whole(arrays={"k": ARRAYS["k"]})
    table = sections(data)["ARRS"]
    return with_section(data, "ARRS", first + (table[3:] if rest is None else rest))


@pytest.mark.parametrize(
    ("row", "error", "match"),
    [
        (b"\6\0\0", codec.TableError, "Unknown kind 6"),
        (b"\2\0\0", codec.TableError, "has no values"),
        (b"\2\x80\0\1", codec.PaddingError, "more bytes than it needs"),
        (b"\2\xff\xff\xff\xff\xff\xff", codec.TooLargeError, "35 bits"),
        (b"\2" + encode_varint(2048) + encode_varint(2048), codec.TableError, "4096 codes"),
        (b"\3", codec.TableError, "base has no matching"),
        (b"\2" + encode_varint(99) + encode_varint(9), codec.TableError, "code lengths"),
    ],
)
def test_rows_of_the_table(row, error, match):
    refused(rows(row), error, match)


TRELLIS = {"t": trellis((4, 5), 1, True)}


def row_of_version_2(row, shape=(4, 5)):
    """A file of version 2, profile paper, whose table has another first row and whose JSON declares another shape."""
    data = codec.encode(TRELLIS, {}, profile="paper")
    json = b'{"arrays":{"t":%s},"header":{}}' % str(list(shape)).encode()
    return with_section(with_section(data, "JSON", zlib.compress(json)), "ARRS", row + sections(data)["ARRS"][3:])


@pytest.mark.parametrize(
    ("row", "shape", "error", "match"),
    [
        (b"\x09\0\0", (4, 5), codec.TableError, "Unknown kind 9"),
        (b"\x08\0\0", (4, 5), codec.TableError, "has no values"),
        (b"\x08\1\1", (4, 5), codec.TableError, "base has no matching"),
        (b"\6\0\0", (4, 5), codec.TableError, "has no values"),
        (b"\7\0\0", (4, 5), codec.TableError, "has no values"),
        (b"\6\1\1", (20,), codec.TableError, "at least 2 dimensions"),
        (b"\7\1\1", (), codec.TableError, "at least 2 dimensions"),
        (b"\7\1\1", (65537, 2), codec.TableError, "at most 65536"),
        (b"\7" + encode_varint(2048) + encode_varint(2048), (4, 5), codec.TableError, "4096 codes"),
        (b"\7\1\1", (2048, 64, 64), codec.TableError, "have codes; at most"),
        (b"\4\1\1\1\1\1\1", (4, 5), codec.TableError, "base has no matching"),
    ],
)
def test_rows_of_version_2(row, shape, error, match):
    refused(row_of_version_2(row, shape), error, match)


def test_trellis_codes():
    data = codec.encode(TRELLIS, {}, profile="paper")
    for step, match in [(0.0, "step 0"), (-1.0, "step -1"), (np.nan, "step nan"), (np.inf, "inf"), (2e38, "step")]:
        refused(with_section(data, "VALS", np.float32(step).tobytes()), codec.CodebookError, match)
    table, frame = sections(data)["ARRS"], container.read(data)
    low, high = table[1], table[2]
    lengths = zlib.decompress(table[12:])  # behind the row, index bits and modes
    wider = table[:1] + bytes([low, high + 1]) + table[3:12] + zlib.compress(lengths + b"\0")
    refused(with_section(data, "ARRS", wider), codec.CodebookError, "the table declares")
    older = container.write(1, frame.profile, sections(data))
    refused(older, codec.TableError, "Unknown kind 7")
    base = codec.encode(TRELLIS, {})
    delta = codec.encode({"t": 2 * TRELLIS["t"]}, {}, base=base)
    moved = with_section(delta, "ARRS", b"\5\1\1\1\1\1\1" + sections(delta)["ARRS"][3:])
    with pytest.raises(codec.TableError, match="base has no matching"):
        codec.decode(moved, base)


def test_the_json_of_a_delta():
    """In version 2 only, its zlib stream may refer to the JSON of the base, and to no other text."""
    base = codec.encode(ARRAYS, {"name": "a header that repeats itself"})
    delta = codec.encode(ARRAYS, {"name": "a header that repeats itself"}, base=base)
    assert len(sections(delta)["JSON"]) < 30 < len(sections(base)["JSON"])
    text = container.json_text(container.read(base).sections["JSON"])

    def with_json(data, dictionary):
        compressor = zlib.compressobj(zdict=dictionary)
        return with_section(data, "JSON", compressor.compress(text) + compressor.flush())

    assert codec.decode(with_json(delta, text), base).header == {"name": "a header that repeats itself"}
    assert codec.decode(with_section(delta, "JSON", zlib.compress(text)), base).arrays.keys() == ARRAYS.keys()
    older = container.write(1, "max", sections(with_json(delta, text)))
    for data in (with_json(delta, text[:-1]), older):
        with pytest.raises(codec.StreamError, match="zlib") as caught:
            codec.decode(data, base)
        assert caught.value.offset == 28
    with pytest.raises(codec.StreamError, match="zlib"):
        codec.decode(with_json(base, text))


def test_what_is_added_to_the_base():
    old = (noise(40, 3) / 40503 - 0.5).astype(np.float32)
    new = old + (bell(40, 5) / 1024).astype(np.float32)
    base, large = codec.encode({"f": old}, {}), codec.encode({"f": old * np.float32(3e38)}, {})
    delta = codec.encode({"f": new}, {}, profile="paper", base=base)
    assert sections(delta)["ARRS"][0] == 8
    assert codec.decode(delta, base).arrays["f"].tobytes() == new.tobytes()
    for step, match in [(0.0, "step 0"), (-1.0, "step -1"), (np.nan, "step nan"), (3e38, "step")]:
        with pytest.raises(codec.CodebookError, match=match):
            codec.decode(with_section(delta, "VALS", np.float32(step).tobytes()), base)
    step = np.float32(3e38 / max(sections(delta)["ARRS"][1:3]))  # the grid itself is finite
    parts = sections(delta) | {"BASE": hashlib.sha256(large).digest(), "VALS": step.tobytes()}
    with pytest.raises(codec.CodebookError, match="f: a value is infinite"):
        codec.decode(container.write(2, "paper", parts), large)


def test_modelled_planes():
    """When version 2 allows a plane to be modelled, and what its bitmap may say."""
    data = codec.encode({"f": floats((3, 3, 12, 20), 14)}, {})
    table, frame = sections(data)["ARRS"], container.read(data)
    modes, bitmap = table[1:9], table[9:41]
    assert frame.version == 2 and modes[0] == modes[1] == 2

    def declared(new_modes, rest):
        return with_section(data, "ARRS", table[:1] + new_modes + rest)

    refused(container.write(1, "max", sections(data)), codec.TableError, "flag")
    refused(declared(b"\3" + modes[1:], table[9:]), codec.TableError, "flag")
    refused(declared(modes[:4] + b"\2\0\0\0", table[9:]), codec.TableError, "flag")
    refused(declared(b"\0" + modes[1:], table[41:]), codec.TableError, "Plane 1 cannot be modelled")
    refused(declared(modes, bytes(32) + table[41:]), codec.TableError, "No byte is declared")
    refused(declared(modes, table[9:-1]), codec.TruncatedError, "32 more bytes")
    refused(declared(modes, table[9:] + b"\0"), codec.TrailingBytesError, "too many")
    for byte in (0, 31):  # a byte that the plane does not have, below or above those that it has
        more = bytearray(bitmap)
        more[byte] |= 128
        with pytest.raises(codec.SqzError):
            codec.decode(declared(modes, bytes(more) + table[41:]))
    json = b'{"arrays":{"f":[%d,1]},"header":{}}'
    for size in (0, (1 << 22) + 1):
        other = with_section(data, "JSON", zlib.compress(json % size))
        refused(other, codec.TableError, "cannot be modelled")
    paper = codec.encode(arrays_of_version_2(), {}, profile="paper")
    table = sections(paper)["ARRS"]
    at = table.index(bytes([1, 1, 1, 1, 0, 0, 0, 0]))
    refused(
        with_section(paper, "ARRS", table[:at] + b"\2" + table[at + 1 :]), codec.TableError, "neither raw nor coded"
    )


def test_a_declared_byte_must_occur():
    """The bitmap has a byte too many, and the coder knows about it: everything else is correct."""
    from sqz_keras.codec.profile_max import float_planes, plane_coder
    from sqz_keras.codec.profile_max.rans import Decoder, Encoder

    plane, shapes = np.full(64, 7, np.uint8), [(8, 8)]
    used = np.array([7, 9])
    encoder = Encoder()
    float_planes.FloatPlanes(shapes).code(encoder, 0, used, None, plane)
    decoder = Decoder(encoder.finish(1, b""), 1, 0)
    modes = plane_coder.PlaneModes([2], {0: used})
    with pytest.raises(codec.TableError, match="declared to occur in plane 0"):
        plane_coder.read_planes(decoder, modes, [64], float_planes.FloatPlanes(shapes), 0)


def test_grids_and_codebooks():
    data = whole(arrays={"k": ARRAYS["k"]})
    for step, match in [(0.0, "step 0"), (-1.0, "step -1"), (np.nan, "step nan"), (np.inf, "inf"), (3e38, "step")]:
        refused(with_section(data, "VALS", np.float32(step).tobytes()), codec.CodebookError, match)
    data = whole(arrays={"b": ARRAYS["b"]})
    values = np.frombuffer(sections(data)["VALS"], np.uint8).reshape(4, -1).copy()
    for column, new, match in [
        (0, 0, "NaN or infinite"),
        (0, 255, "NaN or infinite"),
        (1, 0, "not distinct"),
    ]:
        other = values.copy()
        other[:, column] = new
        refused(with_section(data, "VALS", other.tobytes()), codec.CodebookError, match)
    two = [np.array([part], np.uint8) for part in (0, 0, 0, 0, 0x90, 0, 0, 0)]
    with pytest.raises(codec.CodebookError, match="1 codebook values below zero and 0 above"):
        planes.unpack_codebooks(two, [(1, 0)], 7)
    assert planes.unpack_codebooks(two, [(0, 1)], 7)[0] > 0
    floats = whole(arrays={"f": ARRAYS["f"]})
    refused(with_section(floats, "VALS", b"\xff" * 12), codec.CodebookError, "NaN or infinite")


def test_ranges_that_are_not_used():
    """A table may not declare a code that never occurs."""
    data = whole(arrays={"k": ARRAYS["k"]})
    table = sections(data)["ARRS"]
    low, high, index_bits = table[1], table[2], table[3]
    lengths = zlib.decompress(table[13:])  # behind the row, index bits, entries and modes
    wider = table[:1] + bytes([low, high + 1]) + table[3:13]
    packed = zlib.compress(lengths[: low + high + 1] + b"\0" + lengths[low + high + 1 :])
    assert index_bits
    refused(with_section(data, "ARRS", wider + packed), codec.CodebookError, "the table declares")


def test_huffman_lengths():
    for lengths, needed, match in [
        ([1, 2], True, "a complete prefix code"),
        ([1, 1, 1], True, "a complete prefix code"),
        ([2], True, "length 1"),
        ([0, 0], True, "is empty"),
        ([1], False, "codes no symbols"),
        ([16], True, "at most 15"),
    ]:
        with pytest.raises(codec.HuffmanError, match=match):
            huffman.check_code_lengths(np.array(lengths, np.uint8), needed, 0)
    skewed = huffman.code_lengths(2 ** np.arange(40))
    assert skewed.max() == 15
    huffman.check_code_lengths(skewed, True, 0)


def test_fillers_and_gaps():
    from sqz_keras.codec.profile_paper import from_relative_index, to_relative_index

    flat = np.zeros(60, np.int16)
    flat[[3, 50]] = 2, -1
    codes, gaps = to_relative_index(flat, 4)
    assert list(codes) == [2, 0, 0, -1] and list(gaps) == [3, 15, 15, 14]
    np.testing.assert_array_equal(from_relative_index(codes, gaps, 4, 60, 0), flat)
    for code, gap in [([0], [15]), ([2, 0], [3, 15]), ([0, 1], [14, 0]), ([1], [60])]:
        with pytest.raises(codec.PositionError):
            from_relative_index(np.array(code), np.array(gap), 4, 60, 0)


def test_padding_of_the_huffman_stream():
    table = [np.array([1, 2, 2], np.uint8)]
    symbols = [np.array([0, 1, 2, 0])]
    stream = huffman.write_stream(table, symbols)
    (decoded,) = huffman.read_stream(Cursor(stream), table, [4])
    assert list(decoded) == [0, 1, 2, 0]
    with pytest.raises(codec.PaddingError):
        huffman.read_stream(Cursor(stream[:-1] + bytes([stream[-1] | 1])), table, [4])
    with pytest.raises(codec.StreamError, match="declared end"):
        huffman.read_stream(Cursor(stream), table, [3])
    with pytest.raises(codec.StreamError, match="too few for 40 symbols"):
        huffman.read_stream(Cursor(stream), table, [40])


def test_huffman_tables_take_64_kib_each():
    """This limit holds for any number of tables; even a small file may declare many."""
    tables, symbols = [np.array([1, 1], np.uint8)] * 500, [np.array([0, 1])] * 500
    stream = huffman.write_stream(tables, symbols)
    tracemalloc.start()
    try:
        decoded = huffman.read_stream(Cursor(stream), tables, [2] * 500)
        assert tracemalloc.get_traced_memory()[1] < 501 * (64 << 10) + (1 << 20)
    finally:
        tracemalloc.stop()
    assert all(list(part) == [0, 1] for part in decoded)


def test_the_largest_symbols_of_a_huffman_table():
    """The highest symbol is 4095, here with a code of 15 bits."""
    table = np.full(4096, 15, np.uint8)
    table[:6] = 1, 2, 3, 14, 14, 14
    huffman.check_code_lengths(table, True, 0)
    symbols = np.arange(4096)
    (decoded,) = huffman.read_stream(Cursor(huffman.write_stream([table], [symbols])), [table], [4096])
    assert decoded.dtype == np.int32 and list(decoded) == list(symbols)


def test_the_coder_must_end_as_it_began():
    data = whole("max", {"k": ARRAYS["k"]})
    stream, table = sections(data)["CODE"], sections(data)["ARRS"]
    refused(with_section(data, "CODE", bytes(4) + stream[4:]), codec.StreamError, "state of a lane is below")
    refused(with_section(data, "CODE", stream + b"\0\0"), codec.StreamError, "left over")
    refused(with_section(data, "CODE", stream[:-2]), codec.StreamError, "too early")
    refused(with_section(data, "CODE", stream[:-1]), codec.StreamError, "cannot have")
    refused(with_section(data, "VALS", sections(data)["VALS"] + b"\0"), codec.TrailingBytesError, "too many")
    refused(with_section(data, "ARRS", table[:3] + b"\2" + table[4:]), codec.TableError, "flag")
    lone = whole("max", {"z": np.zeros(3, np.float32)})
    assert len(sections(lone)["CODE"]) == 4
    refused(with_section(lone, "CODE", b"\1\0\1\0"), codec.PaddingError, "unused bytes")
    refused(with_section(lone, "CODE", b"\0\0\2\0"), codec.StreamError, "initial state")
