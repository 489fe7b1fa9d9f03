"""The written format is enough to read files: a decoder that shares no line with the codec reads the golden files."""

import pathlib
import struct

import pytest

from tests.codec import slow_decoder
from tests.codec.samples import arrays, arrays_of_version_2, changed, changed_in_every_way

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["paper", "max", "delta", "paper2", "max2", "delta2_paper", "delta2_max"])
def test_a_decoder_from_the_specification_reads_the_golden_files(name):
    base = (GOLDEN / "max.sqz").read_bytes() if name.startswith("delta") else None
    decoded = slow_decoder.decode((GOLDEN / f"{name}.sqz").read_bytes(), base)
    expected = arrays_of_version_2() if name.endswith("2") else arrays()
    if name.startswith("delta"):
        expected = changed(expected) if name == "delta" else changed_in_every_way(expected)
    assert list(decoded) == list(expected)
    for key, array in expected.items():
        shape, values, _ = decoded[key]
        assert shape == array.shape
        assert struct.pack(f"<{len(values)}f", *values) == array.astype("<f4").tobytes(), key
