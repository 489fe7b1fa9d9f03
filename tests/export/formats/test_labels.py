"""sqz-export --labels: names of the classes in place of the model's own."""

import pytest

from export import export
from sqz_keras import codec, resolve_model
from sqz_keras.weights import sqz


@pytest.fixture
def flags(spec, arrays, tmp_path):
    (tmp_path / "model.sqz").write_bytes(codec.encode(arrays, sqz.header(spec, arrays, {"stages": []})))
    names = [f"--model={tmp_path / 'model.sqz'}", f"--labels={tmp_path / 'labels.txt'}"]
    return [*names, f"--base_path={tmp_path / 'served'}", "--model_version=1"]


def test_labels_of_a_file_replace_those_of_the_model(flags, spec, tmp_path, run_command, in_this_process):
    labels = tuple(f"Zahl {index} größer" for index in range(10))
    (tmp_path / "labels.txt").write_text("\n".join(labels), "utf-8-sig")  # as an editor on Windows saves it
    run_command(export, *flags)
    assert spec.labels != labels
    assert resolve_model(tmp_path / "served" / "1")[0].labels == labels
    assert tuple((tmp_path / "served/1/assets/labels.txt").read_text("utf-8").splitlines()) == labels


@pytest.mark.parametrize(("text", "message"), [("one\ntwo\n", "10 different names"), (None, "No such file")])
def test_other_labels_are_refused_before_anything_is_written(flags, tmp_path, run_command, text, message):
    if text is not None:
        (tmp_path / "labels.txt").write_text(text)
    with pytest.raises((ValueError, OSError), match=message):
        run_command(export, *flags)
    assert not (tmp_path / "served").exists()
