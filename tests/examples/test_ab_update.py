"""A device's update is verified, tried and rolled back; wherever it is killed, a slot that works is left."""

import builtins
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from examples import ab_update
from sqz_keras.runtimes import litert_file, self_test
from sqz_keras.runtimes.run import run_litert
from sqz_keras.weights import sqz
from sqz_keras.weights.arrays import WeightsFileError
from tests.export.samples import small_spec
from tests.runtimes.nets import telling_arrays

ROOT = pathlib.Path(__file__).parents[2]
SPEC = small_spec()


def sqz_file(arrays, answers_of=None, base=None):
    """A .sqz file with a self-test whose answers come from the weights `answers_of`, by default from its own."""
    data = litert_file.convert(SPEC, arrays if answers_of is None else answers_of)
    test = self_test.make(SPEC, lambda images: run_litert(data, images))
    return sqz.encode(SPEC, arrays, {}, base=base, self_test=test)


def test_the_guide_shows_the_example():
    """It shows the functions `update` and `start` word for word."""
    page, example = ((ROOT / path).read_text("utf-8") for path in ("docs/device.md", "examples/ab_update.py"))
    functions = re.findall(r"^def (?:update|start)\(.*?(?=^(?:```|def ))", page, re.MULTILINE | re.DOTALL)
    assert len(functions) == 2 and all(function.strip() in example for function in functions)


@pytest.fixture(scope="module")
def old():
    return telling_arrays(SPEC)


@pytest.fixture(scope="module")
def new(old):
    return old | {"conv10/bias": old["conv10/bias"] + np.arange(10, dtype=np.float32)}


@pytest.fixture
def device(tmp_path, old):
    """A device with the old model in slot a."""
    folder = tmp_path / "device"
    (tmp_path / "first.sqz").write_bytes(sqz_file(old))
    assert ab_update.update(folder, tmp_path / "first.sqz") == folder / "a" / "model.tflite"
    return folder


@pytest.fixture
def delta(tmp_path, device, new):
    path = tmp_path / "delta.sqz"
    path.write_bytes(sqz_file(new, base=(device / "a" / "model.sqz").read_bytes()))
    return path


def works_as(model, arrays):
    """Whether a device's model is, byte for byte, what the arrays are converted to."""
    return model.read_bytes() == litert_file.convert(SPEC, arrays)


def test_update_and_the_next(device, delta, new, old, tmp_path):
    model = ab_update.update(device, delta)
    assert model == ab_update.start(device) == device / "b" / "model.tflite" and works_as(model, new)
    back = tmp_path / "back.sqz"
    back.write_bytes(sqz_file(old, base=(device / "b" / "model.sqz").read_bytes()))
    assert ab_update.update(device, back) == device / "a" / "model.tflite"
    assert works_as(device / "a" / "model.tflite", old)


def test_a_failed_self_test_rolls_back(device, new, old, tmp_path, capsys):
    bad = tmp_path / "bad.sqz"
    bad.write_bytes(sqz_file(new, answers_of=old, base=(device / "a" / "model.sqz").read_bytes()))
    assert works_as(ab_update.update(device, bad), old)
    assert "The self-test failed: expected the probabilities" in capsys.readouterr().err
    assert json.loads((device / "state.json").read_text()) == {"active": "a", "on_trial": False}


def test_a_whole_file_replaces_what_no_delta_fits(device, new, tmp_path):
    """Here the installed file is damaged; another release of zlib may have the same effect."""
    (device / "a" / "model.sqz").write_bytes(b"damaged")
    (tmp_path / "whole.sqz").write_bytes(sqz_file(new))
    model = ab_update.update(device, tmp_path / "whole.sqz")
    assert model == device / "b" / "model.tflite" and works_as(model, new)


def cannot_prepare(*_):
    raise RuntimeError("Node number 3 failed to prepare.")


@pytest.mark.parametrize("fault", ["the runtime raises", "model.sqz", "model.tflite"])
def test_a_model_that_cannot_be_loaded_rolls_back(device, delta, old, fault, monkeypatch, capsys):
    if fault == "the runtime raises":
        monkeypatch.setattr(ab_update, "run_litert", cannot_prepare)
    else:  # damaged between the switch and the self-test
        passes = ab_update.passes
        monkeypatch.setattr(ab_update, "passes", lambda slot: (slot / fault).write_bytes(b"damaged") and passes(slot))
    assert works_as(ab_update.update(device, delta), old)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert json.loads((device / "state.json").read_text()) == {"active": "a", "on_trial": False}


def test_a_device_without_a_model_says_so_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, ab_update.__file__, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} holds no model yet; install a whole file first.\n"


def test_a_first_file_that_fails_is_refused(new, old, tmp_path):
    (tmp_path / "bad.sqz").write_bytes(sqz_file(new, answers_of=old))
    with pytest.raises(ValueError, match="no other slot to go back to"):
        ab_update.update(tmp_path, tmp_path / "bad.sqz")
    assert not (tmp_path / "state.json").exists()


def test_a_damaged_delta_and_one_for_another_device_change_nothing(device, delta, old, tmp_path):
    data = bytearray(delta.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.sqz").write_bytes(data)
    (tmp_path / "other.sqz").write_bytes(sqz_file(old, base=sqz.encode(SPEC, old, {"another": "file"})))
    for name, error in (("damaged", "is damaged"), ("other", "its base has the sha256")):
        with pytest.raises(WeightsFileError, match=error):
            ab_update.update(device, tmp_path / f"{name}.sqz")
        assert works_as(ab_update.start(device), old)


def test_a_crash_in_the_self_test_rolls_back(device, delta, old, monkeypatch):
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(ab_update, "passes", lambda slot: os._exit(9))
        ab_update.update(device, delta)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert works_as(ab_update.start(device), old)


def end_at(monkeypatch, call):
    """Ends this process before its n-th open, fsync, rename, mkdir or removal, or in the middle of its n-th write."""
    count = 0

    def ends():
        nonlocal count
        count += 1
        return count == call

    def patched(function):
        def wrapper(*args, **kwargs):
            if ends():
                os._exit(9)
            return function(*args, **kwargs)

        return wrapper

    def patched_open(path, mode="r", *args, open=builtins.open, **kwargs):
        file = open(path, mode, *args, **kwargs)
        if "w" in mode:
            write = file.write

            class Cut:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def __getattr__(self, name):
                    return getattr(file, name)

                def write(self, data):
                    if ends():
                        write(data[: len(data) // 2])
                        file.flush()
                        os._exit(9)
                    return write(data)

            return Cut()
        return file

    monkeypatch.setattr(builtins, "open", patched_open)
    for name in ("open", "fsync", "replace", "mkdir", "unlink"):
        monkeypatch.setattr(os, name, patched(getattr(os, name)))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "Two slots on a device"),
        (["new"], "new holds no model yet"),
        (["new", "no.sqz"], "Nothing was updated: no.sqz"),
    ],
)
def test_wrong_arguments_end_in_a_message(tmp_path, arguments, error):
    command = [sys.executable, ROOT / "examples/ab_update.py", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith(error), result.stderr


@pytest.mark.large
def test_killed_at_every_write(device, delta, old, new, monkeypatch, tmp_path):
    """After each kill the device starts with the old model or the new one, and accepts the update again."""
    monkeypatch.setattr(ab_update, "run_litert", None)  # no runtime in a forked process
    monkeypatch.setattr(ab_update, "passes", lambda slot: (slot / "model.tflite").stat().st_size > 0)
    seen = []
    for call in range(1, 200):
        copy = tmp_path / f"device{call}"
        shutil.copytree(device, copy)
        child = os.fork()
        if child == 0:
            end_at(monkeypatch, call)
            ab_update.update(copy, delta)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        model = ab_update.start(copy)
        is_new = works_as(model, new)
        assert is_new or works_as(model, old)
        seen.append(is_new)
        if status == 0:
            break
        assert status == 9
        if not is_new:
            assert works_as(ab_update.update(copy, delta), new)
    assert 15 < call < 199 and not seen[0] and seen[-1]
    assert seen.count(True) > 2, "it was killed after the switch too"
