import numpy as np
import pytest

from sqz_keras.compression.stage_folder import StageFolder

ARRAYS = {"conv1/kernel": np.ones((1, 1, 2, 3), np.float32), "conv1/bias": np.zeros(3, np.float32)}
SHAPES = {name: array.shape for name, array in ARRAYS.items()}


def test_a_result_comes_back_in_order(tmp_path):
    StageFolder(tmp_path / "new" / "stage", {"bits": {"conv1": 4}}).save_result(dict(reversed(ARRAYS.items())))
    result = StageFolder(tmp_path / "new" / "stage", {"bits": {"conv1": 4}}).result(SHAPES)
    assert list(result) == list(ARRAYS)
    assert all(np.array_equal(result[name], ARRAYS[name]) for name in ARRAYS)


def test_without_a_workdir_nothing_is_kept():
    folder = StageFolder(None, {})
    folder.save_result(ARRAYS)
    assert folder.result(SHAPES) is None


def test_another_stages_folder_is_refused(tmp_path):
    StageFolder(tmp_path, {"bits": 4, "steps": 10})
    with pytest.raises(ValueError, match=r"bits was 4, now 5; more was None, now 1\. Repeat that request"):
        StageFolder(tmp_path, {"bits": 5, "steps": 10, "more": 1})


def test_damage_is_reported(tmp_path):
    folder = StageFolder(tmp_path, {})
    folder.save_result(ARRAYS)
    content = (tmp_path / "result.npz").read_bytes()
    for damaged in (b"", content[:100], content[:300] + b"X" + content[301:], b"no zip at all"):
        (tmp_path / "result.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"result\.npz is damaged"):
            folder.result(SHAPES)
    (tmp_path / "result.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not this model's"):
        folder.result({"conv1/kernel": (1, 1, 2, 3)})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        StageFolder(tmp_path, {})
