import numpy as np
import pytest

from sqz_keras.compression.stage_folder import StageFolder

ARRAYS = {"conv1/kernel": np.ones((1, 1, 2, 3), np.float32), "conv1/bias": np.zeros(3, np.float32)}
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


def must_not_run():
    pytest.fail("the stage is finished, and ran again")


def test_a_finished_stage_is_read_in_the_order_of_the_shapes(tmp_path):
    reversed_arrays = dict(reversed(ARRAYS.items()))
    computed = StageFolder(tmp_path / "new" / "stage", {"bits": {"conv1": 4}}).once(SHAPES, lambda: reversed_arrays)
    read = StageFolder(tmp_path / "new" / "stage", {"bits": {"conv1": 4}}).once(SHAPES, must_not_run)
    for result in (computed, read):
        assert list(result) == list(ARRAYS)
        assert all(np.array_equal(result[name], ARRAYS[name]) for name in ARRAYS)


def test_without_a_workdir_nothing_is_kept():
    folder, runs = StageFolder(None, {}), []
    for _ in range(2):
        folder.once(SHAPES, lambda: runs.append(1) or ARRAYS)
    assert len(runs) == 2


def test_another_stages_folder_is_refused(tmp_path):
    StageFolder(tmp_path, {"bits": 4, "steps": 10})
    with pytest.raises(ValueError, match=r"bits was 4, now 5; more was None, now 1\. Repeat that request"):
        StageFolder(tmp_path, {"bits": 5, "steps": 10, "more": 1})


def test_damage_is_reported(tmp_path):
    folder = StageFolder(tmp_path, {})
    folder.once(SHAPES, lambda: ARRAYS)
    content = (tmp_path / "result.npz").read_bytes()
    for damaged in (b"", content[:100], content[:300] + b"X" + content[301:], b"no zip at all"):
        (tmp_path / "result.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"result\.npz is damaged"):
            folder.once(SHAPES, must_not_run)
    (tmp_path / "result.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not this model's"):
        folder.once({"conv1/kernel": (1, 1, 2, 3)}, must_not_run)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        StageFolder(tmp_path, {})
