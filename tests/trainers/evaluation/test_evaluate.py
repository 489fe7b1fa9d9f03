import dataclasses
import json
import pathlib
import re
import shutil
import types

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from sqz_keras import ModelSpec, Preprocessing, get_record, resolve_model
from sqz_keras.backend import use_default_settings
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights import sqz
from sqz_keras.weights.description import write_spec
from sqz_keras.weights.download import cache_path
from tests.weights.readers.mutations import random_arrays
from trainers import evaluate
from trainers.data.image_reader import class_labels, find_labelled_images
from trainers.evaluation import run
from trainers.evaluation.accuracy import evaluate_images
from trainers.evaluation.config import EvaluationConfig

SPEC = ModelSpec("1.1", classes=3, labels=("a", "b", "c"), input_size=32, preprocessing=Preprocessing(resize_to=36))


@pytest.mark.large
@pytest.mark.parametrize(("version", "top1", "top5"), [("1.0", 135, 178), ("1.1", 144, 181)])
def test_imagenet_weights_name_the_sample_images(test_data, version, top1, top5):
    files = {"1.0": "squeezenet1.0_deep_compression", "1.1": "squeezenet1.1_authors"}
    folders = {"1.0": "deep_compression", "1.1": "squeezenet1.1_authors"}
    cached = cache_path(get_record(files[version]))
    cached.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(test_data / "weights" / folders[version] / cached.name, cached)
    spec, arrays = resolve_model("imagenet", version=version)
    images = find_labelled_images(test_data / "images" / "imagenet_sample", class_labels(spec))
    results, _ = evaluate_images(build(spec, arrays), spec, images, batch_size=32)
    assert (results["num_images"], results["num_failed"]) == (200, 0)
    assert results["top1_accuracy"] * 200 == pytest.approx(top1, abs=2)
    assert results["top5_accuracy"] * 200 == pytest.approx(top5, abs=2)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """A model of random weights that is sure to prefer one class or another."""
    path = tmp_path_factory.mktemp("model") / "model.weights.h5"
    model = build(SPEC)
    model.save_weights(path)
    write_spec(path, SPEC, named_arrays(model))
    return path


@pytest.fixture
def image_dir(tmp_path):
    random = np.random.default_rng(0)
    for index in range(7):
        folder = tmp_path / "images" / "abc"[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image = random.integers(0, 256, (40 + index, 50, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def main(model_path, image_dir, tmp_path, monkeypatch):
    """Runs the command's main with these values of its flags instead of those that absl would parse."""

    def call(**values):
        defaults = {field.name: field.default for field in dataclasses.fields(EvaluationConfig)}
        defaults |= {"model": str(model_path), "image_dir": str(image_dir), "batch_size": 3}
        values = {"report": str(tmp_path / "report.json"), **values}
        args = {name: types.SimpleNamespace(value=value) for name, value in (defaults | values).items()}
        monkeypatch.setattr(flags, "FLAGS", args)
        return evaluate.main(["sqz-evaluate"])

    call.model_path = model_path
    return call


def test_report_and_last_lines(main, tmp_path, capsys):
    assert main() == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["num_images"], report["num_failed"]) == (7, 0)
    assert report["top5_accuracy"] == 1.0, "among three classes every one is in the top five"
    assert ModelSpec.from_json(report["model_spec"]).labels == ("a", "b", "c")
    low, high = report["top1_interval"]
    assert 0 <= low <= report["top1_accuracy"] <= high <= 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"top1_accuracy={report['top1_accuracy']:.3f}", "top5_accuracy=1.000"]


@pytest.mark.parametrize("setting", ["channels_first", "float16"])
def test_settings_of_keras_do_not_matter(main, tmp_path, capsys, setting):
    assert main() == 0
    expected = capsys.readouterr().out.splitlines()[1:]
    try:
        if setting == "channels_first":
            keras.config.set_image_data_format(setting)
        else:
            keras.config.set_floatx(setting)
            keras.config.set_dtype_policy(setting)
        assert main() == 0
        settings = keras.config.image_data_format(), keras.config.floatx(), keras.config.dtype_policy().name
        assert settings == ("channels_last", "float32", "float32")
    finally:
        use_default_settings()
    assert capsys.readouterr().out.splitlines()[1:] == expected


@pytest.mark.parametrize("batch_size", [1, 100])
def test_result_does_not_depend_on_the_batch_size(main, tmp_path, batch_size):
    assert main() == 0
    expected = json.loads((tmp_path / "report.json").read_text())
    assert main(batch_size=batch_size) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {**report, "images_per_second": 0} == {**expected, "images_per_second": 0}


def test_a_broken_image_is_named_and_left_out(main, image_dir, tmp_path, capsys):
    whole = (image_dir / "a" / "0.png").read_bytes()
    (image_dir / "a" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (image_dir / "b" / "text.jpg").write_text("no image")
    assert main() == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["num_images"], report["num_failed"]) == (7, 2)
    output = capsys.readouterr()
    assert "truncated.png" in output.err and "text.jpg" in output.err
    assert output.out.splitlines()[-1].startswith("top5_accuracy=")


def test_the_html_report_shows_classes_and_mistakes_with_their_maps(main, image_dir, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(run, "build", lambda *arguments: built.append(build(*arguments)) or built[-1])
    (image_dir / "a" / "text.jpg").write_text("no image")  # it takes a position, but gives no prediction
    page = tmp_path / "report.html"
    assert main(report_html=str(page)) == 1
    text, results = page.read_text("utf-8"), json.loads((tmp_path / "report.json").read_text())
    titles = re.findall("<h2>([A-Z].*?)</h2>", text)
    assert titles == ["Results", "Calibration", "Confusion matrix", "Accuracy by class", "Worst mistakes"]
    wrong = round(7 * (1 - results["top1_accuracy"]))
    assert text.count("<figure>") == 2 * wrong > 0 and text.count("where the model sees") == wrong
    assert "Expected calibration error 0." in text
    assert len(built) == 1


def test_one_file_cannot_be_both_reports(main, tmp_path):
    with pytest.raises(ValueError, match="are two files"):
        main(report_html=f"{tmp_path}/./report.json")


def test_a_report_does_not_replace_what_is_read(main, image_dir, tmp_path, monkeypatch):
    for flag in ("report", "report_html"):
        with pytest.raises(ValueError, match=f"--{flag}=.* would replace --model: give another name"):
            main(**{flag: main.model_path})
    assert resolve_model(main.model_path)
    workdir = pathlib.Path(main.model_path).parent
    for name in ("evaluation.json", "report.html", "model.spec.json"):
        with pytest.raises(ValueError, match="would replace --model: give another name"):
            main(model=str(workdir), report=str(workdir / name))
        with pytest.raises(ValueError, match="would replace --model: give another name"):
            main(report=str(workdir / name))
    assert main(model=str(workdir), report=str(workdir / "own.json")) == 0
    (workdir / "own.json").unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").mkdir()  # a folder of reports with the name of a record
    EvaluationConfig(image_dir="images", report="imagenet/evaluation.json")
    image = image_dir / "a" / "0.png"
    before = image.read_bytes()
    with pytest.raises(ValueError, match="would replace an image of --image_dir"):
        main(report=str(image))
    assert image.read_bytes() == before


@pytest.mark.parametrize("flag", ["--version=2.0", "--bypass=dense"])
def test_a_network_that_does_not_exist_is_refused_as_in_the_other_commands(run_command, flag):
    with pytest.raises(flags.IllegalFlagValueError, match="should be one of"):
        run_command(evaluate, "--image_dir=images", flag)


def test_a_report_that_cannot_be_written_is_refused_first(main, tmp_path, capsys):
    with pytest.raises(ValueError, match="existing folder"):
        main(report=str(tmp_path / "nothing" / "report.json"))
    assert not capsys.readouterr().err


def test_labels_of_a_file_name_the_classes_of_a_model_without(main, image_dir, tmp_path, capsys):
    assert main() == 0
    expected = capsys.readouterr().out.splitlines()[-2:]
    spec = dataclasses.replace(SPEC, labels=None)
    path = tmp_path / "nameless.sqz"
    path.write_bytes(sqz.encode(spec, resolve_model(main.model_path)[1]))
    with pytest.raises(ValueError, match=r"--labels=FILE\.txt"):
        main(model=str(path))
    (tmp_path / "labels.txt").write_text("a\nb\nc\n", "utf-8-sig")  # with a byte-order mark, as from Windows
    assert main(model=str(path), labels=str(tmp_path / "labels.txt")) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == expected
    (tmp_path / "labels.txt").write_text("c\nb\na\n")
    with pytest.raises(ValueError, match="the model's own names in another order, first 'c' instead of 'a'"):
        main(labels=str(tmp_path / "labels.txt"))


def test_a_model_of_other_channels_is_refused_before_an_image_is_read(main, tmp_path):
    spec = dataclasses.replace(SPEC, channels=1)
    path = tmp_path / "grey.sqz"
    path.write_bytes(sqz.encode(spec, random_arrays(spec.weight_shapes()), profile="paper"))
    with pytest.raises(ValueError, match="This model takes 1 channels, and images are RGB"):
        main(model=str(path))


def test_images_that_all_fail_are_an_error(main, image_dir):
    for path in image_dir.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 7"):
        main()
