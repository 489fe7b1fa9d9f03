"""The samplers of sqz-sweep: Optuna's own, and simulated annealing on Optuna's public interface."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

SAMPLERS = ("grid", "random", "tpe", "gp", "nsga2", "annealing")
_FIRST_TRIALS = 5  # of annealing


def make_sampler(
    name: str, seed: int | None, trials: int, objectives: int, walk_seed: int | None = None
) -> optuna.samplers.BaseSampler:
    """The sampler of this name.

    Args:
        name: One of `SAMPLERS`; with "grid" the sampler draws nothing, because the points are queued.
        seed: Seed of the random draws; None draws differently each time.
        trials: Number of trials of the whole sweep, over which annealing cools.
        objectives: Number of objectives.
        walk_seed: Seed of annealing's decisions, which must be the same for all workers; None is `seed`.

    Raises:
        ValueError: The name is unknown, the sampler does not support the number of objectives, or it is "gp" and
            torch is not installed.
    """
    if name not in SAMPLERS:
        raise ValueError(f"--sampler={name} must be one of {', '.join(SAMPLERS)}.")
    if name == "annealing":
        if objectives > 1:
            raise ValueError(
                f"--sampler=annealing follows one objective, and there are {objectives}; name one, or take tpe, nsga2, "
                "gp, random or grid."
            )
        return AnnealingSampler(seed, trials, walk_seed)
    if name == "gp":
        if importlib.util.find_spec("torch") is None:  # Optuna would only notice in the middle of the sweep
            raise ValueError("--sampler=gp needs PyTorch, which no extra installs: pip install torch, or take tpe.")
        return optuna.samplers.GPSampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))
    return optuna.samplers.RandomSampler(seed)


class AnnealingSampler(optuna.samplers.BaseSampler):
    """Simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 220, 1983) with one objective.

    The first trials are drawn from the whole space. The walk is computed from the finished trials, in their order, so
    that it continues after a restart and several workers share it. A trial becomes the walk's position if it is better,
    or else with the probability exp(-loss / temperature). The temperature, in units of the spread of the first trials,
    falls linearly to 0 at `trials`, and the standard deviation of the steps from 0.33 of the range to 0.03.

    Args:
        seed: Seed of the random draws; None draws differently each time.
        trials: Number of trials after which the temperature is 0.
        walk_seed: Seed of the decisions whether a worse trial becomes the position; None is `seed`.
    """

    def __init__(self, seed: int | None, trials: int, walk_seed: int | None = None):
        self._seed = np.random.SeedSequence(seed).entropy
        self._walk_seed = self._seed if walk_seed is None else walk_seed
        self._trials = trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The dimensions that varied in the trials so far."""
        return optuna.search_space.intersection_search_space(study.get_trials(deepcopy=False))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A neighbour of the walk's position; {} until the walk begins."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < _FIRST_TRIALS or not search_space:
            return {}
        sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        position = self._walk(done, sign)
        temperature = self._temperature(trial.number)
        random = self._random(trial.number)
        moved = random.random(len(search_space)) < max(0.5, 1 / len(search_space))
        moved[random.integers(len(search_space))] = True
        return {
            name: _neighbour(dimension, position.params[name], temperature, random) if moves else position.params[name]
            for (name, dimension), moves in zip(search_space.items(), moved, strict=True)
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value from the whole range, which depends only on the seed, the trial and the name."""
        seed = [*self._key(trial.number), *param_name.encode()]
        return _anywhere(param_distribution, np.random.default_rng(seed))

    def _walk(self, done: Sequence[FrozenTrial], sign: int) -> FrozenTrial:
        losses = [sign * trial.value for trial in done]
        spread = float(np.std(losses[:_FIRST_TRIALS])) or 1.0
        position, loss = done[0], losses[0]
        for trial, other in zip(done[1:], losses[1:], strict=True):
            temperature = spread * self._temperature(trial.number)
            increase = other - loss
            probability = 1.0 if increase <= 0 else math.exp(-increase / temperature) if temperature > 0 else 0.0
            if np.random.default_rng([self._walk_seed, trial.number + 1, 1]).random() < probability:
                position, loss = trial, other
        return position

    def _temperature(self, number: int) -> float:
        return max(0.0, 1 - number / self._trials)

    def _random(self, number: int) -> np.random.Generator:
        return np.random.default_rng(self._key(number))

    def _key(self, number: int) -> list[int]:
        return [self._seed, number, 0]


def _anywhere(dimension: BaseDistribution, random: np.random.Generator) -> Any:
    if isinstance(dimension, CategoricalDistribution):
        return dimension.choices[random.integers(len(dimension.choices))]
    return _at(dimension, random.random())


def _neighbour(dimension: BaseDistribution, value: Any, temperature: float, random: np.random.Generator) -> Any:
    """A value at a normally distributed distance, whose deviation is a third of the range at full temperature."""
    if isinstance(dimension, CategoricalDistribution):
        others = [choice for choice in dimension.choices if choice != value] or [value]
        return others[random.integers(len(others))]
    share = _share(dimension, value) + random.normal() * (0.03 + 0.3 * temperature)
    return _at(dimension, min(max(share, 0.0), 1.0))


def _share(dimension: BaseDistribution, value: float) -> float:
    """The position of a value in its range, 0 to 1."""
    low, high = dimension.low, dimension.high
    if low == high:
        return 0.0
    if dimension.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _at(dimension: BaseDistribution, share: float) -> int | float:
    """The value at a position in the range, rounded to its steps if it has any."""
    low, high = dimension.low, dimension.high
    value = low * (high / low) ** share if dimension.log else low + share * (high - low)
    if dimension.step:
        value = low + round((value - low) / dimension.step) * dimension.step
    value = min(max(value, low), high)
    return round(value) if isinstance(dimension, IntDistribution) else float(value)
