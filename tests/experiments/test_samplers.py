"""The samplers are compared on a recorded table; a sampler that cannot run is refused before any work is done."""

import importlib.util
import itertools
import json

import pytest

pytest.importorskip("optuna", reason="the sweeps need the extra `sweep`")

from experiments import samplers


@pytest.fixture
def trials(tmp_path):
    """The records of a grid of 2 x 3 points."""
    points = [{"base_e": base_e, "bypass": bypass} for base_e, bypass in itertools.product((32, 64, 96), "ab")]
    records = [{"point": point, "top1": 0.9 + number / 100} for number, point in enumerate(points)]
    (tmp_path / "trials.json").write_text(json.dumps({"trials": records}))
    return tmp_path / "trials.json"


def test_each_sampler_gets_a_line(trials, run_command, capsys):
    run_command(samplers, f"--trials={trials}", "--samplers=tpe", "--budget=3", "--repeats=2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["random", "tpe"]
    assert all("(best of all 6: 0.9500)" in line for line in lines) and lines[0].endswith("ratio=1.00")


@pytest.mark.parametrize(("name", "message"), [("gp", "needs PyTorch"), ("grid", "'grid' is none of random, tpe")])
def test_a_sampler_that_cannot_run_is_refused_before_the_work(trials, run_command, capsys, monkeypatch, name, message):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    with pytest.raises(ValueError, match=message):
        run_command(samplers, f"--trials={trials}", f"--samplers=tpe,{name}", "--repeats=2")
    assert capsys.readouterr().out == ""
