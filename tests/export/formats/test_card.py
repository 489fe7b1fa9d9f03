"""sqz-export --card: the README.md beside the exported model."""

import json

import huggingface_hub
import pytest

from export import export


@pytest.mark.parametrize(
    ("options", "folder", "texts"),
    [
        (["--format=onnx", "--output=out/net.onnx"], "out", ["| net.onnx | ", 'InferenceSession("net.onnx")']),
        (["--format=keras", "--output=net.keras"], ".", ["| net.keras | ", 'sqz_keras.load("net.keras")']),
        (["--format=litert", "--output=net.tflite"], ".", ["| net.tflite | ", 'Interpreter("net.tflite")']),
        pytest.param(["--base_path=served"], "served", ["| 1/ | ", "sqz-serve --base_path=."], marks=pytest.mark.large),
    ],
)
def test_a_card_says_how_to_load_the_export(
    base_path, tmp_path, monkeypatch, run_command, capsys, options, folder, texts
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    run_command(export, f"--model={base_path / '3'}", "--card", *options)
    card = huggingface_hub.ModelCard.load(tmp_path / folder / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    for text in texts:
        assert text in card.text
    assert "Not measured." in card.text and "10 classes" in card.text


def test_another_readme_is_refused_before_any_work(base_path, tmp_path, run_command):
    (tmp_path / "README.md").write_text("# my own\n")
    with pytest.raises(ValueError, match="not a model card"):
        run_command(export, f"--model={base_path / '3'}", "--card", "--format=onnx", f"--output={tmp_path / 'a.onnx'}")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_the_accuracy_is_the_training_run_s(base_path, tmp_path, run_command, spec, arrays):
    from sqz_keras.models.squeezenet import build
    from sqz_keras.weights.description import write_spec

    run = tmp_path / "run"
    run.mkdir()
    build(spec, arrays).save_weights(run / "model.weights.h5")
    write_spec(run / "model.weights.h5", spec, arrays)
    results = {"config": {"dataset": "digits"}, "split": "test", "num_images": 10}
    (run / "evaluation.json").write_text(json.dumps(results | {"top1_accuracy": 0.5, "top1_interval": [0.2, 0.8]}))
    run_command(export, f"--model={run}", "--card", "--format=onnx", f"--output={tmp_path / 'a.onnx'}")
    card = (tmp_path / "README.md").read_text()
    assert "| 50.00% (95% interval 20.0% to 80.0%) | digits, test, 10 pictures |" in card
