import contextlib
import csv
import dataclasses
import errno
import fcntl
import html
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sqz_keras import Metaparameters, ModelSpec, Preprocessing, load, resolve_model
from sqz_keras.compression.densities import layer_names, measure_densities, prune_magnitudes
from sqz_keras.files import locked
from sqz_keras.images.files import read_image
from sqz_keras.models.squeezenet import named_arrays
from trainers.data.batches import BadImages, evaluation_batches, training_batches
from trainers.data.image_folder import open_image_dir
from trainers.evaluation.metrics import LossNotFiniteError, Predictions
from trainers.training import checkpoints, loop, workdir
from trainers.training.config import RUN_FILES, TrainConfig
from trainers.training.dry_run import describe
from trainers.training.evaluator import Evaluator
from trainers.training.input import batches_from
from trainers.training.interruption import Interrupted
from trainers.training.run import Run

pytestmark = pytest.mark.usefixtures("determinism_ends_here")
TINY = Metaparameters(8, 4, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,))
SPEC = ModelSpec(None, None, TINY, classes=10, input_size=16, preprocessing=Preprocessing(resize_to=18))
CONFIG = TrainConfig(
    model=SPEC,
    dataset="digits",
    max_steps=8,
    base_learning_rate=1e-3,
    global_batch_size=32,
    conv10_stddev=0.05,
    augmentation="crop",
    shuffle_buffer_size=2_000,
    eval_every_steps=3,
    checkpoint_every_steps=2,
    deterministic=True,
)


@pytest.fixture(scope="module")
def trained(tfds_dir, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "new" / "workdir"
    return folder, loop.train_and_evaluate(CONFIG, folder, tfds_dir)


def test_a_run_leaves_its_files_and_nothing_else(trained):
    folder, results = trained
    others = {"README.md", "checkpoints", "config.json", "metrics.csv", "report.html", "tensorboard"}
    assert {path.name for path in folder.iterdir()} == {*workdir.OUTPUTS, *others}
    assert {path.name for path in folder.iterdir() if path.is_file()} == set(RUN_FILES)
    assert json.loads((folder / "evaluation.json").read_text()) == results
    assert (results["split"], results["num_images"]) == ("test", 355)
    assert results["num_params"] == SPEC.count_params()
    assert results["config"] == CONFIG.to_json()
    card = (folder / "README.md").read_text()
    assert f"| Top-1 accuracy | {results['top1_accuracy']:.2%} (95% interval" in card and "355 pictures" in card


@pytest.mark.parametrize("name", ["", "model.weights.h5", "model.keras"])
def test_the_model_reloads_with_its_labels_and_its_accuracy(trained, digits, name):
    folder, results = trained
    spec, _ = resolve_model(folder / name)
    assert spec.labels == tuple("0123456789")
    assert (spec.metaparameters, spec.input_size, spec.preprocessing) == (TINY, 16, SPEC.preprocessing)
    model = load(folder / name)
    batches = list(evaluation_batches(digits, "test", spec, batch_size=100))
    scores = np.concatenate([model.predict_on_batch(images) for images, _, _ in batches])
    again = keras.models.load_model(folder / "model.keras").predict_on_batch(batches[0][0])
    np.testing.assert_array_equal(scores[:100], again)
    right = scores.argmax(1) == np.concatenate([labels for _, labels, _ in batches])
    assert round(float(right.mean()), 6) == results["top1_accuracy"]


@pytest.fixture(scope="module")
def sparse(trained, tfds_dir, tmp_path_factory):
    """A dense-sparse-dense run from the weights of `trained`: its folder and config."""
    options = {"weights": str(trained[0]), "densities": "0.5,conv1=1", "sparse_steps": 5, "keep_checkpoints": 9}
    config = dataclasses.replace(CONFIG, checkpoint_every_steps=1, ema_decay=0.9, **options)
    folder = tmp_path_factory.mktemp("sparse")
    loop.train_and_evaluate(config, folder, tfds_dir)
    return folder, config


@pytest.mark.large
def test_what_was_pruned_stays_sparse_where_conv10_is_fitted(trained, tfds_dir, digits, tmp_path):
    options = {"weights": str(trained[0]), "head_images": 200, "max_steps": 0, "densities": "0.5,conv10=0.25,conv1=1"}
    loop.train_and_evaluate(dataclasses.replace(CONFIG, **options), tmp_path, tfds_dir)
    densities = measure_densities(resolve_model(tmp_path)[1])
    assert densities.pop("conv10") == pytest.approx(0.25, abs=0.01) and densities.pop("conv1") == 1
    assert set(np.round(list(densities.values()), 1)) == {0.5}


@pytest.mark.large
def test_conv10_alone_is_fitted_where_no_update_follows(trained, tfds_dir, digits, tmp_path):
    config = dataclasses.replace(CONFIG, weights=str(trained[0]), head_images=200, max_steps=0)
    results = loop.train_and_evaluate(config, tmp_path, tfds_dir)
    before, after = resolve_model(trained[0])[1], resolve_model(tmp_path)[1]
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "conv10/kernel",
        "conv10/bias",
    }
    assert results["steps"] == 0 and results["top1_accuracy"] > trained[1]["top1_accuracy"] + 0.05
    with open(tmp_path / "metrics.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0"]


@pytest.mark.large
@pytest.mark.parametrize("batches", [0, 4])  # four are all that there are
def test_a_signal_ends_the_fit_of_conv10(trained, tfds_dir, digits, tmp_path, monkeypatch, batches):
    before = iter([None] * batches)
    monkeypatch.setattr(loop, "stop_signals", lambda: contextlib.nullcontext(lambda: next(before, signal.SIGTERM)))
    config = dataclasses.replace(CONFIG, weights=str(trained[0]), head_images=200, max_steps=0)
    with pytest.raises(Interrupted, match="SIGTERM at step 0"):
        loop.train_and_evaluate(config, tmp_path, tfds_dir)
    assert not (tmp_path / "model.keras").exists()
    assert checkpoints.steps(tmp_path / "checkpoints") == [0] * bool(batches)  # what was fitted is kept
    if batches:
        monkeypatch.setattr(loop, "stop_signals", lambda: contextlib.nullcontext(lambda: None))
        assert loop.train_and_evaluate(config, tmp_path, tfds_dir)["steps"] == 0


@pytest.mark.large
def test_updates_follow_the_fit_and_the_test_is_not_evaluated_between(trained, tfds_dir, digits, tmp_path):
    options = {"weights": str(trained[0]), "head_images": 200, "max_steps": 2, "ema_decay": 0.9}
    config = dataclasses.replace(CONFIG, validation_split="test", base_learning_rate=1e-6, **options)
    results = loop.train_and_evaluate(config, tmp_path, tfds_dir)
    assert results["steps"] == results["best_step"] == 2 and checkpoints.steps(tmp_path / "checkpoints") == [2]
    assert results["top1_accuracy"] > trained[1]["top1_accuracy"] + 0.05


def test_a_workdir_with_a_model_is_refused_and_kept(trained, tfds_dir):
    folder, _ = trained
    before = (folder / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="another --workdir"):
        loop.train_and_evaluate(CONFIG, folder, tfds_dir)
    assert (folder / "model.keras").read_bytes() == before


def test_outputs_of_a_run_that_was_killed_among_them_are_written_again(trained, tfds_dir, tmp_path, monkeypatch):
    folder, results = trained
    shutil.copytree(folder, tmp_path / "run")
    for name in ("evaluation.json", "model.spec.json"):
        (tmp_path / "run" / name).unlink()
    synced = []
    monkeypatch.setattr(workdir, "sync", lambda path: synced.append(path.name))
    assert loop.train_and_evaluate(CONFIG, tmp_path / "run", tfds_dir)["top1_accuracy"] == results["top1_accuracy"]
    assert synced == ["model.keras", "model.weights.h5", "run"]
    for name in ("model.spec.json", "model.weights.h5"):
        assert (tmp_path / "run" / name).stat().st_size == (folder / name).stat().st_size
    (tmp_path / "run" / "evaluation.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ValueError, match="another --workdir"):
        loop.train_and_evaluate(CONFIG, tmp_path / "run", tfds_dir)


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.csv", "a,b"), ("report.html", "<p>"), ("config.json", "{}"), ("config.json", '{"name": "project"}')]
    + [("config.json", content) for content in ("[]", "not JSON", "[" * 10_000)],
)
def test_files_of_another_kind_are_not_replaced(tmp_path, tfds_dir, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"holds {name}, which a run would replace, and no checkpoints; choose"):
        loop.train_and_evaluate(CONFIG, tmp_path, tfds_dir)
    assert (tmp_path / name).read_text() == content


def test_a_run_resumes_that_was_killed_before_its_first_checkpoint(tmp_path, tfds_dir, digits, monkeypatch):
    monkeypatch.setattr(checkpoints, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(CONFIG, tmp_path, tfds_dir)
    assert (tmp_path / "config.json").exists()
    workdir.check_workdir(tmp_path)


def test_two_processes_do_not_train_in_one_folder(tmp_path, tfds_dir, digits, monkeypatch):
    program = f"""
import pathlib
from sqz_keras.files import locked
with locked(pathlib.Path({str(tmp_path)!r})):
    print("locked", flush=True)
    input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"Another process works in {tmp_path}"):
            loop.train_and_evaluate(CONFIG, tmp_path, tfds_dir)
        assert list(tmp_path.iterdir()) == []
        other.kill()
    with locked(tmp_path):
        pass
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
    with locked(tmp_path):
        pass


def test_a_workdir_that_is_a_file_is_refused(tmp_path, tfds_dir):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--workdir"):
        loop.train_and_evaluate(CONFIG, tmp_path / "file" / "below", tfds_dir)


@pytest.mark.parametrize(
    ("steps", "message"),
    [(30, r"The loss is (nan|inf) at step [1-9]\b"), (1, "answers to the 'validation' split are not finite")],
)
def test_a_loss_that_is_not_finite_is_never_saved(tmp_path, tfds_dir, digits, steps, message):
    config = dataclasses.replace(CONFIG, base_learning_rate=1e30, max_steps=steps)
    with pytest.raises(LossNotFiniteError, match=message):
        loop.train_and_evaluate(config, tmp_path, tfds_dir)
    assert not (tmp_path / "model.keras").exists()
    for step in checkpoints.steps(tmp_path / "checkpoints"):
        arrays, _ = checkpoints.load(tmp_path / "checkpoints", step)
        assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_split_that_does_not_exist_is_refused_before_training(tmp_path, tfds_dir, digits):
    with pytest.raises(ValueError, match="no split 'dev'"):
        loop.train_and_evaluate(dataclasses.replace(CONFIG, validation_split="dev"), tmp_path / "w", tfds_dir)
    assert not (tmp_path / "w").exists()


class Signal(keras.callbacks.Callback):
    """Sends this process a signal at the n-th evaluation."""

    def __init__(self, evaluation, number=signal.SIGTERM):
        super().__init__()
        self.evaluation, self.number = evaluation, number

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.evaluation:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def modern(tfds_dir, tmp_path_factory):
    """A run with mixup, Nesterov momentum and a moving average: its folder and config."""
    config = dataclasses.replace(CONFIG, ema_decay=0.9, mixup_alpha=0.2, solver="modern")
    folder = tmp_path_factory.mktemp("modern")
    loop.train_and_evaluate(config, folder, tfds_dir)
    return folder, config


STOPS = ((0, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM))  # the last one after the last update


@pytest.mark.large
@pytest.mark.parametrize("run", ["trained", "modern", "sparse"])
def test_a_stopped_run_resumes_to_the_same_bits(request, tmp_path, tfds_dir, run):
    """Dropout, the order of the images and their crops included; the sparse phase is resumed in its middle."""
    whole, config = request.getfixturevalue(run)
    if run == "trained":
        config = CONFIG
    stopped = tmp_path / "stopped"
    for evaluation, number in STOPS:
        with pytest.raises(Interrupted, match=f"{number.name} at step") as stop:
            loop.train_and_evaluate(config, stopped, tfds_dir, callbacks=[Signal(evaluation, number)])
        assert stop.value.exit_status == (0 if number is signal.SIGTERM else 130)
        assert not (stopped / "model.keras").exists()
    assert checkpoints.steps(stopped / "checkpoints")
    results = loop.train_and_evaluate(config, stopped, tfds_dir)
    assert results["steps"] == 8
    for file in ("model.weights.h5", "model.spec.json"):
        assert (stopped / file).stat().st_size == (whole / file).stat().st_size
    assert (stopped / "model.spec.json").read_bytes() == (whole / "model.spec.json").read_bytes()
    newest = [checkpoints.load_newest(folder / "checkpoints")[0] for folder in (stopped, whole)]
    for name, array in newest[0].items():
        np.testing.assert_array_equal(array, newest[1][name], err_msg=name)


@pytest.mark.large
def test_dense_sparse_dense(trained, sparse):
    """Pruned weights stay 0 in the sparse phase, with decay and momentum too, and come back after it."""
    folder, _ = sparse
    _, before = resolve_model(trained[0])
    expected = prune_magnitudes(before, dict.fromkeys(layer_names(before), 0.5) | {"conv1": 1.0})
    for step in range(1, 9):
        arrays, _ = checkpoints.load(folder / "checkpoints", step)
        for name, pruned in expected.items():
            if not name.endswith("/kernel"):
                continue
            gone = pruned == 0
            for group in ("weight", "velocity", "average"):
                assert np.any(arrays[f"{group}/{name}"][gone]) == (step > 5 and name != "conv1/kernel"), (step, name)
            assert np.all(arrays[f"weight/{name}"][~gone] != pruned[~gone])


@pytest.mark.large
def test_another_config_is_refused(tmp_path, tfds_dir):
    with pytest.raises(Interrupted):
        loop.train_and_evaluate(CONFIG, tmp_path, tfds_dir, callbacks=[Signal(0)])
    changed = dataclasses.replace(CONFIG, momentum=0.8, checkpoint_every_steps=5)
    with pytest.raises(ValueError, match=r"another config: momentum was 0\.9, now 0\.8\. "):
        loop.train_and_evaluate(changed, tmp_path, tfds_dir)


def test_the_history(trained):
    folder, results = trained
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [3, 6, 8]
    best = max(rows, key=lambda row: (float(row["validation_top1_accuracy"]), int(row["step"])))
    assert results["best_step"] == int(best["step"])
    assert {"loss", "learning_rate", "images_per_second"} <= rows[0].keys()
    page = (folder / "report.html").read_text("utf-8")
    assert "onfusion" in page
    assert 'model.labels</td><td>["0", "1", ' in html.unescape(page), "the run's model, not the recipe's"
    events = list((folder / "tensorboard").iterdir())
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(events[0])) for value in event.summary.value}
    assert {"loss", "validation_top1_accuracy"} <= tags


@pytest.mark.large
def test_the_best_weights_are_kept_not_the_last(tmp_path, tfds_dir, monkeypatch):
    """With a rate that ruins the net after the first evaluation, the weights of that evaluation are what is saved."""
    rates = iter([1e-3] * 3 + [0.3] * 5)
    monkeypatch.setattr("trainers.training.run.learning_rate", lambda config, step: next(rates))
    results = loop.train_and_evaluate(dataclasses.replace(CONFIG, weight_decay=1.0), tmp_path, tfds_dir)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert results["validation_top1_accuracy"] == max(float(row["validation_top1_accuracy"]) for row in rows)
    if results["best_step"] != 8:
        arrays, _ = checkpoints.load(tmp_path / "checkpoints", results["best_step"])
        _, kept = resolve_model(tmp_path)
        for name, array in kept.items():
            np.testing.assert_array_equal(array, arrays[f"weight/{name}"])


@pytest.mark.large
@pytest.mark.parametrize("kept", [2, 9])
def test_a_run_goes_on_without_its_best_weights_where_they_are_lost(tmp_path, tfds_dir, monkeypatch, caplog, kept):
    """The weights of step 6 are the best; those of step 3 are second, if their checkpoint is still kept."""
    accuracies = iter([0.5, 0.9, 0.1, 0.1])
    config = dataclasses.replace(CONFIG, keep_checkpoints=kept, checkpoint_every_steps=1)
    evaluate = Evaluator.evaluate

    def fixed(self, split, arrays):
        predictions = evaluate(self, split, arrays)
        if split == "validation":
            right = np.arange(len(predictions.truth)) < round(next(accuracies) * len(predictions.truth))
            wrong = (predictions.truth + 1) % 10
            predictions = dataclasses.replace(predictions, predicted=np.where(right, predictions.truth, wrong))
        return predictions

    monkeypatch.setattr(Evaluator, "evaluate", fixed)
    save, steps = checkpoints.save, []
    monkeypatch.setattr(checkpoints, "save", lambda *arguments: steps.append(arguments[1]) or save(*arguments))
    monkeypatch.setattr(
        loop, "stop_signals", lambda: contextlib.nullcontext(lambda: signal.SIGTERM if steps[-1:] == [7] else None)
    )
    with pytest.raises(Interrupted):
        loop.train_and_evaluate(config, tmp_path, tfds_dir)
    (tmp_path / "checkpoints" / "step-000000006.npz").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        results = loop.train_and_evaluate(config, tmp_path, tfds_dir)
    assert "The best weights, of step 6, cannot be read and are left out." in caplog.messages
    expected = 3 if kept == 9 else 8
    assert results["best_step"] == expected
    arrays, _ = checkpoints.load(tmp_path / "checkpoints", expected)
    for name, array in resolve_model(tmp_path)[1].items():
        np.testing.assert_array_equal(array, arrays[f"weight/{name}"])


def test_best_weights_that_are_lost_at_the_end_are_replaced(tmp_path, tfds_dir, trained, monkeypatch, caplog):
    shutil.copytree(trained[0], tmp_path / "run")
    run = Run(CONFIG, resolve_model(trained[0])[0], None, tf.distribute.get_strategy(), tmp_path / "run", ())
    last = checkpoints.steps(tmp_path / "run" / "checkpoints")[-1]
    run.restore(*checkpoints.load(tmp_path / "run" / "checkpoints", last))
    run.history[0]["validation_top1_accuracy"] = 1.0
    run.best = {"step": 3, "validation_top1_accuracy": 1.0}
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with caplog.at_level(logging.WARNING):
        kept = run.best_arrays()
    assert "The best weights, of step 3, cannot be read and are left out." in caplog.messages
    assert run.best["step"] == last == 8
    for name, array in run.state.served_arrays().items():
        np.testing.assert_array_equal(kept[name], array)


@pytest.mark.large
def test_a_stuck_run_is_reported(tmp_path, tfds_dir, caplog):
    config = dataclasses.replace(CONFIG, base_learning_rate=1e-12, conv10_stddev=1e-9, max_steps=4)
    with caplog.at_level(logging.WARNING):
        loop.train_and_evaluate(config, tmp_path, tfds_dir)
    assert "the loss is 2.303, which is ln(10 classes)" in caplog.text
    assert "warmup_steps" in caplog.text


@pytest.mark.large
def test_keras_callbacks_work(tmp_path, tfds_dir):
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
        keras.callbacks.EarlyStopping("val_accuracy", mode="max", min_delta=1.0),
    ]
    results = loop.train_and_evaluate(CONFIG, tmp_path / "run", tfds_dir, callbacks)
    assert results["steps"] == 6
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert rows[0].keys() == {"epoch", "accuracy", "learning_rate", "loss", "val_accuracy"}
    assert len(rows) == 2


@pytest.mark.large
def test_two_replicas_train_as_one(trained, tmp_path, tfds_dir, monkeypatch):
    """The whole loop on two logical CPUs, without dropout: the same weights up to rounding."""
    config = dataclasses.replace(CONFIG, dropout_rate=0.0, eval_every_steps=8)
    loop.train_and_evaluate(config, tmp_path / "one", tfds_dir)
    monkeypatch.setattr(loop, "make_strategy", lambda _: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    loop.train_and_evaluate(dataclasses.replace(config, strategy="mirrored"), tmp_path / "two", tfds_dir)
    one, two = (checkpoints.load_newest(tmp_path / name / "checkpoints")[0] for name in ("one", "two"))
    for name, array in one.items():
        if not name.startswith("seed/"):
            np.testing.assert_allclose(two[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_training_moves_every_weight(trained):
    """Otherwise the tests above would compare nets that do not change."""
    folder, _ = trained
    (first, _), (last, _) = (checkpoints.load(folder / "checkpoints", step) for step in (6, 8))
    for name, array in last.items():
        if name.startswith(("weight/", "velocity/")):
            assert not np.array_equal(array, first[name]), name


@pytest.fixture
def images(tmp_path):
    """Two classes of ten small images each, one of them damaged."""
    random = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    damaged = tmp_path / "images" / "cats" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return tmp_path / "images"


@pytest.mark.large
def test_damaged_images_are_named_and_counted_up_to_a_limit(tmp_path, images):
    with contextlib.suppress(OSError):  # if the file system accepts names that are not text
        images = images.rename(os.fsdecode(os.fsencode(images) + b"\xe9"))
    config = dataclasses.replace(
        CONFIG, dataset="", image_dir=str(images), test_split="validation", global_batch_size=8
    )
    with pytest.raises(ValueError, match=r"1 of the images cannot be decoded, and at most 0 may be: cats/3\.png"):
        loop.train_and_evaluate(config, tmp_path / "strict")
    config = dataclasses.replace(config, max_bad_pictures=1)
    with pytest.raises(Interrupted):
        loop.train_and_evaluate(config, tmp_path / "run", callbacks=[Signal(1)])
    results = loop.train_and_evaluate(config, tmp_path / "run")
    assert results["bad_pictures"] == 1
    assert results["num_images"] == 4
    assert resolve_model(tmp_path / "run")[0].labels == ("cats", "dogs")


def test_a_split_without_an_image_that_can_be_decoded_is_named(images):
    source = open_image_dir(images)
    for path in source.files[0][-source.sizes["validation"] :]:
        pathlib.Path(path).write_bytes(b"no image")
    evaluator = Evaluator(dataclasses.replace(SPEC, classes=2, labels=source.labels), source)
    with pytest.raises(ValueError, match="None of the 4 images of the 'validation' split can be decoded"):
        evaluator.evaluate("validation", named_arrays(evaluator.model))


def test_an_image_that_is_gone_ends_in_one_line(tmp_path, images):
    (images / "cats" / "3.png").write_bytes((images / "cats" / "2.png").read_bytes())
    config = dataclasses.replace(
        CONFIG, dataset="", image_dir=str(images), test_split="validation", global_batch_size=8
    )

    class Removed(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            (images / "dogs" / "4.png").unlink()

    with pytest.raises(OSError, match=r"^/.*dogs/4\.png; No such file or directory\. Restore the file"):
        loop.train_and_evaluate(config, tmp_path / "run", callbacks=[Removed()])


def test_a_run_resumes_on_its_own_images_alone(tmp_path, images):
    (images / "cats" / "3.png").write_bytes((images / "cats" / "2.png").read_bytes())
    config = dataclasses.replace(
        CONFIG, dataset="", image_dir=str(images), test_split="validation", global_batch_size=8
    )
    with pytest.raises(Interrupted):
        loop.train_and_evaluate(config, tmp_path / "run", callbacks=[Signal(0)])
    (images / "cats").rename(images / "foxes")
    message = r"a run on other images than .*: labels was \['cats', 'dogs'\], now \['dogs', 'foxes'\]\. Restore them"
    with pytest.raises(ValueError, match=message):
        loop.train_and_evaluate(config, tmp_path / "run")
    (images / "foxes").rename(images / "cats")
    shutil.copy(images / "cats" / "2.png", images / "cats" / "2b.png")
    with pytest.raises(ValueError, match=r"a run on other images than .*: sizes\.train was 16, now 17"):
        loop.train_and_evaluate(config, tmp_path / "run")
    (images / "cats" / "2b.png").unlink()
    for number in range(5):
        (images / "cats" / f"{number}.png").rename(images / "dogs" / f"cat{number}.png")
    message = r"other images than .*: sizes_by_class\.train was \[8, 8\], now \[4, 12\]; sizes_by_class\.validation"
    with pytest.raises(ValueError, match=message):
        loop.train_and_evaluate(config, tmp_path / "run")
    _, meta = checkpoints.load_newest(tmp_path / "run" / "checkpoints")
    source = open_image_dir(images)
    for images_then in ({"labels": ["cats", "dogs"], "sizes": {"train": 16, "validation": 4}}, None):
        older = {name: value for name, value in meta.items() if name != "images"}
        older |= {"images": images_then} if images_then else {}
        workdir.check_same_run(config, source, older, tmp_path / "run")


def test_a_mistake_that_pillow_refuses_is_not_in_the_report(tmp_path, images, monkeypatch):
    """No file is known that Pillow refuses and TensorFlow decodes, but the report is no reason to fail."""
    shutil.copy(images / "cats" / "5.png", images / "cats" / "3.png")  # which is damaged
    refused = (images / "cats" / "2.png").read_bytes()

    def read(content):
        if content == refused:
            raise ValueError("not an image")
        return read_image(content)

    monkeypatch.setattr(workdir, "read_image", read)
    source = open_image_dir(images)
    size = source.sizes["train"]
    names = [record["id"].decode() for record in source.records("train").as_numpy_iterator()]
    wrong = np.array(["cats/" in name for name in names])
    truth = np.where(wrong, 0, 1)
    predictions = Predictions(np.arange(size), truth, np.ones(size, int), np.full(size, 0.9))
    spec = dataclasses.replace(SPEC, classes=2, labels=source.labels)
    results = {"split": "train", "top1_accuracy": 0.5, "config": {}}
    workdir.write_report(tmp_path, spec, source, predictions, [], results)
    assert (tmp_path / "report.html").read_text("utf-8").count("<figure>") == wrong.sum() - 1


def test_a_dataset_of_one_class_is_refused(tmp_path, images):
    shutil.rmtree(images / "cats")
    config = dataclasses.replace(CONFIG, dataset="", image_dir=str(images), test_split="validation")
    for run in (loop.train_and_evaluate, describe):
        with pytest.raises(ValueError, match="images holds one class, 'dogs'; expected a folder"):
            run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.large
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_guard_takes_over_at_the_batch_with_the_damaged_image(tmp_path, images, monkeypatch, replicas):
    """It loses, repeats and changes nothing, wherever the run begins; and the image is named."""
    source = open_image_dir(images)
    config = dataclasses.replace(CONFIG, dataset="", image_dir=str(images), global_batch_size=2)
    spec = dataclasses.replace(SPEC, classes=2, labels=source.labels)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else tf.distribute.get_strategy()
    made = []

    def noted(*args, **options):
        made.append(options)
        return training_batches(*args, **options)

    monkeypatch.setattr("trainers.training.input.training_batches", noted)
    damaged = images / "cats" / "3.png"
    for step, size in ((0, 200), (5, 12)):  # TensorFlow's message quotes the 12 bytes
        damaged.write_bytes(damaged.read_bytes()[:size])
        bad_images = BadImages(0)
        expected = training_batches(
            source,
            "train",
            spec,
            batch_size=2,
            seed=config.seed,
            augmentation=config.augmentation,
            shuffle_buffer_size=config.shuffle_buffer_size,
            start_example=2 * step,
        ).take(20)
        made.clear()
        for batch, arrays in zip(
            batches_from(config, spec, source, strategy, bad_images, step), expected, strict=False
        ):
            for value, array in zip(batch, arrays, strict=True):
                parts = strategy.experimental_local_results(value)
                assert len(parts) == replicas
                np.testing.assert_array_equal(np.concatenate(parts), array)
        first_bad = next(place for place, (_, _, weights) in enumerate(expected) if min(weights) == 0)
        assert [(options["guarded"], options["start_example"]) for options in made] == [
            (False, 2 * step),
            (True, 2 * (step + first_bad)),
        ]
        assert bad_images.names == ("cats/3.png",)
