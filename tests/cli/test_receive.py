"""sqz-receive turns a sent file into a file for a runtime, with numpy and flatbuffers alone."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.runtimes.receive import write_received
from sqz_keras.runtimes.run import run_litert, run_onnx
from sqz_keras.weights import sqz
from sqz_keras.weights.arrays import WeightsFileError
from tests.export.samples import small_spec
from tests.runtimes.nets import keras_answers, random_images, telling_arrays

ROOT = pathlib.Path(__file__).parents[2]
SPEC = small_spec()
ABSENT = ("tensorflow", "keras", "tf_keras", "jax", "torch", "h5py", "onnx", "google", "PIL")


@pytest.fixture(scope="module")
def arrays():
    return telling_arrays(SPEC)


@pytest.fixture
def sent(tmp_path, arrays):
    """Writes installed.sqz, a whole file, and update.sqz, a delta against it that changes a bias; gives its arrays."""
    changed = arrays | {"conv10/bias": arrays["conv10/bias"] + np.arange(10, dtype=np.float32)}
    whole = sqz.encode(SPEC, arrays, {"made_by": "a test"})
    (tmp_path / "installed.sqz").write_bytes(whole)
    (tmp_path / "update.sqz").write_bytes(sqz.encode(SPEC, changed, {"made_by": "a test"}, base=whole))
    return changed


def receive_without(absent, folder, *argv):
    """Runs the command in a process that cannot import the packages in `absent`."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}));"
        "from sqz_keras.cli import receive; sys.argv[0] = 'sqz-receive'; receive.run()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_delta_becomes_every_file_without_keras(tmp_path, sent):
    outputs = [f"--output=model{suffix}" for suffix in (".tflite", ".onnx", ".npz", ".sqz")]
    done = receive_without(ABSENT, tmp_path, "update.sqz", "--base=installed.sqz", *outputs)
    assert (done.returncode, done.stderr) == (0, "")
    images = random_images(SPEC)
    expected = keras_answers(SPEC, sent, images)
    litert, onnx = ((tmp_path / f"model{suffix}").read_bytes() for suffix in (".tflite", ".onnx"))
    np.testing.assert_allclose(run_litert(litert, images), expected, atol=1e-5)
    np.testing.assert_allclose(run_onnx(onnx, images), expected, atol=1e-5)
    with np.load(tmp_path / "model.npz") as loaded:
        assert loaded.files == list(sent)
        for name, array in sent.items():
            np.testing.assert_array_equal(loaded[name], array)
    whole = sqz.encode(SPEC, sent, {"made_by": "a test"})
    assert (tmp_path / "model.sqz").read_bytes() == whole, "the bytes of the whole file, so that deltas can follow"
    sizes = [
        f"model{suffix}: {(tmp_path / f'model{suffix}').stat().st_size:,} bytes" for suffix in (".tflite", ".onnx")
    ]
    assert [line.split(", 10 classes")[0] for line in done.stdout.splitlines()[:2]] == sizes


def test_a_whole_file_keeps_its_bytes(tmp_path, sent, monkeypatch):
    """The next delta is made against the file that was sent, even if this release would encode it differently."""
    sent_file = tmp_path / "installed.sqz"
    model = sqz.read_model(sent_file)
    monkeypatch.setattr(codec, "encode", lambda *_, **__: b"by another zlib")
    write_received(model, tmp_path / "base.sqz")
    assert (tmp_path / "base.sqz").read_bytes() == sent_file.read_bytes()


def test_float16(tmp_path, sent):
    for name, flag in (("single", []), ("half", ["--float16"])):
        done = receive_without(ABSENT, tmp_path, "installed.sqz", f"--output={name}.tflite", *flag)
        assert done.returncode == 0
    sizes = [(tmp_path / f"{name}.tflite").stat().st_size for name in ("single", "half")]
    assert sizes[1] < sizes[0] - 500


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["update.sqz", "--output=m.npz"], "update.sqz: The file is a delta; give its base, the file with the sha256"),
        (["update.sqz", "--base=update.sqz", "--output=m.npz"], "its base has the sha256"),
        (["installed.sqz", "--base=installed.sqz", "--output=m.npz"], "A base is given, but the file is not a delta"),
        (["installed.sqz", "--output=m.pb"], "The output must end in .tflite, .onnx, .npz or .sqz, got m.pb"),
        (["installed.sqz", "--output=m.onnx", "--float16"], "--float16 is for .tflite files; leave it out, or add"),
        (["installed.sqz", "--output=nowhere/m.npz"], "nowhere/m.npz must be a file in an existing folder"),
        (["update.sqz", "--base=installed.sqz", "--output=./update.sqz"], "would replace the update"),
        (["update.sqz", "--base=installed.sqz", "--output=installed.sqz"], "would replace its base"),
        (["nothing.sqz", "--output=m.npz"], "nothing.sqz: expected a file, got nothing"),
        (["damaged.sqz", "--output=m.npz"], "damaged.sqz: Section CODE is damaged"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(tmp_path, sent, argv, message):
    data = bytearray((tmp_path / "installed.sqz").read_bytes())
    data[-20] ^= 1
    (tmp_path / "damaged.sqz").write_bytes(data)
    done = receive_without((), tmp_path, *argv)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("sqz-receive: ") and message in line
    assert sorted(os.listdir(tmp_path)) == ["damaged.sqz", "installed.sqz", "update.sqz"]


def test_without_flatbuffers_the_extra_is_named(tmp_path, sent):
    done = receive_without(("flatbuffers",), tmp_path, "installed.sqz", "--output=m.onnx", "--output=m.tflite")
    assert done.returncode == 1
    assert done.stderr == (
        "sqz-receive: needs the package flatbuffers; install it with: pip install 'sqz-keras[receiver]'\n"
    )
    assert not (tmp_path / "m.onnx").exists()


def test_an_output_that_cannot_be_made_stops_all_others(tmp_path, arrays):
    large = arrays | {"conv10/kernel": arrays["conv10/kernel"] + np.float32(1e6)}  # more than float16 holds
    (tmp_path / "large.sqz").write_bytes(sqz.encode(SPEC, large))
    done = receive_without((), tmp_path, "large.sqz", "--output=m.npz", "--output=m.tflite", "--float16")
    assert (done.returncode, done.stdout) == (1, "") and "float16" in done.stderr
    assert os.listdir(tmp_path) == ["large.sqz"]


def test_weights_of_another_hash_are_refused(tmp_path, arrays):
    header = json.loads(json.dumps(sqz.header(SPEC, arrays, {})))
    header["model_spec"]["weights_sha256"] = "0" * 64
    (tmp_path / "other.sqz").write_bytes(codec.encode(arrays, header))
    with pytest.raises(WeightsFileError, match="not those whose hash the file states"):
        sqz.read_model(tmp_path / "other.sqz")
