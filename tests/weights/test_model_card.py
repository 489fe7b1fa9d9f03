"""Model cards, read by huggingface_hub as the Hub reads them."""

import dataclasses

import huggingface_hub as hub
import pytest

from sqz_keras import ModelSpec, get_record
from sqz_keras.weights import model_card

RESULTS = {
    "config": {"dataset": None, "image_dir": "/data/flowers"},
    "split": "test",
    "num_images": 355,
    "top1_accuracy": 0.9,
    "top1_interval": [0.86, 0.93],
}


def card_of(spec, **options):
    return hub.ModelCard(model_card.model_card(spec, {"net.onnx": 1234567}, "    load it\n", **options))


def test_of_a_record():
    record = get_record("squeezenet1.1_authors")
    card = card_of(record.spec, record=record, evaluation=model_card.record_evaluation(record))
    assert card.data.license == "mit" and card.data.pipeline_tag == "image-classification"
    assert card.data.library_name == "sqz-keras" and "squeezenet" in card.data.tags
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"accuracy": 0.5838, "top5_accuracy": 0.81}
    assert {(result.dataset_name, result.dataset_split) for result in card.data.eval_results} == {
        ("ILSVRC2012", "validation")
    }
    for text in ("# SqueezeNet 1.1, 1,000 classes", "| Top-1 accuracy | 58.38% |", "1,234,567 bytes", record.url):
        assert text in card.text
    for section in ("Licence", "Intended use", "Limits", "Accuracy", "Load it"):
        assert f"\n## {section}\n" in card.text


def test_of_a_training():
    spec = ModelSpec("1.1", classes=3, labels=("daisy", 'a "rose" | b', "tulip: red"))
    card = card_of(spec, evaluation=model_card.training_evaluation(RESULTS))
    assert card.data.license == "unknown"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_value) == ("flowers", "test", 0.9)
    assert result.metric_name == "Top-1 accuracy (95% interval 86.0% to 93.0%)"
    assert "flowers, test, 355 pictures" in card.text


@pytest.mark.parametrize(
    ("image_dir", "name"), [(".", "a folder of images"), ("../flowers/", "flowers"), ("/data/fotos\udce9", "fotos?")]
)
def test_the_dataset_is_named_by_its_folder(tmp_path, image_dir, name):
    evaluation = model_card.training_evaluation(RESULTS | {"config": {"dataset": "", "image_dir": image_dir}})
    model_card.write_card(tmp_path / "README.md", model_card.model_card(ModelSpec(), {}, "", evaluation=evaluation))
    (result,) = hub.ModelCard((tmp_path / "README.md").read_text("utf-8")).data.eval_results
    assert result.dataset_name == name


def test_without_an_evaluation():
    card = card_of(ModelSpec("1.0"))
    assert card.data.eval_results is None
    assert "Not measured." in card.text


def test_the_record_is_found_by_its_name_or_weights():
    record = get_record("squeezenet1.1_authors")
    assert model_card.find_record("imagenet", record.spec) is record
    assert model_card.find_record("some/file.onnx", record.spec) is record
    other = dataclasses.replace(record.spec, weights_sha256="0" * 64)
    assert model_card.find_record("some/file.sqz", other) is None
    assert model_card.find_record("some/file.sqz", dataclasses.replace(other, weights_sha256=None)) is None


def test_only_a_card_of_this_project_is_replaced(tmp_path):
    path = tmp_path / "README.md"
    model_card.write_card(path, model_card.model_card(ModelSpec(), {}, ""))
    model_card.write_card(path, model_card.model_card(ModelSpec("1.1"), {}, ""))
    assert "SqueezeNet 1.1" in path.read_text()
    path.write_text("# my own\n")
    with pytest.raises(ValueError, match="not a model card of sqz-keras"):
        model_card.write_card(path, "new")
    assert path.read_text() == "# my own\n"


@pytest.mark.parametrize("results", [{}, {**RESULTS, "config": None}, {**RESULTS, "top1_interval": None}])
def test_other_results_are_refused(results):
    with pytest.raises(ValueError, match="no results of sqz-train"):
        model_card.training_evaluation(results)
