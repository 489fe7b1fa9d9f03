import importlib.util

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from trainers.search.samplers import SAMPLERS, AnnealingSampler, make_sampler

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = {
    "a": FloatDistribution(0.01, 1.0, log=True),
    "b": IntDistribution(0, 100, step=5),
    "c": CategoricalDistribution(("x", "y", "z")),
}


def value(params):
    return -abs(np.log(params["a"] / 0.1)) - abs(params["b"] - 65) / 30 - (params["c"] != "y")


def best(sampler, trials=60, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=sampler)
    sign = 1 if direction == "maximize" else -1
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, sign * value(trial.params))
    return sign * study.best_value, study


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_annealing_beats_random_draws(direction):
    annealed = [best(AnnealingSampler(seed, 60), direction=direction)[0] for seed in range(10)]
    drawn = [best(optuna.samplers.RandomSampler(seed), direction=direction)[0] for seed in range(10)]
    assert np.mean(annealed) > np.mean(drawn) + 0.1


def test_annealing_stays_within_bounds_and_on_steps():
    _, study = best(AnnealingSampler(3, 40), 40)
    for trial in study.trials:
        assert 0.01 <= trial.params["a"] <= 1 and trial.params["b"] in range(0, 101, 5) and trial.params["c"] in "xyz"


def test_annealing_goes_on_where_another_sampler_object_stopped():
    _, whole = best(AnnealingSampler(5, 30), 30)
    study = optuna.create_study(direction="maximize")
    for part in (12, 18):
        study.sampler = AnnealingSampler(5, 30)
        for _ in range(part):
            trial = study.ask(SPACE)
            study.tell(trial, value(trial.params))
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


def test_workers_that_draw_anew_agree_where_the_walk_stands():
    _, study = best(AnnealingSampler(5, 40), 30)
    for count in range(6, 31):
        done = study.trials[:count]
        first, later = AnnealingSampler(5, 40), AnnealingSampler(None, 40, walk_seed=5)
        assert first._walk(done, -1).number == later._walk(done, -1).number
        assert later._random(count).random() != first._random(count).random()


def test_a_cold_walk_only_takes_what_is_better():
    sampler = AnnealingSampler(0, 1)
    study = optuna.create_study(direction="maximize")
    for loss in (1.0, 5.0, 3.0, 4.0):
        study.add_trial(optuna.create_trial(params={"a": 0.5}, distributions={"a": SPACE["a"]}, value=loss))
    assert sampler._walk(study.trials, -1).value == 5.0


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_every_sampler_finds_values_in_the_space(name):
    assert best(make_sampler(name, 0, 12, 1), 12)[0] <= 0


def test_gp_needs_torch():
    if importlib.util.find_spec("torch") is None:
        with pytest.raises(ValueError, match="pip install torch"):
            make_sampler("gp", 0, 10, 1)
    else:
        assert best(make_sampler("gp", 0, 12, 1), 12)[0] <= 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="must be one of grid, random, tpe, gp, nsga2, annealing"):
        make_sampler("bayes", 0, 10, 1)
    with pytest.raises(ValueError, match="follows one objective, and there are 2"):
        make_sampler("annealing", 0, 10, 2)
