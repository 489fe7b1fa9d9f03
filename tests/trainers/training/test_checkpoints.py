"""No kill, at any moment, and no damage to a file loses what an earlier checkpoint holds."""

import builtins
import os
import pathlib

import numpy as np
import pytest

from trainers.training import checkpoints

FIRST = {"weight/a": np.arange(6, dtype=np.float32).reshape(2, 3), "seed/0": np.array([1, 2], np.uint32)}
SECOND = {name: array + 1 for name, array in FIRST.items()}


def assert_same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name in expected:
        assert arrays[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(arrays[name], expected[name])


def test_round_trip(tmp_path):
    assert checkpoints.load_newest(tmp_path) is None
    checkpoints.save(tmp_path, 7, FIRST, {"history": [{"loss": 0.5}], "name": "ä"})
    arrays, meta = checkpoints.load_newest(tmp_path)
    assert_same(arrays, FIRST)
    assert meta == {"history": [{"loss": 0.5}], "name": "ä"}


def test_the_newest_is_taken_and_old_ones_go(tmp_path):
    for step in (1, 2, 3, 10, 200):
        checkpoints.save(tmp_path, step, FIRST, {"step": step})
    (tmp_path / ".step-000000300.npz.tmp").write_bytes(b"left by a killed run")
    checkpoints.prune(tmp_path, keep=2, always={2})
    assert checkpoints.steps(tmp_path) == [2, 10, 200]
    assert len(list(tmp_path.iterdir())) == 3
    assert checkpoints.load_newest(tmp_path)[1] == {"step": 200}
    assert checkpoints.load(tmp_path, 2)[1] == {"step": 2}


def test_a_checkpoint_that_another_process_removed_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "steps", lambda folder: [1, 2, 3])
    checkpoints.prune(tmp_path, keep=1, always=set())


def killed_at(monkeypatch, call, after):
    """Ends this process at the n-th open, write, fsync, rename or removal, before or after it is done."""
    count = 0

    def patched(function):
        def wrapper(*args, **kwargs):
            nonlocal count
            count += 1
            if count == call and not after:
                os._exit(9)
            result = function(*args, **kwargs)
            if count == call and after:
                os._exit(9)
            return result

        return wrapper

    class InTwo:
        """A file whose writes can be cut in the middle."""

        def __init__(self, *args, **kwargs):
            self.file = opened(*args, **kwargs)

        def write(self, data):
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                patched(self.file.write)(part)
                self.file.flush()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    opened = builtins.open
    monkeypatch.setattr(builtins, "open", patched(InTwo))
    for name in ("open", "fsync", "replace"):
        monkeypatch.setattr(os, name, patched(getattr(os, name)))
    monkeypatch.setattr(pathlib.Path, "unlink", patched(pathlib.Path.unlink))


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_moment_of_a_save(tmp_path, monkeypatch, after):
    """A forked child ends at each open, write, fsync, rename and removal: the old or the new checkpoint is whole."""
    seen = set()
    for call in range(1, 100):
        folder = tmp_path / str(call)
        checkpoints.save(folder, 1, FIRST, {"step": 1})
        child = os.fork()
        if child == 0:
            killed_at(monkeypatch, call, after)
            checkpoints.save(folder, 2, SECOND, {"step": 2})
            checkpoints.prune(folder, 1, set())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        arrays, meta = checkpoints.load_newest(folder)
        assert_same(arrays, {1: FIRST, 2: SECOND}[meta["step"]])
        seen.add(meta["step"])
        if os.waitstatus_to_exitcode(status) == 0:
            break
        # The resumed run writes the same step again, over whatever was left.
        checkpoints.save(folder, 2, SECOND, {"step": 2})
        checkpoints.prune(folder, 1, set())
        assert [path.name for path in folder.iterdir()] == ["step-000000002.npz"]
    assert 7 < call < 99
    assert seen == {1, 2}


def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, FIRST, {"step": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, 2, SECOND, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.npz"]
    assert checkpoints.load_newest(tmp_path)[1] == {"step": 1}


def test_damage_falls_back_to_the_one_before(tmp_path):
    """Whatever is cut off or flipped, the newest checkpoint is skipped, or gives exactly what was saved."""
    checkpoints.save(tmp_path, 1, FIRST, {"step": 1})
    path = checkpoints.save(tmp_path, 2, SECOND, {"step": 2})
    content = path.read_bytes()
    cuts = [content[:size] for size in range(0, len(content), 7)]
    flips = [content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :] for at in range(0, len(content), 3)]
    fell_back = 0
    for damaged in cuts + flips:
        path.write_bytes(damaged)
        arrays, meta = checkpoints.load_newest(tmp_path)
        fell_back += meta["step"] == 1
        assert_same(arrays, {1: FIRST, 2: SECOND}[meta["step"]])
    assert fell_back >= len(cuts)


def test_nothing_readable_is_an_error(tmp_path):
    checkpoints.save(tmp_path, 1, FIRST, {}).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"No checkpoint can be read.*step-000000001\.npz: a damaged checkpoint"):
        checkpoints.load_newest(tmp_path)


def test_a_pickle_is_not_loaded(tmp_path):
    """Neither as a whole file nor as an object array inside an archive."""
    path = checkpoints.save(tmp_path, 1, FIRST, {})
    np.savez(path, **{"weight/a": np.array([{"a": 1}], object)}, allow_pickle=True)
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.load_newest(tmp_path)
