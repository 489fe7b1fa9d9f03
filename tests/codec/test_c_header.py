"""The decoder in C, `c/sqz.h`: the same verdict and the same bits as the Python reader, under sanitizers."""

import hashlib
import itertools
import json
import math
import pathlib
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.weights.readers import read_arrays
from tests.codec import odd_texts, test_mutations
from tests.codec.samples import (
    arrays,
    arrays_of_version_2,
    changed_in_every_way,
    codebook,
    floats,
    grid,
    sections,
    trellis,
    with_section,
)
from tests.codec.test_golden import load

SOURCES = pathlib.Path(__file__).parents[2] / "c"
STRICT = ["-std=c99", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
DELTAS = ("delta", "delta2_paper", "delta2_max")
SANITIZED = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def compiler():
    found = shutil.which("gcc") or shutil.which("clang")
    if not found:
        pytest.skip("there is no C compiler on the PATH (gcc or clang)")
    return found


@pytest.fixture(scope="module")
def program(compiler, tmp_path_factory):
    """The program `sqz` with sanitizers."""
    output = tmp_path_factory.mktemp("c") / "sqz"
    subprocess.run([compiler, *STRICT, *SANITIZED, "-o", output, SOURCES / "sqz.c"], check=True)
    return output


def verdicts(program, files, folder):
    """The lines that the program prints about `files`, which are pairs of a file and its base or None."""
    corpus = folder / "corpus"
    parts = itertools.chain.from_iterable(
        (struct.pack("<II", len(base or b""), len(data)), base or b"", data) for data, base in files
    )
    corpus.write_bytes(b"".join(parts))
    result = subprocess.run([program, "--verdicts", corpus], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[:4000]
    lines = result.stdout.splitlines()
    assert len(lines) == len(files)
    return lines


def expected(data, base):
    """What the line about a file must say if the Python reader accepts the file, else None."""
    try:
        contents = codec.decode(data, base)
    except codec.SqzError:
        return None
    text = json_text(data, base)
    values = b"".join(array.tobytes() for array in contents.arrays.values())
    names = [
        name.encode("utf-8", "surrogatepass").hex() + (":" if array.shape else "") + ",".join(map(str, array.shape))
        for name, array in contents.arrays.items()
    ]
    return hashlib.sha256(text).hexdigest(), hashlib.sha256(values).hexdigest(), names, text, contents.header


def json_text(data, base):
    """The JSON of a file, inflated."""
    unpacker = zlib.decompressobj(
        **({"zdict": zlib.decompress(sections(base)["JSON"])} if base and data[4] > 1 else {})
    )
    return unpacker.decompress(sections(data)["JSON"])


def bound(data):
    """Bytes of workspace that are always enough for a file that is not a delta, as `sqz.h` documents."""
    text = zlib.decompress(sections(data)["JSON"])
    sizes = [math.prod(shape) for shape in json.loads(text)["arrays"].values()]
    return (1 << 20) + (64 << 10) * len(sizes) + 4 * (len(data) + len(text)) + (16 + 80) * sum(sizes)


def compare(program, files, folder):
    """Compares the verdicts of both readers. Returns how many files they accept."""
    accepted = 0
    for (data, base), line in zip(files, verdicts(program, files, folder), strict=True):
        known = expected(data, base)
        if known is None:
            assert line.startswith("refused "), line
            continue
        accepted += 1
        text_hash, values_hash, names, text, header = known
        actual_text, actual_values, start, size, workspace, *actual_names = line.split(" ")
        assert (actual_text, actual_values, actual_names) == (text_hash, values_hash, names)
        assert base or int(workspace) <= bound(data)
        assert json.loads(text[int(start) : int(start) + int(size)]) == header
    return accepted


def test_golden_files(program, tmp_path):
    files = [(load(name), None) for name in ("paper", "max", "paper2", "max2")]
    files += [(load(name), load("max")) for name in DELTAS]
    assert compare(program, files, tmp_path) == len(files)
    wrong = [(load(name), base) for name in DELTAS for base in (None, load("paper"))] + [(load("max"), load("paper"))]
    assert all(line.startswith("refused 3 ") for line in verdicts(program, wrong, tmp_path))


def test_deltas(program, tmp_path):
    """Deltas against bases of both versions and profiles, with every kind of array and with long dictionaries."""
    files = []
    for profile in ("paper", "max"):
        for old, new in deltas():
            for base_profile in ("paper", "max"):
                base = codec.encode(old, {"words": list(range(9000))}, profile=base_profile)
                files.append((codec.encode(new, {"words": list(range(9001))}, profile=profile, base=base), base))
    assert compare(program, files, tmp_path) == len(files)


def deltas():
    """Pairs of a base's arrays and what they become."""
    yield arrays(), changed_in_every_way(arrays())
    yield arrays(), arrays()
    old = arrays_of_version_2()
    yield old, {name: array + grid(array.shape, 5, 9) if array.size else array for name, array in old.items()}
    sparse = {"k": grid((3, 3, 20, 30), 1), "all": codebook((40, 50), 2, 1), "one": grid((2000,), 3, 700)}
    yield sparse, {name: array + grid(array.shape, 4, 40) for name, array in sparse.items()}
    yield sparse, {name: array[::-1].copy() for name, array in sparse.items()}


def test_dictionaries(program, tmp_path):
    """The dictionary for a delta's JSON is the JSON of its base, and only a delta of version 2 has a dictionary."""
    base, text = load("max"), zlib.decompress(sections(load("max"))["JSON"])
    delta, json_bytes = (
        load("delta2_max"),
        zlib.decompressobj(zdict=text).decompress(sections(load("delta2_max"))["JSON"]),
    )

    def packed(dictionary):
        compressor = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
        return compressor.compress(json_bytes) + compressor.flush()

    good = [with_section(delta, "JSON", part) for part in (packed(text), zlib.compress(json_bytes))]
    assert compare(program, [(data, base) for data in good], tmp_path) == 2
    other = [text[1:], text + b" ", text[:-1] + b"x"]
    bad = [(with_section(delta, "JSON", packed(dictionary)), base) for dictionary in other]
    bad.append((with_section(load("delta"), "JSON", packed(text)), base))
    bad.append((with_section(base, "JSON", packed(text)), None))
    stream = bytearray(packed(text))
    for at in range(len(stream)):
        stream[at] ^= 1
        bad.append((with_section(delta, "JSON", bytes(stream)), base))
        stream[at] ^= 1
    assert compare(program, bad, tmp_path) == 0


def test_every_fiftieth_damaged_file(program, tmp_path):
    files = list(itertools.islice(test_mutations.corpus(), 0, None, 50))
    assert len(files) > 500 and 0 < compare(program, files, tmp_path) < len(files) / 4


@pytest.mark.large
def test_every_damaged_file(program, tmp_path):
    """The more than 30,000 files of `test_mutations.py`."""
    files = list(test_mutations.corpus())
    assert len(files) > 30_000 and 0 < compare(program, files, tmp_path) < len(files) / 4


def test_json(program, tmp_path):
    """The JSON is checked as Python's own parser checks it, with the limits of the specification."""
    file = codec.encode({"k": np.arange(8, dtype=np.float32) / 3}, {}, profile="paper")
    texts = [text.encode() for text in [*odd_texts.documents(), *odd_texts.damaged_documents(2000)]]
    files = [(with_section(file, "JSON", zlib.compress(text)), None) for text in texts + odd_texts.odd_bytes()]
    assert 50 < compare(program, files, tmp_path) < len(files) / 2


def test_zlib_streams(program, tmp_path):
    file = codec.encode({"k": np.arange(8, dtype=np.float32) / 3}, {}, profile="paper")
    text = b'{"arrays":{"k":[8]},"header":{"a":"' + bytes(range(97, 123)) * 9 + bytes(range(48, 91, 5)) * 3 + b'"}}'
    streams = odd_texts.zlib_streams(text, 1500)
    files = [(with_section(file, "JSON", stream), None) for stream in streams]
    assert 30 <= compare(program, files, tmp_path) < len(files) / 2


@pytest.mark.parametrize("profile", ["paper", pytest.param("max", marks=pytest.mark.large)])
def test_real_weights(program, test_data, tmp_path, profile):
    for path in ("deep_compression/compressed_SqueezeNet.net", "squeezenet1.1_authors/SqueezeNet_fp16.onnx"):
        data = codec.encode(read_arrays(test_data / "weights" / path), {"from": path}, profile=profile)
        assert compare(program, [(data, None)], tmp_path) == 1


def awkward():
    """Arrays that need much workspace for their size, or are at the limits of the models."""
    wide = np.zeros((1, 5000), np.float32)
    wide[0, ::3] = 1
    spread = np.zeros(9, np.float32)
    spread[[1, 2]] = 2000, -2000
    yield {"row": wide, "column": wide.T, "taps": wide.reshape(-1, 1, 1, 1), "pairs": wide.reshape(2, 1, 1, 2500)}
    yield {str(number): spread + np.float32(number) * np.sign(np.abs(spread)) for number in range(6)}
    yield {str(number): np.float32([number, -0.0, 1e-45, 3e38]) for number in range(300)}
    yield {str(number): trellis((5, 5, 2, 3), number, number % 2 == 0) for number in range(40)}
    yield {
        "empty": np.zeros((3, 0, 2), np.float32),
        "scalar": np.array(-1.5, np.float32),
        "zeros": np.zeros(7, np.float32),
    }
    shapes = [(0, 3_000_000), (3_000_000, 0), (3_000_000, 1, 1, 0), (1000, 0, 3000)]  # many rows, columns and taps
    yield {str(shape): np.zeros(shape, np.float32) for shape in shapes} | {"floats": floats((3, 3, 20, 30), 7)}
    yield {"large": codebook((30, 70), 5, 1), "rare": grid((7, 9, 11), 6, 200), "floats": floats((2, 3, 4, 500), 7)}
    yield {}


@pytest.mark.parametrize("profile", ["paper", "max"])
def test_awkward_arrays(program, tmp_path, profile):
    files = [(codec.encode(arrays, {}, profile=profile), None) for arrays in awkward()]
    assert compare(program, files, tmp_path) == len(files)


@pytest.mark.large
def test_the_largest_arrays_that_are_modelled(compiler, tmp_path):
    """2**22 codes in a row, and a plane in two parts: what is learned from its first 2**22 bytes holds for the rest."""
    program = tmp_path / "sqz"
    flags = ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run([compiler, *STRICT, *flags, "-o", program, SOURCES / "sqz.c"], check=True)
    arrays = {"codes": grid((1 << 22,), 1, 1 << 12), "floats": floats(((1 << 22) + 5000,), 7)}
    assert compare(program, [(codec.encode(arrays, {}), None)], tmp_path) == 1


def test_texts_of_a_file_are_escaped(program, tmp_path):
    file = tmp_path / "odd.sqz"
    file.write_bytes(codec.encode({"a\x1b[2J\x00b\u009bé": np.ones(2, np.float32)}, {"c": "\x7f"}))
    listed = subprocess.run([program, file], capture_output=True, check=True).stdout.decode()
    assert listed.startswith("a\\x1b[2J\\x00b\\x9bé [2]\n")
    assert 'header {"c":"\\x7f"}' in listed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-ffast-math"], "no -ffast-math"),
        (["-ffinite-math-only"], "no -ffast-math"),
        (["-funsafe-math-optimizations"], "no -ffast-math"),
        (["-U__SIZEOF_DOUBLE__", "-D__SIZEOF_DOUBLE__=4"], "doubles of 64 bits"),
        (["-U__cplusplus", "-D__cplusplus=201103L"], "in a .c file"),
    ],
)
def test_what_the_decoder_cannot_be_compiled_with_is_refused(compiler, tmp_path, flags, message):
    (tmp_path / "reader.c").write_text('#define SQZ_IMPLEMENTATION\n#include "sqz.h"\n')
    command = [compiler, *flags, f"-I{SOURCES}", "-c", "-o", tmp_path / "sqz.o", tmp_path / "reader.c"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode and message in result.stderr


@pytest.mark.large
@pytest.mark.parametrize(
    "flags",
    [["-O0"], ["-O2"], ["-O3", "-march=native", "-ffp-contract=fast"], ["-O2", "-fsingle-precision-constant"]],
)
def test_optimised_code_decodes_the_same(compiler, tmp_path, flags):
    """Fused multiply-adds and floats would change the models' numbers; the header prevents both for all flags."""
    if "clang" in compiler and "-fsingle-precision-constant" in flags:
        pytest.skip("clang has no such flag")
    program = tmp_path / "sqz"
    subprocess.run([compiler, *STRICT, *flags, "-o", program, SOURCES / "sqz.c"], check=True)
    files = [(load(name), None) for name in ("max", "max2")]
    files += [(codec.encode(make(), {}), None) for make in (arrays, arrays_of_version_2)]
    sparse = np.random.default_rng(3).integers(-3, 4, (3, 3, 64, 256)) * (np.arange(256) % 3 == 0)
    files.append((codec.encode({"sparse": sparse.astype(np.float32)}, {}), None))
    assert compare(program, files, tmp_path) == len(files)


def test_the_example_of_the_header_compiles(compiler, tmp_path):
    comment = (SOURCES / "sqz.h").read_text().split("*/")[0]
    lines = [line[7:] for line in comment.splitlines() if line.startswith("       ")]
    assert lines[0] == "#define SQZ_IMPLEMENTATION" and 8 < len(lines) < 20
    (tmp_path / "example.c").write_text("\n".join(lines) + "\n")
    flags = [*STRICT, "-Wconversion", "-Wshadow", f"-I{SOURCES}", "-c", "-o", tmp_path / "example.o"]
    subprocess.run([compiler, *flags, tmp_path / "example.c"], check=True)
