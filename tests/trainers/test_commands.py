import dataclasses
import signal
import subprocess
import sys

import pytest

from sqz_keras import ModelSpec, Preprocessing
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights.description import write_spec
from trainers import config_flags, train
from trainers.configs import load_config
from trainers.training import loop
from trainers.training.interruption import Interrupted

SCRIPT = """
import contextlib, io, sys
from absl import flags
from trainers import {0} as command
sys.argv = ["sqz-{0}", *{1!r}]
command.run()
"""


def _run(command, *arguments):
    code = SCRIPT.format(command, list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_help_lists_the_flags_with_their_defaults():
    for command, expected in {
        "compress": ["--model:", "--output:", "--profile:", "--target_bytes:", "--teacher", "(default: 'max')"],
        "train": ["--config:", "--workdir:", "--data_dir:", "--max_steps:", "--seed:"],
        "evaluate": ["--model:", "--version:", "--bypass:", "--image_dir:", "--batch_size:", "(default: '32')"],
    }.items():
        shown = _run(command, "--help").stdout
        assert [text for text in expected if text not in shown] == []
        assert f"sqz-{command} --" in shown


def test_a_mistake_ends_in_one_line_and_status_1(tmp_path):
    result = _run("train", "--config=digitz", f"--workdir={tmp_path / 'w'}")
    assert result.returncode == 1
    assert "digitz" in result.stderr and "digits" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_in_one_line(tmp_path, monkeypatch, capsys, run_command, number, status):
    def interrupt(*_):
        raise Interrupted(number, 3)

    monkeypatch.setattr(loop, "train_and_evaluate", interrupt)
    assert run_command(train, "--config=digits", f"--workdir={tmp_path}") == status
    assert capsys.readouterr().err == f"\nsqz-train: {number.name} at step 3; the same command resumes from there.\n"


def test_flags_override_the_recipe(monkeypatch, capsys, run_command):
    seen = []
    results = {"top1_interval": [0.1, 0.2], "num_params": 1, "split": "test", "num_images": 1, "top1_accuracy": 0.15}
    monkeypatch.setattr(loop, "train_and_evaluate", lambda *arguments: seen.append(arguments) or results)
    options = ["--max_steps=500", "--seed=7", "--momentum=0.8", "--deterministic", "--solver=modern", "--bypass=simple"]
    assert run_command(train, "--config=digits", "--workdir=w", "--data_dir=d", *options) == 0
    assert run_command(train, "--config=modern", "--workdir=w", "--image_dir=images", "--version=1.0") == 0
    assert run_command(train, "--config=digits", "--workdir=w", "--input_size=24", "--preprocessing_mode=torch") == 0
    assert run_command(train, "--config=transfer", "--workdir=w", "--dataset=digits", "--weights=") == 0
    assert (seen.pop()[0].dataset, seen[-1][0].image_dir) == ("digits", "")
    digits, modern = load_config("digits"), load_config("modern")
    net = dataclasses.replace(digits.model, bypass="simple")
    changes = {"max_steps": 500, "seed": 7, "momentum": 0.8, "deterministic": True, "solver": "modern"}
    assert seen[0] == (dataclasses.replace(digits, model=net, **changes), "w", "d")
    net = dataclasses.replace(modern.model, version="1.0", metaparameters=None)
    assert seen[1][0] == dataclasses.replace(modern, model=net, dataset="", image_dir="images")
    # An image is resized to 52 for 48 pixels, and so to 26 for 24.
    preprocessing = dataclasses.replace(digits.model.preprocessing, mode="torch", resize_to=26)
    net = dataclasses.replace(digits.model, input_size=24, preprocessing=preprocessing)
    assert seen[2][0] == dataclasses.replace(digits, model=net)
    assert capsys.readouterr().out.splitlines()[-1] == "top1_accuracy=0.150"


def test_flags_are_checked_against_the_network_of_the_flags(monkeypatch, run_command, tmp_path):
    seen = []
    monkeypatch.setattr(loop, "train_and_evaluate", lambda config, *_: seen.append(config) or {"top1_interval": [0, 1]})
    for name in [f"{label}/{n}.jpg" for label in ("cat", "dog") for n in range(5)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(config_flags, "resolve_model", lambda *_, **__: (ModelSpec("1.1"), {}))
    # With the recipes' own pools and layers, neither the size nor the densities would be valid.
    options = ["--workdir=w", "--input_size=16", "--metaparameters=pool_after=3,num_fire_modules=9"]
    options += ["--densities=fire10_squeeze1x1=0.5", "--weights=imagenet"]
    for recipe in ("--config=digits", f"--image_dir={tmp_path}"):
        with pytest.raises(KeyError):  # on reading the results, which are empty
            run_command(train, *options, recipe)
    assert [config.model.input_size for config in seen] == [16, 16]
    with pytest.raises(ValueError, match=r"input_size must be at least \d+ pixels"):
        run_command(train, "--config=digits", "--workdir=w", "--input_size=16")


def test_without_a_recipe_one_is_chosen_for_a_folder_of_images(
    monkeypatch, capsys, run_command, tmp_path, cached_weights
):
    seen = []
    results = {"top1_interval": [0.1, 0.2], "num_params": 1, "split": "test", "num_images": 1, "top1_accuracy": 0.15}
    monkeypatch.setattr(loop, "train_and_evaluate", lambda *arguments: seen.append(arguments) or results)
    for name in [*(f"cat/{n}.jpg" for n in range(10)), *(f"dog/{n}.jpg" for n in range(5))]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert run_command(train, f"--image_dir={tmp_path}", "--workdir=w", "--class_weights=none", "--max_steps=7") == 0
    config, shown = seen[0][0], capsys.readouterr().err
    assert (config.weights, config.class_weights, config.max_steps) == ("squeezenet1.1_authors", "none", 7)
    assert "No --config: chosen for 2 classes with 4 to 8 training images each (" in shown
    with pytest.raises(ValueError, match="Give --image_dir=DIR"):
        run_command(train, "--workdir=w")


def test_pretrained_weights_bring_their_preprocessing(monkeypatch, capsys, run_command, tmp_path):
    seen = []
    results = {"top1_interval": [0.1, 0.2], "num_params": 1, "split": "test", "num_images": 1, "top1_accuracy": 0.15}
    monkeypatch.setattr(loop, "train_and_evaluate", lambda *arguments: seen.append(arguments) or results)
    digits = load_config("digits")
    theirs = dataclasses.replace(
        digits.model, classes=10, input_size=96, preprocessing=Preprocessing("torch", "shortest_side", 110)
    )
    model = build(theirs)
    model.save_weights(tmp_path / "own.weights.h5")
    write_spec(tmp_path / "own.weights.h5", theirs, named_arrays(model))
    options = ["--config=digits", "--workdir=w", f"--weights={tmp_path / 'own.weights.h5'}"]
    assert run_command(train, *options) == 0
    # The digits' input has 48 pixels, half as many as the weights'.
    assert seen[0][0].model.preprocessing == Preprocessing("torch", "shortest_side", 55)
    assert "Images are prepared as for" in capsys.readouterr().err
    assert run_command(train, *options, "--preprocessing_mode=tf") == 0
    assert seen[1][0].model.preprocessing == dataclasses.replace(digits.model.preprocessing, mode="tf")
    assert "--preprocessing_mode=tf is used, though" in capsys.readouterr().err


def test_the_preprocessing_is_that_of_the_version_that_is_trained(monkeypatch, run_command, tmp_path):
    """ "imagenet" means other weights for --version=1.1 than for the recipe's."""
    seen = []
    spec = ModelSpec("1.1")
    monkeypatch.setattr(config_flags, "resolve_model", lambda *args, **options: seen.append(options) or (spec, {}))
    monkeypatch.setattr(loop, "train_and_evaluate", lambda *arguments: (_ for _ in ()).throw(ValueError("stopped")))
    options = ["--config=squeezenet_v1_0", f"--workdir={tmp_path / 'w'}", "--weights=imagenet"]
    for version in ([], ["--version=1.1"]):
        with pytest.raises(ValueError, match="stopped"):
            run_command(train, *options, *version)
    assert [option["version"] for option in seen] == ["1.0", "1.1"]


def test_dry_run_checks_the_weights_and_the_splits(tmp_path, tfds_dir, digits, run_command, capsys):
    options = ["--config=digits", f"--workdir={tmp_path / 'w'}", f"--data_dir={tfds_dir}", "--dry_run"]
    with pytest.raises(ValueError, match="no split 'dev'"):
        run_command(train, *options, "--validation_split=dev")
    run_command(train, *options, "--train_split=train[:80%]", "--validation_split=train[70%:]")
    shown = capsys.readouterr()
    assert "of 868\n" in shown.out and "train[:80%] 868" in shown.out
    assert shown.err.count("has images of the training split 'train[:80%]'") == 1
    with pytest.raises(ValueError, match="no file or folder of this name"):
        run_command(train, *options, "--weights=nothing.pth")
    spec = ModelSpec("1.1" if load_config("digits").model.version != "1.1" else "1.0", classes=10)
    model = build(spec)
    model.save_weights(tmp_path / "other.weights.h5")
    write_spec(tmp_path / "other.weights.h5", spec, named_arrays(model))
    with pytest.raises(ValueError, match=r"do not fit|holds version"):
        run_command(train, *options, f"--weights={tmp_path / 'other.weights.h5'}")


def test_dry_run_touches_nothing(tmp_path, tfds_dir, digits, capsys, run_command):
    options = [f"--workdir={tmp_path / 'w'}", f"--data_dir={tmp_path / 'none'}", "--dry_run"]
    assert run_command(train, "--config=squeezenet_v1_0", *options) == 0
    output = capsys.readouterr().out
    for part in ("parameters: 1,248,424", '"max_steps": 170000', "5.0 MB of gradients (AlexNet: 243.9 MB, 49 times"):
        assert part in output
    assert list(tmp_path.iterdir()) == []
    assert (
        run_command(train, "--config=digits", f"--workdir={tmp_path / 'w'}", f"--data_dir={tfds_dir}", "--dry_run") == 0
    )
    output = capsys.readouterr().out
    assert "data: train 1,085, validation 357, test 355" in output
    assert "updates: 1,200 of 64 images = 70.8 epochs of 1,085" in output
    assert list(tmp_path.iterdir()) == []
