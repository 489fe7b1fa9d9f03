"""At whatever moment an export is killed, every version that a server sees is whole."""

import builtins
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from export import export, versions
from export.formats import reproducible
from export.formats.saved_model import export_saved_model

FILES = ("saved_model.pb", "variables/variables.index", "assets.extra/SHA256SUMS")


def write_files(spec, arrays, folder, precision):
    """Stands in for TensorFlow, which cannot run in a forked process."""
    for name in FILES:
        path = pathlib.Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        with open(path, "w") as file:
            file.write(name)


def is_whole(folder):
    return all((folder / name).is_file() and (folder / name).read_text() == name for name in FILES)


def killed_at(monkeypatch, call, after):
    """Ends this process at the n-th open, fsync, rename, creation or removal, before or after the operation."""
    count = 0

    def patched(function):
        def wrapper(*args, **kwargs):
            nonlocal count
            count += 1
            mine = count == call
            if mine and not after:
                os._exit(9)
            try:
                return function(*args, **kwargs)
            finally:
                if mine:
                    os._exit(9)

        return wrapper

    monkeypatch.setattr(builtins, "open", patched(builtins.open))
    for name in ("open", "fsync", "rename", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, patched(getattr(os, name)))


@pytest.mark.large
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_moment(tmp_path, monkeypatch, spec, arrays, after):
    """A forked child ends at each of its calls in turn: the old version, the new one or both are then there, whole."""
    monkeypatch.setattr(reproducible, "write_saved_model", write_files)
    seen = set()
    for call in range(1, 200):
        base = tmp_path / str(call)
        export_saved_model(spec, arrays, base)
        child = os.fork()
        if child == 0:
            killed_at(monkeypatch, call, after)
            export_saved_model(spec, arrays, base, keep_versions=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        folders = versions.list_versions(base)
        assert folders and all(is_whole(folder) for folder in folders.values())
        seen.add(tuple(folders))
        if os.waitstatus_to_exitcode(status) == 0:
            break
        # What is left over is not in the way of the next export.
        assert is_whole(export_saved_model(spec, arrays, base, keep_versions=1))
        assert len(versions.list_versions(base)) == 1
    assert 20 < call < 199
    assert seen == {(1,), (1, 2), (2,)}


def test_the_writing_process_fails(tmp_path, monkeypatch, spec, arrays):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(OSError, match="ended with 1"):
        export_saved_model(spec, arrays, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("status", "kind"), [(2, ValueError), (3, OSError)])
def test_the_writing_process_says_why(tmp_path, monkeypatch, spec, arrays, status, kind):
    """A script stands in for that process; its arguments are -P -m MODULE SCRATCH FOLDER PRECISION."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nprintf 'the reason' > \"$4/error.txt\"\nexit {status}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", os.fspath(script))
    with pytest.raises(kind, match="the reason"):
        export_saved_model(spec, arrays, tmp_path / "served")
    assert os.listdir(tmp_path / "served") == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("bad model"), 2), (OSError("full disk"), 3), (tf.errors.UnknownError(None, None, "full disk"), 3)],
)
def test_an_error_in_the_writing_process_is_its_exit_status(tmp_path, monkeypatch, spec, arrays, error, status):
    def fail(*_):
        raise error

    np.savez(tmp_path / "arrays.npz", **arrays)
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    monkeypatch.setattr(sys, "argv", ["reproducible", os.fspath(tmp_path), os.fspath(tmp_path), "float32"])
    monkeypatch.setattr(reproducible, "write_in_this_process", fail)
    with pytest.raises(SystemExit) as caught:
        reproducible.main()
    assert caught.value.code == status
    assert (tmp_path / "error.txt").read_text() == str(error)


@pytest.mark.large
def test_killed_for_real_at_random_moments(tmp_path, base_path, run_command):
    """SIGKILL ends the whole process group of sqz-export. No incomplete version is left, and the next export works."""
    command = [sys.executable, "-m", "export.export", f"--model={base_path / '3'}", f"--base_path={tmp_path}"]
    start = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - start
    moments = random.Random(int.from_bytes(os.urandom(4)))
    verified = set()
    for _ in range(3):
        process = subprocess.Popen(command, start_new_session=True)
        try:
            process.wait(timeout=moments.uniform(0.2, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for folder in set(versions.list_versions(tmp_path).values()) - verified:
            assert not run_command(export, f"--verify={folder}")
            verified.add(folder)
    assert not run_command(export, *command[3:])
