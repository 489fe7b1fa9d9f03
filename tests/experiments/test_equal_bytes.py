"""How nets of two kinds are compared once their runs are measured; measuring takes too long for a test."""

import dataclasses
import json

import pytest

pytest.importorskip("tensorflow", reason="the recipes need the extra `train`")

from experiments import equal_bytes
from trainers.configs import load_config

RECIPE = load_config("digits_family")


def add_run(folder, seed, bypass=None):
    """A finished run as sqz-train leaves it, with the files that the experiment reads."""
    folder.mkdir(parents=True)
    config = dataclasses.replace(RECIPE, seed=seed, model=dataclasses.replace(RECIPE.model, bypass=bypass))
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "evaluation.json").write_text("{}")
    return folder


def test_the_nets_that_are_best_on_validation_are_compared_on_test(tmp_path, run_command, capsys):
    measured = {  # by kind: (bypass, validation, test by seed); None is a net that does not fit
        "family": [(None, 0.9, (0.80, 0.90)), ("simple", 0.8, (0.99, 0.99)), ("complex", None, ())],
        "searched": [("simple", 0.95, (0.90, 0.98))],
    }
    results = {}
    for kind, nets in measured.items():
        for bypass, validation, tests in nets:
            for seed in (0, 1):
                folder = add_run(tmp_path / kind / f"{bypass}-{seed}", seed, bypass)
                key = f"{folder}, 70000 bytes, 500 steps"
                results[key] = validation and {
                    "way": "k-means",
                    "parameters": 5,
                    "bytes": 69_000 + seed,
                    "validation": validation,
                }
                if tests:
                    results[key]["test"] = tests[seed]
    add_run(tmp_path / "searched" / "trials" / "alone", 2, "complex")  # one seed is not enough
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "results.json").write_text(json.dumps(results))
    flags = [f"--{kind}={tmp_path / kind}" for kind in ("family", "searched")]
    run_command(equal_bytes, f"--workdir={tmp_path / 'work'}", "--bytes=70000", *flags)
    output = capsys.readouterr().out
    assert (
        "| family | --version=1.0 --bypass=none | 5 | k-means | 69,000 | 90.0% | 85.0% | +- 63.5 | 80.0, 90.0 |"
        in output
    )
    assert "| family | --version=1.0 --bypass=complex | | | does not fit | | | | |" in output
    assert "the best searched net less the family's, seeds 0, 1: +9.0 points (-3.7 to +21.7)" in output
    assert "alone" not in output and output.count("\n| searched") == 1


def test_nets_without_a_common_seed_have_no_difference(tmp_path, run_command, capsys):
    results = {}
    for kind, seeds in (("family", (0, 1)), ("searched", (2, 3))):
        for seed in seeds:
            folder = add_run(tmp_path / kind / str(seed), seed)
            results[f"{folder}, 70000 bytes, 500 steps"] = {
                "way": "k-means",
                "parameters": 5,
                "bytes": 69_000,
                "validation": 0.9,
                "test": 0.9,
            }
    (tmp_path / "results.json").write_text(json.dumps(results))
    flags = [f"--{kind}={tmp_path / kind}" for kind in ("family", "searched")]
    run_command(equal_bytes, f"--workdir={tmp_path}", "--bytes=70000", *flags)
    assert capsys.readouterr().out.endswith("no difference: the best nets of the two kinds have no seed in common\n")


def test_runs_without_a_second_seed_are_refused(tmp_path):
    add_run(tmp_path / "trials" / "alone", 0)
    with pytest.raises(ValueError, match="no net there was trained with two seeds or more"):
        equal_bytes.find_nets([str(tmp_path)])
