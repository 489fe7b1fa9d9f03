"""Damaged files: the reader refuses them with a `SqzError`, or returns exactly the original arrays."""

import json
import pathlib
import tracemalloc
import zlib

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.codec import container
from tests.codec.samples import (
    arrays,
    arrays_of_version_2,
    changed_in_every_way,
    codebook,
    floats,
    grid,
    noise,
    sealed,
    sections,
    trellis,
    with_section,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
PROFILES = ["paper", "max"]
VERSIONS = {1: arrays, 2: arrays_of_version_2}


def tiny():
    """A codebook, a grid and plain floats, as small as possible."""
    return {
        "k": grid((3, 3, 2, 4), 1),
        "b": codebook((12,), 2, 1),
        "f": (noise(6, 3) / 7).astype(np.float32),
    }


def tiny_of_version_2():
    """Both kinds of trellis codes, and floats with some planes that profile max models."""
    return {
        "t": trellis((3, 3, 2, 4), 4, False, 2),
        "d": trellis((5, 8), 5, True),
        "f": floats((3, 3, 5, 12), 6),
    }


def flips(data, count, seed, start=0):
    """Copies with one to four bytes changed, from `start` on."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        copy = bytearray(data)
        for at in rng.integers(start, len(data), rng.integers(1, 5)):
            copy[at] ^= int(rng.integers(1, 256))
        yield bytes(copy)


def check(copies, expected=None, base=None):
    """Checks that every copy is refused or gives the expected arrays (None: any finite arrays). Returns both counts."""
    count = refused = 0
    for copy in copies:
        count += 1
        try:
            decoded = codec.decode(copy, base).arrays
        except codec.SqzError as error:
            refused += 1
            assert 0 <= error.offset <= len(copy) and f"at byte {error.offset}" in str(error) and len(str(error)) < 400
            continue
        if expected is not None:
            assert [(name, array.tobytes()) for name, array in decoded.items()] == expected
        else:
            assert all(np.isfinite(array).all() for array in decoded.values())
    return count, refused


def damaged(profile, version):
    """Copies of a file as a bad disk might return it: with flipped bytes, cut or longer, and with two bytes swapped."""
    data = codec.encode(VERSIONS[version](), {}, profile=profile)
    assert container.read(data).version == version
    cut = [data[:size] for size in range(len(data))]
    longer = [data + bytes(size) for size in range(1, 600)]
    differ = [at for at in range(len(data) - 1) if data[at] != data[at + 1]]
    swapped = [data[:at] + data[at + 1 : at + 2] + data[at : at + 1] + data[at + 2 :] for at in differ]
    return list(flips(data, 4250, 1)), cut + longer, swapped


def damaged_behind_checksums(profile, count, make):
    data = codec.encode(make(), {}, profile=profile)
    return [sealed(copy) for copy in flips(data, count, 2, start=16)]


def damaged_deltas(name, count):
    """Damaged copies of a golden delta with correct checksums, and their base."""
    base, delta = ((GOLDEN / f"{name}.sqz").read_bytes() for name in ("max", name))
    return [sealed(copy) for copy in flips(delta, count, 3, start=16)], base


def shorter_and_longer(profile, tag, version):
    """Files in which one section is shorter or longer."""
    data = codec.encode(VERSIONS[version](), {}, profile=profile)
    payload = sections(data)[tag]
    sizes = np.unique(np.linspace(0, len(payload) - 1, 25).astype(int)) if payload else []
    changed = [payload[:size] for size in sizes] + [payload + extra for extra in (b"\0", b"\1", b"\0\0", bytes(99))]
    return [with_section(data, tag, part) for part in changed]


SEALED = [
    (profile, count, make) for profile, count in (("paper", 1250), ("max", 500)) for make in (tiny, tiny_of_version_2)
]
DELTAS = ["delta", "delta2_paper", "delta2_max"]
TAGS = ["ARRS", "VALS", "CODE"]


def corpus():
    """Every damaged file in the tests of this module, with its base or None."""
    for profile in PROFILES:
        for version in VERSIONS:
            yield from ((copy, None) for part in damaged(profile, version) for copy in part)
            yield from ((copy, None) for tag in TAGS for copy in shorter_and_longer(profile, tag, version))
        yield from ((copy, None) for copy in huge_declarations(profile))
    for parameters in SEALED:
        yield from ((copy, None) for copy in damaged_behind_checksums(*parameters))
    for name in DELTAS:
        copies, base = damaged_deltas(name, 500)
        yield from ((copy, base) for copy in copies)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("profile", PROFILES)
def test_flipped_bytes_and_truncations(profile, version):
    """20,000 damaged files in all: the checksums catch every one."""
    flipped, other_sizes, swapped = damaged(profile, version)
    assert check(flipped) == (4250, 4250)
    for copies in (other_sizes, swapped):
        assert check(copies) == (len(copies), len(copies))


@pytest.mark.parametrize(("profile", "count", "make"), SEALED)
def test_flipped_bytes_behind_corrected_checksums(profile, count, make):
    """What the checksums cannot catch is refused by the code that reads it, or is a valid file of finite arrays."""
    done, refused = check(damaged_behind_checksums(profile, count, make))
    assert done == count and refused > count / 2


@pytest.mark.parametrize("profile", PROFILES)
def test_flipped_bytes_of_a_delta(profile):
    base = codec.encode(arrays(), {})
    delta = codec.encode(changed_in_every_way(arrays()), {}, profile=profile, base=base)
    expected = [(name, array.tobytes()) for name, array in changed_in_every_way(arrays()).items()]
    assert check(flips(delta, 100, 4), expected, base) == (100, 100)


@pytest.mark.parametrize("name", DELTAS)
def test_flipped_bytes_of_a_delta_behind_corrected_checksums(name):
    copies, base = damaged_deltas(name, 120)
    count, refused = check(copies, base=base)
    assert count == 120 and refused > 60


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tag", TAGS)
def test_shorter_and_longer_sections(profile, tag, version):
    copies = shorter_and_longer(profile, tag, version)
    assert check(copies) == (len(copies), len(copies))


def declare(data, shapes):
    """The file with other arrays declared in its JSON."""
    text = json.dumps({"arrays": shapes, "header": {}}, separators=(",", ":")).encode()
    return with_section(data, "JSON", zlib.compress(text))


def huge_declarations(profile):
    data = codec.encode({"a": grid((64,), 1)}, {}, profile=profile)
    floats = codec.encode({"a": (noise(64, 3) / 7).astype(np.float32)}, {}, profile=profile)
    bomb = zlib.compress(b" " * (64 << 20))
    return [
        declare(data, {"a": [1 << 40]}),
        declare(data, {"a": [1 << 20, 1 << 20]}),
        declare(data, {"a": [0, 1 << 27, 1 << 27]}),
        declare(data, {str(number): [1 << 18] for number in range(1024)}),
        declare(data, {"a": [1 << 26]}),
        declare(floats, {"a": [1 << 26]}),
        with_section(data, "JSON", bomb),
        sealed(data[:16] + b"JSON" + (0xFFFFFFFF).to_bytes(4, "little") + data[24:]),
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_huge_declarations_take_no_memory(profile):
    copies = huge_declarations(profile)
    tracemalloc.start()
    try:
        assert check(copies) == (len(copies), len(copies))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_is_read():
    with pytest.raises(codec.TooLargeError):
        codec.decode(bytes(container.MAX_BYTES + 1))
