"""sqz-compress from its flags to its file and its reports, on a small net."""

import base64
import dataclasses
import html
import io
import json
import os
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sqz_keras import Metaparameters, ModelSpec, Preprocessing, codec, resolve_model
from sqz_keras.compression import tfmot_stages
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.compression.size_search import TooFewBytesError
from sqz_keras.compression.teacher import teach
from sqz_keras.images.preprocessing import restore_rgb
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.runtimes import litert_file, self_test
from sqz_keras.runtimes.run import run_litert
from sqz_keras.weights import sqz
from sqz_keras.weights.description import write_spec
from trainers import compress
from trainers.compression import finetune, quantization, tuning
from trainers.compression.config import METHODS, FinetuneConfig, parse_bits
from trainers.compression.inputs import unlabelled_source
from trainers.data.image_reader import read_inputs
from trainers.data.source import Source

SMALL = Metaparameters(
    base_e=8, incr_e=8, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=4, stem_kernel=3, pool_after=(1,)
)
SPEC = ModelSpec(
    None,
    metaparameters=SMALL,
    classes=3,
    labels=("a", "b", "c"),
    input_size=32,
    preprocessing=Preprocessing(resize_to=32),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model.weights.h5, and the images a/, b/ and c/ in photos/."""
    folder = tmp_path_factory.mktemp("compress")
    keras.utils.set_random_seed(0)
    model = build(SPEC)
    model.save_weights(folder / "model.weights.h5")
    write_spec(folder / "model.weights.h5", SPEC, named_arrays(model))
    random = np.random.default_rng(0)
    for index in range(18):
        path = folder / "photos" / "abc"[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return folder


@pytest.fixture
def run(folder, tmp_path, run_command, monkeypatch):
    """Runs the command, and returns the model that it wrote, the JSON report and the path."""
    monkeypatch.chdir(folder)

    def call(*options, model="model.weights.h5", name="out.sqz"):
        path = tmp_path / name
        run_command(compress, f"--model={model}", f"--output={path}", *options)
        assert not [file for file in tmp_path.iterdir() if "tmp" in file.name]
        return path, json.loads(path.with_suffix(".json").read_text())

    return call


def differing(one, other):
    return [name for name in one if not np.array_equal(one[name], other[name])]


@pytest.mark.parametrize("profile", ["paper", "max"])
def test_alone_it_is_lossless(run, profile, capsys):
    path, report = run(f"--profile={profile}")
    before, model = resolve_model("model.weights.h5")[1], sqz.read_model(path)
    assert differing(before, model.arrays) == []
    assert model.profile == report["profile"] == profile
    assert report["lossless"] and report["bytes"] == path.stat().st_size
    assert report["float32_bytes"] == 4 * SPEC.count_params()
    assert model.provenance == report["provenance"]
    assert (model.provenance["model"], model.provenance["stages"]) == ("model.weights.h5", [])
    page = path.with_suffix(".html").read_text()
    assert "changed" not in report and "Answers that changed" not in page
    for part in ("Beside the paper", "363x", "510x", "Weights and their centroids", "conv10/kernel"):
        assert part in page
    assert capsys.readouterr().out.splitlines()[-1] == f"bytes={path.stat().st_size}"


def test_the_models_name_is_kept_whatever_it_is(run, folder, tmp_path):
    (tmp_path / "run").mkdir()
    spec, arrays = resolve_model("model.weights.h5")
    name = os.fsdecode(b"caf\xe9.sqz")
    (tmp_path / "run" / name).write_bytes(sqz.encode(spec, arrays))
    path, _ = run(model=tmp_path / "run" / name)
    assert sqz.read_model(path).provenance["model"] == name
    for file in folder.glob("model.*"):
        shutil.copy(file, tmp_path / "run")
    assert run(model=f"{tmp_path / 'run'}/")[1]["provenance"]["model"] == "run"


def test_a_known_picture_and_its_answer_are_put_into_the_file(run):
    model = sqz.read_model(run("--method=kmeans", "--bits=4", "--self_test")[0])
    data = litert_file.convert(model.spec, model.arrays)
    self_test.check(model.header[sqz.SELF_TEST_KEY], model.spec, lambda images: run_litert(data, images))
    assert sqz.SELF_TEST_KEY not in sqz.read_model(run()[0]).header


def test_bits_alone_share_weights(run):
    path, report = run("--method=kmeans", "--bits=3,conv1=2", "--evaluation_dir=photos")
    arrays = sqz.read_model(path).arrays
    for name, array in arrays.items():
        if name.endswith("/kernel"):
            assert len(np.unique(array[array != 0])) <= (3 if name == "conv1/kernel" else 7)
    assert not report["lossless"]
    assert report["provenance"]["stages"] == [{"stage": "kmeans", "bits": "3,conv1=2"}]
    assert report["before"]["agreement"] == 1 and report["after"]["num_images"] == 18
    assert {"top1_accuracy", "top1_interval", "agreement_interval"} <= report["after"].keys()


def test_images_whose_answer_changed_are_shown(run, tmp_path):
    spec, arrays = resolve_model("model.weights.h5")
    labels = ("a", "<b onclick=x>", 'c & "d"')
    model = tmp_path / "named.weights.h5"
    build(spec, arrays).save_weights(model)
    write_spec(model, dataclasses.replace(spec, labels=labels), arrays)
    # At 2 bits, the answer to every image is another class.
    path, report = run("--method=kmeans", "--bits=2", "--evaluation_dir=photos", model=model)
    changed = report["changed"]
    assert len(changed) == 12 and report["after"]["agreement"] == 0
    assert {(answer["before"], answer["after"]) for answer in changed} == {(labels[2], labels[1])}
    before = [answer["probability_before"] for answer in changed]
    assert before == sorted(before, reverse=True) and 1 / 3 < before[-1] < before[0] < 1
    assert all(1 / 3 < answer["probability_after"] < 1 for answer in changed)
    page = path.with_suffix(".html").read_text()
    assert "Answers that changed</h2>" in page and "18 of 18 images" in page and "The 12 with the highest" in page
    assert labels[1] not in page and html.escape(labels[1]) in page and html.escape(labels[2]) in page
    at = "[^<]*<br><span>at</span> ([0-9.]+%)<"
    shares = re.findall(f"<span>before</span> {at}br><span>after</span> {at}", page)
    assert shares == [(f"{a['probability_before']:.1%}", f"{a['probability_after']:.1%}") for a in changed]
    sources = re.findall('src="data:image/png;base64,([^"]+)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]
    inputs = read_inputs(sorted(pathlib.Path("photos").rglob("*.png")), spec)
    probabilities = build(spec, arrays).predict_on_batch(inputs).max(axis=1)
    surest = restore_rgb(inputs[np.argsort(-probabilities, kind="stable")[:12]], spec.preprocessing.mode)
    assert {image.tobytes() for image in shown} == {image.tobytes() for image in surest}


def test_a_lossless_file_changes_no_answer(run):
    path, report = run("--evaluation_dir=photos")
    assert report["changed"] == [] and report["after"]["agreement"] == 1
    page = path.with_suffix(".html").read_text()
    assert "Answers that changed</h2><p>None: all 18 images" in page and "<figure" not in page


def test_compressing_again_keeps_the_history(run):
    path, _ = run("--method=kmeans", "--bits=3")
    again, report = run("--profile=paper", model=path, name="again.sqz")
    assert report["lossless"]
    assert [stage["stage"] for stage in report["provenance"]["stages"]] == ["kmeans"]
    assert report["provenance"]["model"] == "model.weights.h5"
    assert differing(sqz.read_model(path).arrays, sqz.read_model(again).arrays) == []


@pytest.mark.parametrize(
    "provenance", [{}, {"stages": ["by hand", {"bits": 3}, 7]}, {"stages": "by hand", "model": []}]
)
def test_a_file_that_others_made_is_taken(run, tmp_path, provenance):
    spec, arrays = resolve_model("model.weights.h5")
    other = tmp_path / "other.sqz"
    other.write_bytes(codec.encode(arrays, sqz.header(spec, arrays, provenance)))
    path, report = run("--method=kmeans", "--bits=3", model=other)
    stages = provenance.get("stages")
    assert report["provenance"]["stages"][:-1] == (stages if isinstance(stages, list) else [])
    assert sqz.read_model(path).provenance == report["provenance"]


@pytest.mark.large
def test_pruned_clustered_and_fine_tuned(run, tmp_path):
    options = [
        "--method=finetune",
        "--densities=0.5,conv1=1",
        "--bits=3",
        "--steps=3",
        "--batch_size=4",
        "--image_dir=photos",
    ]
    path, report = run(*options, f"--workdir={tmp_path / 'stages'}")
    arrays = sqz.read_model(path).arrays
    for name, array in arrays.items():
        if name.endswith("/kernel"):
            assert np.count_nonzero(array) <= array.size * (1 if name == "conv1/kernel" else 0.5) + 1
            assert len(np.unique(array[array != 0])) <= 7
    assert [stage["stage"] for stage in report["provenance"]["stages"]] == ["prune", "cluster"]
    again, _ = run(*options, f"--workdir={tmp_path / 'stages'}", name="again.sqz")
    assert again.read_bytes() == path.read_bytes(), "the finished stages are taken from the workdir"


@pytest.mark.large
@pytest.mark.parametrize(("images", "count"), [("--calibration_dir=photos", 18), ("--image_dir=photos", 15)])
def test_without_labels_the_net_teaches_itself(run, monkeypatch, images, count):
    taught = []
    monkeypatch.setattr(finetune, "teach", lambda *arguments: taught.append(teach(*arguments)) or taught[0])
    path, report = run(
        "--method=finetune", "--densities=sensitivity=0.6", "--teacher", images, "--steps=3", "--batch_size=4"
    )
    assert taught[0].element_spec[1].shape[1:] == (3,), "probabilities, not labels"
    kernels = [array for name, array in sqz.read_model(path).arrays.items() if name.endswith("/kernel")]
    assert sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels) == pytest.approx(0.6, abs=0.01)
    (stage,) = report["provenance"]["stages"]
    assert (stage["densities"], stage["teacher"], stage["images"]) == ("sensitivity=0.6", True, count)
    assert ("after" in report) == (images == "--image_dir=photos")


@pytest.mark.large
def test_bits_for_a_size_and_what_they_round_to_0_pruned_first(run, capsys):
    options = [
        "--method=finetune",
        "--bits=size=2500",
        "--densities=rounding",
        "--steps=3",
        "--batch_size=4",
        "--image_dir=photos",
    ]
    path, report = run(*options, "--teacher")
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("conv1 "))
    bits = {layer: int(number) for layer, number in (item.split() for item in line.split(", "))}
    arrays = sqz.read_model(path).arrays
    assert [f"{layer}/kernel" for layer in bits] == [name for name in arrays if name.endswith("/kernel")]
    for layer, number in bits.items():
        assert len(np.unique(arrays[f"{layer}/kernel"])) <= 2**number
    assert 1500 < path.stat().st_size < 1.05 * 2500
    stages = report["provenance"]["stages"]
    assert [stage["stage"] for stage in stages] == ["prune", "cluster", "choose_codes"]
    assert (stages[0]["densities"], stages[1]["bits"]) == ("rounding", "size=2500")


def fake_quantizer(requests, results=None):
    """A replacement for `Quantizer`: records (spec, images, size), and returns results(size, arrays)."""

    class FakeQuantizer:
        least_estimate = 0

        def __init__(self, spec, arrays, images, *, profile, report):
            assert profile == "max"
            self.spec, self.arrays, self.images = spec, arrays, images

        def to_size(self, size):
            requests.append((self.spec, self.images, size))
            return results(size, self.arrays) if results else kmeans(self.arrays, 2)

        def estimate_size(self, agreement):
            return round(1000 * agreement)

        def estimate_agreement(self, size):
            return min(size / 100_000, 0.99)

    return FakeQuantizer


def test_sizes_of_a_bit_for_each_weight_are_not_forecast(run, monkeypatch, capsys):
    """There 95% was forecast for networks of which 80% and 99% of the answers stayed the same."""
    fake = fake_quantizer([])
    monkeypatch.setattr(fake, "least_estimate", 950)
    monkeypatch.setattr(fake, "estimate_size", lambda self, agreement: max(950, round(1000 * agreement)))
    monkeypatch.setattr(quantization, "Quantizer", fake)
    run("--method=quantize", "--target_bytes=90000", "--calibration_dir=photos", "--calibration_images=4")
    message = capsys.readouterr().err
    assert "about 99% in 1," in message and "and fewer, how many answers will stay the same cannot be" in message
    assert not any(f"{share}% in" in message for share in (80, 90, 95))


@pytest.mark.parametrize("smaller", ["zeros", "nothing"])
def test_the_smallest_size_that_agrees(run, monkeypatch, capsys, tmp_path, smaller):
    """Of a small folder, half of the images calibrate, and the others decide: here 1,500 bytes are enough."""
    requests = []

    def results(size, arrays):
        if size < 1500 and smaller == "nothing":
            raise TooFewBytesError("No useful model fits")
        return arrays if size >= 1500 else {name: np.zeros_like(array) for name, array in arrays.items()}

    monkeypatch.setattr(quantization, "Quantizer", fake_quantizer(requests, results))
    _, report = run("--method=quantize", "--agreement=0.9", "--calibration_dir=photos")
    sizes = [size for _, _, size in requests]
    assert sizes[:3] == [900, 1035, 1190] and min(size for size in sizes if size >= 1500) < 1580
    assert len(requests[0][1]) == 9 and report["lossless"]
    assert report["provenance"]["stages"] == [{"stage": "quantize", "images": 9, "agreement": 0.9}]
    assert "95% in 1," in capsys.readouterr().err
    monkeypatch.setattr(quantization, "Quantizer", fake_quantizer([], lambda size, arrays: results(0, arrays)))
    with pytest.raises(ValueError, match="was not achieved"):
        run("--method=quantize", "--agreement=0.9", "--calibration_dir=photos", name="none.sqz")
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(next(pathlib.Path("photos").rglob("*.png")), folder)
    with pytest.raises(ValueError, match="needs at least 2 images"):
        run("--method=quantize", "--agreement=0.9", f"--calibration_dir={folder}", name="one.sqz")


@pytest.mark.parametrize(("calibration_images", "calibrate", "evaluated"), [(2, 2, 10), (5, 5, 10), (100, 9, 9)])
def test_agreement_evaluates_the_images_that_do_not_calibrate(
    run, monkeypatch, capsys, calibration_images, calibrate, evaluated
):
    requests = []
    monkeypatch.setattr(quantization, "Quantizer", fake_quantizer(requests, lambda size, arrays: arrays))
    monkeypatch.setattr(quantization, "UNSEEN_IMAGES", 10)
    options = ("--calibration_dir=photos", f"--calibration_images={calibration_images}")
    run("--method=quantize", "--agreement=0.9", *options)
    assert len(requests[0][1]) == calibrate
    assert f"100.0% of {evaluated} unseen images" in capsys.readouterr().err


def test_a_size_without_labels(run, monkeypatch):
    """Unlabelled images from all over the folder reach the quantiser as network inputs."""
    requests = []
    monkeypatch.setattr(quantization, "Quantizer", fake_quantizer(requests))
    _, report = run("--method=quantize", "--target_bytes=90000", "--calibration_dir=photos", "--calibration_images=4")
    ((spec, images, target),) = requests
    assert (images.shape, images.dtype, spec.classes) == ((4, 32, 32, 3), np.float32, 3)
    assert 85_000 < target <= 90_000
    paths = sorted(pathlib.Path("photos").rglob("*.png"))
    np.testing.assert_array_equal(images, read_inputs([paths[place] for place in (0, 6, 11, 17)], spec))
    assert report["provenance"]["stages"] == [{"stage": "quantize", "images": 4, "target_bytes": 90000}]
    with pytest.raises(ValueError, match="more than --target_bytes=100"):
        run("--method=quantize", "--target_bytes=100", "--calibration_dir=photos", name="small.sqz")


@pytest.mark.large
def test_a_size_without_labels_is_met(run):
    path, report = run(
        "--method=quantize", "--target_bytes=1150", "--calibration_dir=photos", "--evaluation_dir=photos"
    )
    assert 1_000 < path.stat().st_size == report["bytes"] <= 1_150
    assert not report["lossless"] and report["after"]["agreement"] > 0.5


def test_a_folder_with_other_images_is_another_source(folder, tmp_path):
    """A copy is the same source; a copy with one of its images replaced is not."""
    shutil.copytree(folder / "photos", tmp_path / "copy")
    before = unlabelled_source(str(folder / "photos")).files_sha256
    assert unlabelled_source(str(tmp_path / "copy")).files_sha256 == before
    first, second = sorted((tmp_path / "copy" / "a").iterdir())[:2]
    Image.new("RGB", (300, 200)).save(first)
    replaced = unlabelled_source(str(tmp_path / "copy")).files_sha256
    second.rename(second.with_name("other.png"))
    assert len({before, replaced, unlabelled_source(str(tmp_path / "copy")).files_sha256}) == 3


@pytest.mark.large
def test_codes_are_tuned_to_a_size(run, tmp_path, monkeypatch, capsys):
    """What is finished before a kill is not repeated."""
    options = ["--method=tune", "--calibration_dir=photos", "--steps=3", "--batch_size=4", f"--workdir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr("trainers.compression.run.write_sqz", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("--target_bytes=1150", *options)
    messages = capsys.readouterr().err
    assert "3/3" in messages and "Warning: tuning on 18 images" in messages
    for stage in ("round", "tune"):
        assert (tmp_path / stage / "result.npz").exists()
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "Quantizer", interrupted)
        path, report = run("--target_bytes=1150", *options)
    assert 1_000 < path.stat().st_size == report["bytes"] <= 1_150
    (stage,) = report["provenance"]["stages"]
    assert stage == {
        "stage": "tune",
        "images": 18,
        "calibration_images": 18,
        "steps": 3,
        "batch_size": 4,
        "target_bytes": 1150,
        "learning_rate": 0.003,
    }
    _, report = run(f"--start={path}", "--seed=1", "--target_bytes=1300", *options[:-1], name="further.sqz")
    first, further = report["provenance"]["stages"]
    assert first == stage
    del stage["calibration_images"]
    assert further == stage | {"target_bytes": 1300}
    assert report["bytes"] <= 1_300
    for start, model in ((run(name="lossless.sqz")[0], "model.weights.h5"), (path, path)):
        with pytest.raises(ValueError, match="must be a file that --method=tune made of the same --model"):
            run(f"--start={start}", "--target_bytes=1300", *options[:-1], model=model, name="refused.sqz")
    with monkeypatch.context() as patch:
        patch.setattr(tuning.code_tuning, "tune", interrupted)
        for target in (1, 400):
            with pytest.raises(TooFewBytesError, match=r"kernels of zeros need [0-9]{2,}; ask for more"):
                run(f"--start={path}", f"--target_bytes={target}", *options[:-1], name="refused.sqz")
    with pytest.raises(ValueError, match="would replace --start"):
        run(f"--start={path}", "--target_bytes=1150", *options)
    with pytest.raises(ValueError, match="another request: target_bytes"):
        run("--target_bytes=1200", *options)
    with pytest.raises(ValueError, match=r"another request: source was 'files .*, seed 0', now 'files .*, seed 1'"):
        run("--target_bytes=1150", "--seed=1", *options)
    _, report = run("--target_bytes=90000", *options[:-1])
    assert report["lossless"] and report["provenance"]["stages"] == []
    assert "as it is: nothing is tuned" in capsys.readouterr().err


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_delta_is_sent_and_laid_on_its_base(run, tmp_path, capsys):
    old, _ = run(name="old.sqz")
    spec, arrays = resolve_model("model.weights.h5")
    arrays["conv10/bias"] = arrays["conv10/bias"] + 0.5
    new = tmp_path / "new.weights.h5"
    build(spec, arrays).save_weights(new)
    write_spec(new, spec, arrays)
    delta, report = run(f"--base={old}", model=new, name="delta.sqz")
    assert report["bytes"] < old.stat().st_size / 2
    assert report["base"] == "old.sqz" and "compression_ratio" not in report
    assert f"bytes, a delta on {old}\n" in capsys.readouterr().out
    page = delta.with_suffix(".html").read_text()
    same = [array["name"] for array in report["arrays"] if array["kind"] == "same"]
    assert same
    for name in same:
        row = page.partition(f"<td>{name}</td>")[2].partition("</tr>")[0]
        assert row.rstrip().endswith("data-none>-</td>"), f"{name} has no entropy"
    assert "<td>a delta on</td><td>old.sqz</td>" in page and "times less" not in page and ">a delta</td>" in page
    with pytest.raises(ValueError, match=r"delta\.sqz"):
        resolve_model(delta)
    for options in ([], [f"--base={old}"]):
        with pytest.raises(ValueError, match=r"delta\.sqz is a delta.*--apply_to=OLD\.sqz"):
            run(*options, model=delta, name="whole.sqz")
    with pytest.raises(ValueError, match="needs a delta as --model"):
        run(f"--apply_to={old}", model=new, name="whole.sqz")
    delta = delta.rename(tmp_path / "DELTA.SQZ")
    with pytest.raises(ValueError, match=r"DELTA\.SQZ is a delta"):
        run(model=delta, name="whole.sqz")
    whole, _ = run(f"--apply_to={old}", model=delta, name="WHOLE.SQZ")
    assert differing(resolve_model(whole)[1], arrays) == []


def test_a_lossy_delta_rounds_the_changes_of_biases(run, tmp_path):
    old, _ = run(name="old.sqz")
    spec, before = resolve_model(old)
    change = np.random.default_rng(1).normal(0, 0.01, 3).astype(np.float32)
    build(spec, before | {"conv10/bias": before["conv10/bias"] + change}).save_weights(tmp_path / "new.weights.h5")
    write_spec(tmp_path / "new.weights.h5", spec, before | {"conv10/bias": before["conv10/bias"] + change})
    delta, _ = run("--method=kmeans", "--bits=conv1=4", f"--base={old}", model=tmp_path / "new.weights.h5")
    after = sqz.read_model(delta, old)
    step = 2 * np.abs(change).max() / 2047  # from biases of 0, so the range of codes is what limits the precision
    moved = after.arrays["conv10/bias"] - before["conv10/bias"]
    assert 0 < np.abs(moved - change).max() <= step / 2 + 1e-8
    assert after.provenance["stages"][-1] == {"stage": "round_bias_changes"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output=model.bin"], "must end in .sqz"),
        (["--output=nowhere/model.sqz"], "existing folder"),
        (["--output=evaluation.sqz"], "--output=evaluation.json would replace --model: give another name"),
        (["--model=.", "--output=report.sqz"], "--output=report.html would replace --model: give another name"),
        (["--model=model.sqz", "--output=./model.sqz"], "would replace --model: give another name"),
        (["--apply_to=model.sqz", "--output=model.sqz"], "would replace --apply_to: give another name"),
        (["--base=model.sqz", "--output=./model.sqz"], "would replace --base: give another name"),
        (["--densities=table1"], "--densities belongs to --method=finetune, not to --method=lossless"),
        (["--bits=6"], "--bits belongs to --method=kmeans and --method=finetune, not to --method=lossless"),
        (
            ["--target_bytes=9"],
            "--target_bytes belongs to --method=quantize and --method=tune, not to --method=lossless",
        ),
        (
            ["--calibration_dir=photos"],
            "--calibration_dir belongs to --method=quantize and --method=tune and --method=finetune",
        ),
        (
            ["--method=kmeans", "--bits=6", "--steps=3"],
            "--steps belongs to --method=tune and --method=finetune, not to --method=kmeans",
        ),
        (["--method=quantize", "--target_bytes=9", "--calibration_dir=photos", "--bits=6"], "--bits belongs to"),
        (["--method=kmeans", "--bits=6", "--apply_to=a.sqz"], "--apply_to belongs to --method=lossless"),
        (["--method=kmeans"], "needs --bits"),
        (["--method=kmeans", "--bits=six"], "expected a number"),
        (["--method=kmeans", "--bits=99"], "bits must be"),
        (["--method=kmeans", "--bits=fire9=6"], "no layer 'fire9'"),
        (["--method=kmeans", "--bits=size=5000"], "needs images: use --method=finetune"),
        (["--method=quantize", "--target_bytes=9"], "needs images: --calibration_dir"),
        (["--method=quantize", "--calibration_dir=photos"], "needs either --target_bytes"),
        (["--method=quantize", "--calibration_dir=photos", "--target_bytes=9", "--agreement=0.9"], "or --agreement"),
        (["--method=quantize", "--calibration_dir=photos", "--agreement=1"], "below 1"),
        (["--method=tune", "--target_bytes=9"], "needs images, preferably thousands: --calibration_dir"),
        (["--method=tune", "--calibration_dir=photos"], "--method=tune needs --target_bytes"),
        (["--method=tune", "--learning_rate=nan"], "--learning_rate=nan must be a finite number"),
        (["--method=finetune", "--learning_rate=inf"], "--learning_rate=inf must be a finite number"),
        (["--method=finetune", "--densities=table1"], "--method=finetune needs images"),
        (["--method=finetune", "--teacher", "--bits=6"], "--method=finetune needs images"),
        (["--method=finetune", "--calibration_dir=photos", "--bits=6"], "add --teacher"),
        (
            ["--method=finetune", "--teacher", "--calibration_dir=photos", "--image_dir=photos", "--bits=6"],
            "two sources of images",
        ),
        (["--method=finetune", "--image_dir=photos"], "needs something to fine-tune"),
        (["--method=finetune", "--image_dir=photos", "--dataset=digits", "--bits=6"], "two sources"),
        (["--evaluation_dir=nowhere"], "is not a folder"),
        (["--method=finetune", "--bits=size=small", "--image_dir=photos"], "--bits=size=small: expected a number"),
        (
            ["--method=finetune", "--bits=size=500", "--image_dir=photos"],
            "With 3 bits for every layer the weights need",
        ),
        (["--method=finetune", "--densities=rounding", "--image_dir=photos"], "give --bits too"),
        (["--method=finetune", "--bits=size=inf", "--image_dir=photos"], "--bits=size=inf: expected a number"),
        (
            ["--method=finetune", "--bits=13", "--densities=0.4", "--image_dir=photos"],
            "bits must be 2 to 12, got 13 for conv1",
        ),
        (["--method=finetune", "--bits=1", "--densities=rounding", "--image_dir=photos"], "bits must be 2 to 12"),
        (
            ["--method=finetune", "--bits=6", "--image_dir=photos", "--workdir=photos/stages"],
            "--workdir=photos/stages is in --image_dir=photos",
        ),
        (
            ["--method=tune", "--target_bytes=9", "--calibration_dir=photos", "--start=s", "--calibration_images=400"],
            "--calibration_images are those to round with",
        ),
        (["--model=nonsense"], "No model 'nonsense'"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(folder, tmp_path, run_command, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    path = tmp_path / "out.sqz"
    with pytest.raises(ValueError, match=message):
        run_command(compress, "--model=model.weights.h5", f"--output={path}", *options)
    assert list(tmp_path.iterdir()) == [] and not (folder / "photos" / "stages").exists()


def test_a_sqz_of_another_network_than_requested_is_refused(run):
    path, _ = run(name="custom.sqz")
    for option in ("--version=1.1", "--bypass=simple"):
        with pytest.raises(ValueError, match=r"custom\.sqz holds Metaparameters\(.*\) with bypass=None, but version"):
            run(option, model=path)


def test_images_of_other_classes_are_refused(run, folder, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("a", "x"):
        (tmp_path / "other" / name).symlink_to(folder / "photos" / "a")
    with pytest.raises(ValueError, match="which are not the model's 3"):
        run("--method=finetune", "--bits=3", f"--image_dir={tmp_path / 'other'}")


@pytest.mark.parametrize(
    "options",
    [
        ("--method=quantize", "--target_bytes=9000", "--calibration_dir=photos"),
        ("--method=kmeans", "--bits=4", "--evaluation_dir=photos"),
    ],
)
def test_images_are_refused_for_a_model_of_other_channels(run, tmp_path, options):
    spec = dataclasses.replace(SPEC, channels=1)
    (tmp_path / "grey.sqz").write_bytes(sqz.encode(spec, named_arrays(build(spec))))
    with pytest.raises(ValueError, match="This model takes 1 channels, and images are RGB"):
        run(*options, model=str(tmp_path / "grey.sqz"))
    run(model=str(tmp_path / "grey.sqz"))


def test_an_older_file_survives_a_failure(run, monkeypatch):
    path, _ = run()
    whole = path.read_bytes()
    monkeypatch.setattr("trainers.compression.run.codec.encode", lambda *_, **__: b"not a file")
    with pytest.raises(ValueError):
        run()
    assert path.read_bytes() == whole


def test_bits_by_layer():
    assert parse_bits("6,b=8", ["a", "b"]) == {"a": 6, "b": 8}
    assert parse_bits("b=8", ["a", "b"]) == {"b": 8}
    with pytest.raises(ValueError, match="the layer b occurs twice in 'b=8,6,b=5': give its bits once"):
        parse_bits("b=8,6,b=5", ["a", "b"])


def test_configs_are_checked_without_flags(tmp_path):
    with pytest.raises(ValueError, match="--method=finetune needs images"):
        FinetuneConfig(model="imagenet", output=str(tmp_path / "a.sqz"), teacher=True, bits="6")


def test_every_flag_has_a_help_and_one_default():
    defaults = {}
    for config in METHODS.values():
        for field in dataclasses.fields(config):
            assert field.metadata["help"].endswith(".")
            assert defaults.setdefault(field.name, field.default) == field.default


@pytest.mark.large
def test_layers_without_bits_stay_as_they_are(run):
    before = resolve_model("model.weights.h5")[1]
    path, _ = run("--method=kmeans", "--bits=conv1=2")
    assert "<td>2-32</td>" in path.with_suffix(".html").read_text()
    assert differing(before, sqz.read_model(path).arrays) == ["conv1/kernel"]
    options = ["--method=finetune", "--bits=conv1=2", "--teacher", "--calibration_dir=photos", "--steps=2"]
    clustered = {}

    def cluster(*arguments, **options):
        clustered.update(tfmot_stages.cluster(*arguments, **options))
        return clustered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "cluster", cluster)
        path, report = run(*options, "--batch_size=4", name="tuned.sqz")
    assert [stage["stage"] for stage in report["provenance"]["stages"]] == ["cluster", "choose_codes"]
    after = sqz.read_model(path).arrays
    assert [name for name in differing(clustered, after) if not name.startswith("conv1/")] == []
    assert set(np.unique(after["conv1/kernel"])) <= set(np.unique(clustered["conv1/kernel"]))


@pytest.mark.large
def test_a_killed_run_keeps_its_bits_and_its_chosen_codes(run, tmp_path, monkeypatch):
    """The workdir gives the results of what takes long, and another request is refused."""
    workdir = f"--workdir={tmp_path / 'stages'}"
    options = ["--method=finetune", "--teacher", "--calibration_dir=photos", "--steps=2", "--batch_size=4", workdir]

    with monkeypatch.context() as patch:
        patch.setattr("trainers.compression.run.write_sqz", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("--bits=size=2500", *options)
    with monkeypatch.context() as patch:
        for name in ("sensitivities", "bits_for_size"):
            patch.setattr(finetune, name, interrupted)
        patch.setattr(finetune, "choose_codes", interrupted)
        _, report = run("--bits=size=2500", *options)
    assert [stage["stage"] for stage in report["provenance"]["stages"]] == ["cluster", "choose_codes"]
    with pytest.raises(ValueError, match="bits for another request: size was 2500, now 2600"):
        run("--bits=size=2600", *options)
    with pytest.raises(ValueError, match=r"another request: source was 'files .*, seed 0', now 'files .*, seed 1'"):
        run("--bits=size=2500", "--seed=1", *options)


def source_with(labels):
    """A source whose splits have one image each, with this label."""

    def records(split):
        pixels = io.BytesIO()
        Image.new("RGB", (40, 40)).save(pixels, "PNG")
        record = {"image": [pixels.getvalue()], "label": np.array([labels[split]], np.int64), "id": [split]}
        return tf.data.Dataset.from_tensor_slices(record)

    return Source("some", SPEC.labels, dict.fromkeys(labels, 1), records)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"train": 0, "test": 1, "validation": 2}, [1]),
        ({"train": 0, "test": -1, "validation": 2}, [2]),
        ({"train": 0, "test": -1}, None),
    ],
)
def test_a_split_without_labels_measures_no_accuracy(monkeypatch, capsys, labels, expected):
    monkeypatch.setattr(finetune, "open_dataset", lambda *_: source_with(labels))
    config = FinetuneConfig(model="m", output="o.sqz", densities="0.5", dataset="some")
    ((_, truth),) = finetune.held_out_batches(config, SPEC)
    assert (truth if truth is None else truth.tolist()) == expected
    assert ("only the agreement is measured" in capsys.readouterr().err) == (expected is None)


def test_held_out_images_of_which_none_can_be_decoded_are_named(run, folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "photos", tmp_path / "photos" / "train")
    shutil.copytree(folder / "photos", tmp_path / "photos" / "val")
    for path in (tmp_path / "photos" / "val").glob("*/*.png"):
        path.write_bytes(b"no image")
    monkeypatch.setattr(finetune, "prune", lambda spec, arrays, *_, **__: arrays)
    with pytest.raises(ValueError, match=r"^None of the images for the evaluation could be read\.$"):
        run("--method=finetune", "--densities=0.5", f"--image_dir={tmp_path / 'photos'}")


def test_a_dataset_without_images_to_train_on_is_refused(monkeypatch):
    monkeypatch.setattr(finetune, "open_dataset", lambda *_: source_with({"test": 0}))
    config = FinetuneConfig(model="m", output="o.sqz", densities="0.5", dataset="some")
    with pytest.raises(ValueError, match=r"^some has no split 'train' to fine-tune on, only \['test'\]\.$"):
        finetune.held_out_batches(config, SPEC)


def test_the_stages_of_fine_tuning_are_told_their_images(folder, tmp_path, monkeypatch):
    """So that a folder with other images is refused if the first run's workdir is used again."""
    shutil.copytree(folder / "photos", tmp_path / "copy")
    sources = []
    monkeypatch.setattr(finetune, "prune", lambda spec, arrays, batches, **options: sources.append(options["source"]))
    monkeypatch.setattr(finetune, "_density", lambda arrays: 1.0)
    spec, arrays = resolve_model(folder / "model.weights.h5")
    for option in ("calibration_dir", "calibration_dir", "image_dir", "image_dir"):
        image = min((tmp_path / "copy" / "a").iterdir())
        image.rename(image.with_name(f"x{image.name}"))
        images = {option: str(tmp_path / "copy"), "teacher": option == "calibration_dir"}
        config = FinetuneConfig(model="m", output="o.sqz", densities="0.5", steps=3, **images)
        finetune.finetune(config, spec, arrays)
    assert len(set(sources)) == 4 and all(source.startswith("files ") for source in sources)
