"""A sweep: a study in a database that any number of workers share, each taking the next point until all are done."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
import warnings
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sqz_keras.differences import describe_changes
from sqz_keras.files import write_json
from trainers.evaluation.metrics import LossNotFiniteError
from trainers.evaluation.objectives import OBJECTIVES
from trainers.progress import say
from trainers.reports.sweep import write_sweep_report
from trainers.search.samplers import make_sampler
from trainers.search.space import Point, Space, point_flags
from trainers.search.trial import run_point
from trainers.training.config import TrainConfig

if TYPE_CHECKING:
    import keras

STUDY = "sqz-sweep"
_HEARTBEAT_SECONDS, _MOST_RETRIES, _MOST_INVALID = 30, 3, 200
_SUBJECT = "subject"  # the study's attribute that says what is swept
_INVALID, _HELD, _COPY = "invalid", "held_by", "copy_of"  # a trial's: why it was not run
_DIVERGED, _QUEUED = "diverged", "queued"  # what went wrong in it; the point, where no sampler drew it
_BAD_IN_URL = "?%{}"  # SQLAlchemy or Optuna read these otherwise in the path of a database
_POLL_SECONDS = 1.0
_LOCK_SECONDS = 60  # that a worker waits for the others' hold on an SQLite file


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What is searched, how, and for what.

    Args:
        space: of the nets.
        train_flags: sqz-train's for `train`, for the command that stands beside each point.
        sampler: one of `SAMPLERS`.
        objectives: one or more of `OBJECTIVES`.
        trials: finished ones after which the sweep ends; a grid ends with its last point.
        train: how each net is trained; its model gives input, classes and preprocessing.
        seed: of the sampler.
        prune: end a trial whose validation accuracy is below the median of the others'.
        storage: URL of the study's database; "" is a SQLite file in the workdir.
        heartbeat_seconds: between two signs of life of a worker; after three times that its trial is given to another.

    Raises:
        ValueError: a value is not one of those above, or two contradict each other.
    """

    space: Space
    train: TrainConfig
    train_flags: str = ""
    sampler: str = "tpe"
    objectives: tuple[str, ...] = ("top1",)
    trials: int = 20
    seed: int = 0
    prune: bool = False
    storage: str = ""
    heartbeat_seconds: int = _HEARTBEAT_SECONDS

    def __post_init__(self):
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise ValueError(f"--objectives must be different ones of {', '.join(OBJECTIVES)}, got {self.objectives}.")
        if self.prune and (self.objectives != ("top1",) or self.sampler == "grid"):
            raise ValueError(
                "--prune compares validation accuracies: it goes with --objectives=top1, and not with a grid."
            )
        if self.trials < 1:
            raise ValueError(f"--trials must be at least 1, got {self.trials}.")
        make_sampler(self.sampler, self.seed, self.trials, len(self.objectives))
        if self.sampler == "grid":
            self.space.grid()
        if self.storage and "://" not in self.storage:
            raise ValueError(
                f"--storage={self.storage} must be a URL, such as sqlite:///FILE or postgresql://HOST/NAME."
            )

    def subject(self) -> dict[str, Any]:
        """What workers of one study must have in common."""
        return {
            "space": self.space.to_json(),
            "grid": self.sampler == "grid",
            "objectives": list(self.objectives),
            "train": self.train.to_json(),
        }

    def trial_config(self, point: Point) -> TrainConfig:
        """How the net at a point is trained."""
        return dataclasses.replace(self.train, model=self.space.spec(self.train.model, point))

    def command(self, run: TrainConfig) -> str:
        """What trains the net of `run` again."""
        return " ".join(filter(None, ("sqz-train", self.train_flags, point_flags(run.model), "--workdir=DIR")))


def sweep(config: SweepConfig, workdir: str | os.PathLike, data_dir: str | None = None) -> list[dict[str, Any]]:
    """Runs trials until `config.trials` are finished, with whoever else works on the same study.

    `workdir` gets a folder for each trained net, trials.json and report.html.

    Returns:
        The records of the finished trials, as trials.json holds them.

    Raises:
        ValueError: the study is of another sweep, the storage cannot be opened, hardly any point is valid, or the
            recipe does not fit the dataset.
        Interrupted, KeyboardInterrupt: a signal came; all that was finished is kept.
    """
    workdir = pathlib.Path(workdir)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of each interruption, with a traceback
    # Heartbeats and the importances are marked so; the tests hold what is used of them.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = open_study(config, workdir)
    objective = _Objective(config, workdir, data_dir)
    try:
        while not _is_done(config, study):
            try:
                study.optimize(objective, n_trials=1)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                # Optuna refuses what comes of a trial that was given to another worker, as this one was thought dead:
                # its machine had slept, say.
                if not objective.measured:
                    raise
                say("another worker has taken that trial over; its folder keeps what came of it")
            write_records(config, study, workdir)
    finally:
        records = write_records(config, study, workdir)
        if any(record["state"] == "complete" for record in records):
            importances = _importances(study)
            write_sweep_report(workdir / "report.html", config.space.name, config.objectives, records, importances)
    return records


def open_study(config: SweepConfig, workdir: pathlib.Path) -> optuna.Study:
    """The study, made by whoever comes first."""
    if not config.storage and set(_BAD_IN_URL) & set(str(workdir)):
        raise ValueError(f"--workdir={workdir} must be without {_BAD_IN_URL}, or --storage name the database's place.")
    workdir.mkdir(parents=True, exist_ok=True)
    url = config.storage or f"sqlite:///{workdir / 'study.db'}"
    storage = _open_storage(url, config.heartbeat_seconds)
    directions = [OBJECTIVES[name] for name in config.objectives]
    seed, subject = config.seed, json.dumps(config.subject(), sort_keys=True)
    try:
        study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions)
        study.set_user_attr(_SUBJECT, subject)
    except optuna.exceptions.DuplicatedStudyError:
        seed = None  # a second worker, or a later one, must not draw the first one's points again
        study = optuna.load_study(storage=storage, study_name=STUDY)
    found = study.user_attrs.get(_SUBJECT)
    if found not in (subject, None):
        raise ValueError(
            f"{url} holds a sweep of another kind: {describe_changes(json.loads(found), json.loads(subject))}."
        )
    if [direction.name.lower() for direction in study.directions] != directions or (found is None and study.trials):
        raise ValueError(f"{url} holds a study called {STUDY} that is none of ours; give another --storage.")
    study.sampler = make_sampler(config.sampler, seed, config.trials, len(directions), walk_seed=config.seed)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if config.prune else optuna.pruners.NopPruner()
    if config.sampler == "grid":
        _enqueue_missing(study, config.space)
    return study


def _enqueue_missing(study: optuna.Study, space: Space) -> None:
    """Queues the points of a grid that are neither done nor waiting nor in hand."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
    known = {
        tuple(trial.user_attrs[_QUEUED].items())
        for trial in study.get_trials(deepcopy=False, states=states)
        if _QUEUED in trial.user_attrs and _HELD not in trial.user_attrs
    }
    for point in space.grid():
        if tuple(point.items()) not in known:
            _enqueue(study, point)


def _enqueue(study: optuna.Study, point: Point) -> None:
    study.enqueue_trial(point, user_attrs={_QUEUED: point})


def _open_storage(url: str, heartbeat_seconds: int) -> optuna.storages.RDBStorage:
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES)
    for last in (False, False, True):
        try:
            storage = optuna.storages.RDBStorage(
                url,
                heartbeat_interval=heartbeat_seconds,
                grace_period=3 * heartbeat_seconds,
                heartbeat_stale_trial_callback=retry,
            )
            break
        except Exception as error:  # SQLAlchemy, its drivers and Optuna each have their own
            # Two workers that find an empty database both make its tables, and one of them is late.
            if last:
                raise ValueError(f"--storage: {url} cannot be opened: {error!s:.300}") from error
            time.sleep(_POLL_SECONDS)
    if storage.engine.dialect.name == "sqlite":
        _lock_at_once(storage.engine)
    return storage


def _lock_at_once(engine: sqlalchemy.Engine) -> None:
    """Has each transaction of SQLite lock the file when it begins.

    Else two workers can both read that a trial waits before either takes it: SQLite has no SELECT ... FOR UPDATE, on
    which Optuna relies. https://docs.sqlalchemy.org/en/20/dialects/sqlite.html tells of the two events.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def connect(connection, _):
        connection.isolation_level = None  # the driver then leaves BEGIN to what follows
        connection.execute(f"PRAGMA busy_timeout = {1000 * _LOCK_SECONDS}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were made without them


class _Objective:
    """What Optuna calls for each trial."""

    def __init__(self, config: SweepConfig, workdir: pathlib.Path, data_dir: str | None):
        self._config, self._workdir, self._data_dir = config, workdir, data_dir
        self.measured = False  # whether the newest trial came to its end

    def __call__(self, trial: optuna.Trial) -> list[float]:
        config = self._config
        self.measured = False
        # Optuna's thread gives the first sign of life a little later, and without one no other worker ever takes over.
        trial.storage.record_heartbeat(trial._trial_id)
        if config.sampler == "grid" and _QUEUED not in trial.user_attrs:
            trial.set_user_attr(_HELD, "another worker took the last point that waited")
            raise optuna.TrialPruned
        point = {name: _suggest(trial, name, dimension) for name, dimension in config.space.dimensions.items()}
        try:
            run = config.trial_config(point)
        except ValueError as error:
            trial.set_user_attr(_INVALID, str(error))
            raise optuna.TrialPruned(str(error)) from error
        known = _twin(trial)
        if known is not None:
            trial.set_user_attr(_COPY, known.number)
            return known.values
        trial.set_user_attr("command", config.command(run))
        say(f"trial {trial.number}: {', '.join(f'{name} {value}' for name, value in point.items())}")
        watch = [_watch(trial)] if config.prune else []
        try:
            measured = run_point(run, trial_folder(self._workdir, run), config.objectives, self._data_dir, watch)
        except LossNotFiniteError as error:
            # This net's trouble; every other mistake is the recipe's, and ends the sweep.
            trial.set_user_attr(_DIVERGED, str(error))
            say(f"trial {trial.number} is given up: {error}")
            raise optuna.TrialPruned(str(error)) from error
        except optuna.TrialPruned as hopeless:
            say(f"trial {trial.number} is given up: {hopeless}")
            raise
        except BaseException:
            # Stopped from outside: the next worker takes the point up where its folder stands.
            _enqueue(trial.study, point)
            raise
        self.measured = True
        for name, value in measured.items():
            trial.set_user_attr(name, value)
        return [measured[name] for name in config.objectives]


def _suggest(trial: optuna.Trial, name: str, dimension: BaseDistribution) -> int | float | str:
    if isinstance(dimension, CategoricalDistribution):
        return trial.suggest_categorical(name, dimension.choices)
    suggest = trial.suggest_int if isinstance(dimension, IntDistribution) else trial.suggest_float
    return suggest(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _watch(trial: optuna.Trial) -> keras.callbacks.Callback:
    """Tells the study of each look at the validation split, and ends a trial that it calls hopeless."""
    import keras

    def look(epoch: int, logs: dict) -> None:
        trial.report(logs["val_accuracy"], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned(f"validation accuracy {logs['val_accuracy']:.3f} after look {epoch + 1}")

    return keras.callbacks.LambdaCallback(on_epoch_end=look)


def trial_folder(workdir: pathlib.Path, run: TrainConfig) -> pathlib.Path:
    """The folder of a run: the same run has the same one, whoever starts it."""
    digest = hashlib.sha256(json.dumps(run.to_json(), sort_keys=True).encode()).hexdigest()
    return workdir / "trials" / digest[:16]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to an end: complete ones, and those that were given up."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in trials if not {_INVALID, _HELD} & set(trial.user_attrs)]


def write_records(config: SweepConfig, study: optuna.Study, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Writes trials.json: what came of each point, once."""
    records = [
        {"number": trial.number, "state": trial.state.name.lower(), "point": dict(trial.params)}
        | {name: value for name, value in trial.user_attrs.items() if name != _QUEUED}
        for trial in finished(study)
        if _COPY not in trial.user_attrs
    ]
    write_json(workdir / "trials.json", {"subject": config.subject(), "sampler": config.sampler, "trials": records})
    return records


def _is_done(config: SweepConfig, study: optuna.Study) -> bool:
    if config.sampler == "grid":
        return not _wait_for_points(study)
    trials = study.get_trials(deepcopy=False)
    invalid = sum(_INVALID in trial.user_attrs for trial in trials)
    if invalid > _MOST_INVALID and invalid > 10 * len(finished(study)):
        raise ValueError(
            f"{invalid} of {len(trials)} points of the space {config.space.name} make no net that can be trained, the "
            f"last one: {next(t.user_attrs['invalid'] for t in reversed(trials) if 'invalid' in t.user_attrs)}"
        )
    return len(finished(study)) >= config.trials


def _wait_for_points(study: optuna.Study) -> bool:
    """Whether a point of the grid waits, if need be once a worker that has one in hand is found to be dead."""
    told = False
    while True:
        optuna.storages.fail_stale_trials(study)
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not running:
            return False
        if not told:
            say(f"waiting for {len(running)} trials that other workers have in hand, or died with")
            told = True
        time.sleep(_POLL_SECONDS)


def _twin(trial: optuna.Trial) -> FrozenTrial | None:
    """A complete trial of the same point.

    Raises:
        optuna.TrialPruned: another worker has the point in hand.
    """
    for other in trial.study.get_trials(deepcopy=False):
        if other.number >= trial.number or other.params != trial.params:
            continue
        if other.state == TrialState.COMPLETE:
            return other
        if other.state == TrialState.RUNNING:
            trial.set_user_attr(_HELD, other.number)
            time.sleep(_POLL_SECONDS)  # for it to end: others may be all that is left
            raise optuna.TrialPruned
    return None


def _importances(study: optuna.Study) -> dict[str, float]:
    """How much each dimension matters for good values of the first objective (PED-ANOVA); {} if it cannot be told."""
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    with contextlib.suppress(ValueError, RuntimeError, ZeroDivisionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that low values are good ones, which `sign` has seen to
        return dict(
            optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                target=lambda trial: sign * trial.values[0],
            )
        )
    return {}
