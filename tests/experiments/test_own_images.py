import json
import pathlib
import subprocess

import pytest

from experiments import own_images


def write(folder, names):
    """Writes images with these names, and files that are not images."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.jpg").write_text(f"{folder.name} {name}")
    for name in (".0.jpg", ".DS_Store", "0.txt"):
        (folder / name).write_text("")


def listed(folder):
    return {path.relative_to(folder).as_posix().removesuffix(".jpg") for path in folder.rglob("*") if path.is_file()}


def test_the_first_by_name_are_for_training_and_the_next_for_test(tmp_path):
    write(tmp_path / "in" / "a", "54321")
    write(tmp_path / "in" / "b", "12")
    own_images.copy_images(tmp_path / "in", tmp_path / "out", 2, 2)
    names = {"train/own a/1", "train/own a/2", "val/own a/3", "val/own a/4", "train/own b/1", "train/own b/2"}
    assert listed(tmp_path / "out") == names
    assert (tmp_path / "out" / "val" / "own a" / "3.jpg").read_text() == "a 3"


def test_of_a_folder_with_splits_all_of_val_is_for_test(tmp_path):
    write(tmp_path / "in" / "train" / "a", "12")
    write(tmp_path / "in" / "val" / "a", "6789")
    own_images.copy_images(tmp_path / "in", tmp_path / "out", 1, 2)
    assert listed(tmp_path / "out") == {"train/own a/1", *(f"val/own a/{name}" for name in "6789")}


def test_it_runs_the_public_command_and_prints_its_result(tmp_path, monkeypatch, run_command, capsys):
    write(tmp_path / "in" / "a", "12")

    def train(words, **_):
        flags = dict(word[2:].split("=") for word in words[3:])
        assert words[1:3] == ["-m", "trainers.train"] and set(flags) == {"image_dir", "workdir"}
        assert all(pathlib.Path(path).is_absolute() for path in flags.values())  # the command runs in another folder
        assert listed(pathlib.Path(flags["image_dir"])) == {"train/own a/1", "val/own a/2"}
        pathlib.Path(flags["workdir"]).mkdir()
        results = {"top1_accuracy": 0.875, "top1_interval": [0.8, 0.9], "num_images": 8}
        pathlib.Path(flags["workdir"], "evaluation.json").write_text(json.dumps(results))

    monkeypatch.setattr(subprocess, "run", train)
    monkeypatch.chdir(tmp_path)
    options = ["--image_dir=in", "--workdir=work", "--train=1"]
    run_command(own_images, *options)
    assert "8 test images, top-1 87.5%, 95% interval 80.0% to 90.0%" in capsys.readouterr().out
    with pytest.raises(ValueError, match="exists; give a new folder"):
        run_command(own_images, *options)
