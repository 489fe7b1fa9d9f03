import re
import subprocess
import sys

import numpy as np
import pytest

from sqz_keras import Metaparameters, ModelSpec, codec
from sqz_keras.weights import sqz

SMALL = Metaparameters(base_e=8, incr_e=8, squeeze_ratio=0.5, stem_filters=4, stem_kernel=3)
SPEC = ModelSpec(version=None, metaparameters=SMALL, classes=30, labels=tuple(f"label{n}" for n in range(30)))


@pytest.fixture
def path(tmp_path):
    random = np.random.default_rng(0)
    arrays = {}
    for name, shape in SPEC.weight_shapes().items():
        array = random.integers(-3, 4, shape) / 7
        array[random.random(shape) < 0.5] = 0
        arrays[name] = array.astype(np.float32)
    path = tmp_path / "model.sqz"
    path.write_bytes(codec.encode(arrays, sqz.header(SPEC, arrays, {"stages": ["by hand"]}), profile="paper"))
    return path


def run(*arguments):
    command = [sys.executable, "-m", "sqz_keras.cli.inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_where_the_bytes_are(path):
    result = run(path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"profile paper, {path.stat().st_size:,} bytes"
    ratio = 4 * SPEC.count_params() / path.stat().st_size
    assert f"arrays, {ratio:.1f} times larger as float32:" in lines
    sizes = [int(size.replace(",", "")) for size in re.findall(r"^  \w{4} +([\d,]+) at", result.stdout, re.MULTILINE)]
    assert sum(sizes) + 16 == path.stat().st_size
    table = {line.split()[0]: line.split() for line in lines if "/" in line.split()[0]}
    assert list(table) == list(SPEC.weight_shapes())
    kernel = table["conv10/kernel"]
    assert kernel[1] == "x".join(map(str, SPEC.weight_shapes()["conv10/kernel"]))
    assert 30 < float(kernel[2].rstrip("%")) < 55
    assert kernel[3:5] == ["6", "3"], "values that are not 0, and the bits that tell them and 0 apart"
    assert 'provenance: {"stages": ["by hand"]}' in lines
    assert '"label9", "... 30 in all"]' in result.stdout


def test_any_file_of_the_format_is_shown(tmp_path):
    path = tmp_path / "other.sqz"
    path.write_bytes(codec.encode({"a\x1b[2J": np.ones((2, 3), np.float32)}, {"made by": "somebody"}))
    result = run(path)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout and "a\\u001b[2J" in result.stdout
    assert result.stdout.splitlines()[-1] == 'made by: "somebody"'


def test_entropy_is_shown_only_of_what_is_coded(tmp_path, path):
    """In a delta whose arrays are those of its base, nothing is coded."""
    base = path.read_bytes()
    (tmp_path / "delta.sqz").write_bytes(codec.encode(codec.decode(base).arrays, {}, base=base))
    tables = run(path).stdout, run(tmp_path / "delta.sqz", f"--base={path}").stdout
    shown = [[line.split()[-1] for line in table.splitlines() if "/kernel" in line.split()[0]] for table in tables]
    assert "-" not in shown[0] and set(shown[1]) == {"-"}


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "Which FILE?"), (["a.sqz", "b.sqz"], "Unexpected arguments: b.sqz")]
)
def test_one_file_is_required(arguments, message):
    result = run(*arguments)
    assert result.returncode == 1
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_file_is_one_line(path):
    path.write_bytes(path.read_bytes()[:-1])
    result = run(path)
    assert result.returncode == 1
    assert re.fullmatch(r"inspect\.py: .*model\.sqz: .*at byte \d+\)\.\n", result.stderr)
    path.unlink()
    assert "got nothing" in run(path).stderr
