"""TensorFlow's log and Pillow's warnings are kept out of what a command prints; nothing else on its stderr is lost."""

import os
import re
import subprocess
import sys

import pytest

from sqz_keras import ModelSpec, quiet
from tests.export.samples import encode, random_image

LOG = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795935928.024665    6229 port.cc:153] oneDNN custom operations are on. You may see slight",
    "E0000 00:00:1795935934.758747    6229 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
    "W0000 00:00:1795935934.758747    6229 some/file-name.cc:5] something",
]
FATAL = "F0000 00:00:1795935934.758747    6229 cpu_feature_guard.cc:7] This CPU lacks AVX"
# Stands for TensorFlow: it prints as its libraries do while they are loaded.
FAKE = f"""
import os, sys, warnings
os.write(2, {chr(10).join([*LOG, ""]).encode()!r})
warnings.warn_explicit("Corrupt EXIF data", UserWarning, "Image.py", 1, "PIL.Image")
print("a line of Python", file=sys.stderr)
if os.environ.get("FAKE") == "abort":
    os.write(2, {FATAL.encode()!r} + b"\\n")
    os.abort()
if os.environ.get("FAKE") == "raise":
    raise ImportError("a library is missing")
"""
SCRIPT = """
import os, sys
from absl import flags
from sqz_keras import command

def main(argv):
    print("before", file=sys.stderr)
    import tensorflow
    print("after", file=sys.stderr)
    os.write(2, os.environ["TF_CPP_MIN_LOG_LEVEL"].encode() + b"\\n")
    assert tensorflow.__name__ == "tensorflow"

command.run(main, lambda: None, "Imports TensorFlow.")
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command that imports the fake TensorFlow; returns its exit status and the lines of stderr."""
    (tmp_path / "tensorflow.py").write_text(FAKE)

    def run(*arguments, **environment):
        inherited = {name: value for name, value in os.environ.items() if name != quiet.LEVEL}
        environment = inherited | {"PYTHONPATH": str(tmp_path)} | environment
        command = [sys.executable, "-c", SCRIPT, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr.splitlines()

    return run


def test_the_log_is_left_out_and_all_else_is_in_order(run):
    assert run() == (0, ["before", "a line of Python", "after", "3"])


@pytest.mark.parametrize(
    ("arguments", "environment", "level"),
    [
        (["--verbosity=1"], {}, "0"),
        (["-v=1"], {quiet.LEVEL: "2"}, "2"),
        ([], {quiet.LEVEL: "0"}, "0"),
    ],
)
def test_whoever_wants_the_log_gets_it(run, arguments, environment, level):
    shown = [*LOG, "Image.py:1: UserWarning: Corrupt EXIF data", "a line of Python"]
    assert run(*arguments, **environment) == (0, ["before", *shown, "after", level])


def test_a_library_that_ends_the_process_is_heard(run):
    status, lines = run(FAKE="abort")
    assert status == -6
    assert lines[:3] == ["before", "a line of Python", FATAL]


def test_an_import_that_fails_is_an_exception(run):
    status, lines = run(FAKE="raise")
    assert status == 1
    assert lines[:2] == ["before", "a line of Python"]
    assert "Traceback" in lines[2] and lines[-1] == "ImportError: a library is missing"


def test_without_stderr_nothing_is_filtered(tmp_path):
    code = "import os; os.close(2); from sqz_keras import quiet; quiet.silence(); import tensorflow"
    (tmp_path / "tensorflow.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), quiet.LEVEL: "3"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.large
def test_commands_print_their_own_lines_alone(tmp_path):
    """These commands import the real TensorFlow, with Keras and LiteRT."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(encode(random_image(40, 40, seed=number)))
    save_small_model(tmp_path / "model.sqz")
    model = f"--model={tmp_path / 'model.sqz'}"
    environment = {name: value for name, value in os.environ.items() if name != quiet.LEVEL}

    def errors_of(module, *arguments):
        command = [sys.executable, "-m", module, model, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert errors_of("sqz_keras.cli.classify", photos / "0.jpg") == ""
    assert errors_of("export.export", f"--base_path={tmp_path / 'served'}", "--model_version=1") == ""
    assert errors_of("export.export", "--format=litert", f"--output={tmp_path / 'a.tflite'}") == ""
    shown = errors_of("sqz_keras.cli.classify", photos / "0.jpg", "--verbosity=1")
    assert re.search(r"^I0000 ", shown, re.MULTILINE)


def save_small_model(path):
    from sqz_keras.weights import sqz
    from tests.export.samples import random_arrays, small_spec

    spec: ModelSpec = small_spec()
    path.write_bytes(sqz.encode(spec, random_arrays(spec)))
