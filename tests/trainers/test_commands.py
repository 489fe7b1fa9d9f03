import dataclasses
import subprocess
import sys
import types

from absl import flags

from trainers import loop, train
from trainers.config import load_config

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


def test_ctrl_c_ends_in_one_line(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train_and_evaluate", interrupt)
    values = {"config": "digits", "workdir": str(tmp_path), "data_dir": None, "max_steps": 5, "seed": None}
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**values))
    assert train.main(["sqz-train"]) == 130
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_flags_override_the_recipe(tmp_path, monkeypatch, capsys):
    seen = []
    results = {"top1_interval": [0.1, 0.2], "num_params": 1, "split": "test", "num_images": 1, "top1_accuracy": 0.15}
    monkeypatch.setattr(loop, "train_and_evaluate", lambda *arguments: seen.append(arguments) or results)
    values = {"config": "digits", "workdir": "w", "data_dir": "d", "max_steps": 500, "seed": 0}
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(**values))
    assert train.main(["sqz-train"]) == 0
    config = dataclasses.replace(load_config("digits"), max_steps=500, seed=0)
    assert seen == [(config, "w", "d")]
    assert capsys.readouterr().out.splitlines()[-1] == "top1_accuracy=0.150"
