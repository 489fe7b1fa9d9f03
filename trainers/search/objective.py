"""One trial of a study: it draws a point, trains its net and returns the objectives."""

from __future__ import annotations

import hashlib
import json
import pathlib
import time
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sqz_keras.files import InUseError
from trainers.evaluation.metrics import LossNotFiniteError
from trainers.progress import say
from trainers.search.config import SweepConfig
from trainers.search.point import run_point
from trainers.search.space import Point
from trainers.search.storage import POLL_SECONDS
from trainers.training.config import TrainConfig

if TYPE_CHECKING:
    import keras

# Attributes of a trial.
QUEUED = "queued"  # the point, if it was queued instead of drawn by a sampler
INVALID = "invalid"  # why the point makes no net
HELD = "held_by"  # the trial of another worker that runs the same point
COPY = "copy_of"  # the complete trial of the same point
DIVERGED = "diverged"  # why the training could not be finished


class Objective:
    """What Optuna calls for each trial: it trains the net of a point and returns its objectives.

    Args:
        config: The sweep's config.
        workdir: The sweep's folder.
        data_dir: TensorFlow Datasets' own folder.
    """

    def __init__(self, config: SweepConfig, workdir: pathlib.Path, data_dir: str | None):
        self._config, self._workdir, self._data_dir = config, workdir, data_dir
        self.measured = False  # whether the newest trial was finished

    def __call__(self, trial: optuna.Trial) -> list[float]:
        config = self._config
        self.measured = False
        # Optuna's thread records its first heartbeat a little later. Without one, a trial is never given to another
        # worker.
        trial.storage.record_heartbeat(trial._trial_id)
        if config.sampler == "grid" and QUEUED not in trial.user_attrs:
            trial.set_user_attr(HELD, "another worker took the last waiting point")
            raise optuna.TrialPruned
        point = {name: _suggest(trial, name, dimension) for name, dimension in config.space.dimensions.items()}
        values = ", ".join(f"{name} {value}" for name, value in point.items())
        try:
            run = config.trial_config(point)
        except ValueError as error:
            trial.set_user_attr(INVALID, str(error))
            say(f"trial {trial.number} makes no network that can be trained ({values}): {error}")
            raise optuna.TrialPruned(str(error)) from error
        twin = _twin(trial)
        if twin is not None:
            trial.set_user_attr(COPY, twin.number)
            return twin.values
        trial.set_user_attr("command", config.command(run))
        say(f"trial {trial.number}: {values}")
        callbacks = [_pruning_callback(trial)] if config.prune else []
        try:
            measured = run_point(run, trial_folder(self._workdir, run), config.objectives, self._data_dir, callbacks)
        except LossNotFiniteError as error:
            # This net cannot be trained; any other error is the recipe's, and ends the sweep.
            trial.set_user_attr(DIVERGED, str(error))
            say(f"trial {trial.number} ends early: {error}")
            raise optuna.TrialPruned(str(error)) from error
        except InUseError as error:
            # A worker that was thought dead, for example while its machine slept, still works in that folder.
            trial.set_user_attr(HELD, "a worker that was thought dead")
            time.sleep(POLL_SECONDS)
            enqueue(trial.study, point)
            raise optuna.TrialPruned(str(error)) from error
        except optuna.TrialPruned as pruned:
            say(f"trial {trial.number} ends early: {pruned}")
            raise
        except BaseException:
            # Interrupted: the next worker resumes the point from its folder.
            enqueue(trial.study, point)
            raise
        self.measured = True
        for name, value in measured.items():
            trial.set_user_attr(name, value)
        return [measured[name] for name in config.objectives]


def enqueue(study: optuna.Study, point: Point) -> None:
    """Queues a point for the next free worker."""
    study.enqueue_trial(point, user_attrs={QUEUED: point})


def trial_folder(workdir: pathlib.Path, run: TrainConfig) -> pathlib.Path:
    """The folder of a run. It depends only on what decides the run's result, so all workers use the same folder."""
    digest = hashlib.sha256(json.dumps(run.deciding_fields(), sort_keys=True).encode()).hexdigest()
    return workdir / "trials" / digest[:16]


def _suggest(trial: optuna.Trial, name: str, dimension: BaseDistribution) -> int | float | str:
    if isinstance(dimension, CategoricalDistribution):
        return trial.suggest_categorical(name, dimension.choices)
    suggest = trial.suggest_int if isinstance(dimension, IntDistribution) else trial.suggest_float
    return suggest(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _pruning_callback(trial: optuna.Trial) -> keras.callbacks.Callback:
    """Reports each evaluation on the validation split to the study, and ends a trial that the study prunes."""
    import keras

    def report(epoch: int, logs: dict) -> None:
        trial.report(logs["val_accuracy"], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned(f"validation accuracy {logs['val_accuracy']:.3f} after evaluation {epoch + 1}")

    return keras.callbacks.LambdaCallback(on_epoch_end=report)


def _twin(trial: optuna.Trial) -> FrozenTrial | None:
    """A complete trial of the same point.

    Raises:
        optuna.TrialPruned: Another worker is running the point.
    """
    for other in trial.study.get_trials(deepcopy=False):
        if other.number >= trial.number or other.params != trial.params:
            continue
        if other.state == TrialState.COMPLETE:
            return other
        if other.state == TrialState.RUNNING:
            trial.set_user_attr(HELD, other.number)
            time.sleep(POLL_SECONDS)  # if it is the last trial, there is nothing else to do
            raise optuna.TrialPruned
    return None
