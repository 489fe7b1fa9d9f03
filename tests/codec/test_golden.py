"""Files of both versions stay readable for good, and the same arrays are still written in the same bytes."""

import pathlib

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.codec import container
from tests.codec.samples import (
    HEADER,
    arrays,
    arrays_of_version_2,
    assert_same,
    changed,
    changed_in_every_way,
    sections,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"


def load(name):
    return (GOLDEN / f"{name}.sqz").read_bytes()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("profile", ["paper", "max"])
def test_files_are_read_and_written_as_ever(profile, version):
    data, expected = (load(profile), arrays()) if version == 1 else (load(f"{profile}2"), arrays_of_version_2())
    contents = codec.decode(data)
    assert (contents.profile, contents.header) == (profile, HEADER)
    assert_same(contents.arrays, expected)
    again = codec.encode(expected, HEADER, profile=profile)
    assert container.read(again).version == container.read(data).version == version
    written, golden = sections(again), sections(data)
    assert written["VALS"] == golden["VALS"] and written["CODE"] == golden["CODE"]  # the rest depends on zlib
    assert len(written["ARRS"]) == pytest.approx(len(golden["ARRS"]), abs=20)


def test_a_delta_of_version_1_is_read_as_ever():
    contents = codec.decode(load("delta"), load("max"))
    assert_same(contents.arrays, changed(arrays()))
    assert len(codec.encode(changed(arrays()), HEADER, base=load("max"))) < 0.7 * len(load("delta"))


@pytest.mark.parametrize("profile", ["paper", "max"])
def test_a_delta_is_read_and_written_as_ever(profile):
    base, data, expected = load("max"), load(f"delta2_{profile}"), changed_in_every_way(arrays())
    contents = codec.decode(data, base)
    assert_same(contents.arrays, expected)
    described = codec.describe(data, base).arrays
    assert {array.kind for array in described} == {
        "same",
        "codebook_moved",
        "grid_moved",
        "planes_moved",
        "trellis_dense",
    }
    for array in described:
        values = expected[array.name]
        assert array.distinct == len(np.unique(values[values != 0])), array.name
        assert bool(array.entropy) == (array.kind in ("planes_moved", "trellis_dense")), array.name
    written = codec.encode(expected, HEADER, profile=profile, base=base)
    assert container.read(written).version == container.read(data).version == 2
    assert sections(written)["CODE"] == sections(data)["CODE"] and sections(written)["VALS"] == sections(data)["VALS"]
    assert len(sections(written)["ARRS"]) == pytest.approx(len(sections(data)["ARRS"]), abs=20)


def test_a_description_adds_up():
    for profile in ("paper", "max"):
        data = load(profile)
        layout = codec.describe(data)
        assert layout.bytes == len(data) == 16 + sum(section.bytes for section in layout.sections)
        assert [array.name for array in layout.arrays] == list(arrays())
        spent = sum(sum(array.bytes.values()) for array in layout.arrays)
        held = {section.name: section.bytes - 12 for section in layout.sections}
        assert spent == pytest.approx(held["VALS"] + held["CODE"], abs=24)
        kernel = {array.name: array for array in layout.arrays}["fire2/kernel"]
        values = arrays()["fire2/kernel"]
        assert kernel.kind == "grid" and kernel.distinct == len(np.unique(values[values != 0]))
        assert kernel.density == np.count_nonzero(values) / values.size
        assert kernel.bytes["codes"] == pytest.approx(kernel.entropy["codes"], rel=0.4)


@pytest.mark.parametrize("profile", ["paper", "max"])
def test_a_description_of_version_2_adds_up(profile):
    data = load(f"{profile}2")
    layout = codec.describe(data)
    spent = sum(sum(array.bytes.values()) for array in layout.arrays)
    held = {section.name: section.bytes - 12 for section in layout.sections}
    assert spent == pytest.approx(
        held["VALS"] + held["CODE"], abs=24 if profile == "max" else 200
    )  # paper: CODE also holds the lanes' lengths
    kinds = {array.name: array.kind for array in layout.arrays}
    assert kinds["conv1/kernel"] == "trellis_dense" and kinds["fire2/kernel"] == "trellis"
    assert kinds["table"] == "grid" and kinds["fire4/kernel"] == "planes"
