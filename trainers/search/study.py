"""A sweep: a study that any number of workers share, each taking the next point until all are done."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
import warnings
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sqz_keras.differences import describe_changes
from sqz_keras.files import write_json
from trainers.evaluation.objectives import OBJECTIVES
from trainers.progress import say
from trainers.reports.sweep import write_sweep_report
from trainers.search.config import SweepConfig
from trainers.search.objective import COPY, HELD, INVALID, QUEUED, Objective, enqueue
from trainers.search.samplers import make_sampler
from trainers.search.space import Space
from trainers.search.storage import POLL_SECONDS, open_storage, storage_errors

STUDY = "sqz-sweep"
_DATABASE = "study.db"
_FILES = ("trials.json", "report.html", "report.svg", "report.png")
_MOST_INVALID = 200
_SUBJECT = "subject"  # the study's attribute that says what is swept
_BAD_IN_URL = "?%{}"  # SQLAlchemy or Optuna read these differently in the path of a database


@storage_errors()
def sweep(config: SweepConfig, workdir: str | os.PathLike, data_dir: str | None = None) -> list[dict[str, Any]]:
    """Runs trials until `config.trials` are finished, together with any other workers of the same study.

    `workdir` gets a folder for each trained net, trials.json and report.html.

    Returns:
        The records of the finished trials and of the points that make no net, as trials.json holds them.

    Raises:
        ValueError: The study belongs to another sweep, the storage cannot be opened, hardly any point is valid, or the
            recipe does not fit the dataset.
        OSError: The database cannot be read or written, as when the disk is full.
        Interrupted, KeyboardInterrupt: A signal was received; finished trials are kept.
    """
    workdir = pathlib.Path(workdir)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # otherwise it warns of each interruption, with a traceback
    # Heartbeats and importances are experimental; tests cover what is used of them.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = open_study(config, workdir)
    objective = Objective(config, workdir, data_dir)
    try:
        while not _is_done(config, study):
            try:
                study.optimize(objective, n_trials=1)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                # Optuna refuses the result of a trial that was given to another worker because this worker was thought
                # dead, for example while its machine slept.
                if not objective.measured:
                    raise
                say("another worker has taken over that trial; its folder keeps the results")
            write_records(config, study, workdir)
    finally:
        records = write_records(config, study, workdir)
        if any(record["state"] == "complete" for record in records):
            importances = parameter_importances(study)
            write_sweep_report(workdir / "report.html", config.space.name, config.objectives, records, importances)
    return records


def open_study(config: SweepConfig, workdir: pathlib.Path) -> optuna.Study:
    """Opens the study, or creates it if it does not exist.

    Raises:
        ValueError: The study belongs to another sweep, the storage cannot be opened, or a new study would replace files
            of `workdir`.
    """
    if not config.storage and set(_BAD_IN_URL) & set(str(workdir)):
        raise ValueError(f"--workdir={workdir} must not contain {_BAD_IN_URL}, unless --storage names the database.")
    if not config.storage and not (workdir / _DATABASE).exists():
        _check_replaces_nothing(workdir)  # before opening makes an empty database
    workdir.mkdir(parents=True, exist_ok=True)
    url = config.storage or f"sqlite:///{workdir / _DATABASE}"
    storage = open_storage(url, config.heartbeat_seconds)
    if STUDY not in optuna.get_all_study_names(storage):
        _check_replaces_nothing(workdir)
    directions = [OBJECTIVES[name] for name in config.objectives]
    seed, subject = config.seed, json.dumps(config.subject(), sort_keys=True)
    try:
        study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions)
        study.set_user_attr(_SUBJECT, subject)
    except optuna.exceptions.DuplicatedStudyError:
        seed = None  # a second worker, or a later one, must not draw the first one's points again
        study = optuna.load_study(storage=storage, study_name=STUDY)
    stored = study.user_attrs.get(_SUBJECT)
    if stored not in (subject, None):
        raise ValueError(
            f"{url} holds a sweep of another kind: {describe_changes(json.loads(stored), json.loads(subject))}. Run "
            "with the earlier values, or choose another --workdir or --storage."
        )
    if [direction.name.lower() for direction in study.directions] != directions or (stored is None and study.trials):
        raise ValueError(f"{url} holds a study called {STUDY} that sqz-sweep did not make; give another --storage.")
    study.sampler = make_sampler(config.sampler, seed, config.trials, len(directions), walk_seed=config.seed)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5) if config.prune else optuna.pruners.NopPruner()
    if config.sampler == "grid":
        _enqueue_missing(study, config.space)
    return study


def _check_replaces_nothing(workdir: pathlib.Path) -> None:
    """Refuses a folder for a new study if it already holds files that a sweep writes."""
    present = [name for name in _FILES if (workdir / name).exists()]
    if present:
        raise ValueError(
            f"{workdir} holds {present[0]}, which a sweep would replace, and no study; choose another --workdir, or "
            "remove it."
        )


def _enqueue_missing(study: optuna.Study, space: Space) -> None:
    """Queues the points of a grid that are neither finished nor waiting nor running."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
    present = {
        tuple(trial.user_attrs[QUEUED].items())
        for trial in study.get_trials(deepcopy=False, states=states)
        if QUEUED in trial.user_attrs and HELD not in trial.user_attrs
    }
    for point in space.grid():
        if tuple(point.items()) not in present:
            enqueue(study, point)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are over and whose points make a net: complete trials, and trials that ended early."""
    return [trial for trial in _ended(study) if INVALID not in trial.user_attrs]


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are over, including those of points that make no net."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in trials if HELD not in trial.user_attrs]


def write_records(config: SweepConfig, study: optuna.Study, workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Writes trials.json: the results of each point, once, or why it makes no net."""
    records = [
        {
            "number": trial.number,
            "state": INVALID if INVALID in trial.user_attrs else trial.state.name.lower(),
            "point": dict(trial.params),
        }
        | {name: value for name, value in trial.user_attrs.items() if name != QUEUED}
        for trial in _ended(study)
        if COPY not in trial.user_attrs
    ]
    write_json(workdir / "trials.json", {"subject": config.subject(), "sampler": config.sampler, "trials": records})
    return records


def _is_done(config: SweepConfig, study: optuna.Study) -> bool:
    if config.sampler == "grid":
        return not _wait_for_points(study)
    trials = study.get_trials(deepcopy=False)
    invalid = sum(INVALID in trial.user_attrs for trial in trials)
    if invalid > _MOST_INVALID and invalid > 10 * len(finished(study)):
        last = next(trial.user_attrs[INVALID] for trial in reversed(trials) if INVALID in trial.user_attrs)
        raise ValueError(
            f"{invalid} of {len(trials)} points of the space {config.space.name} make no network that can be trained, "
            f"the last one: {last}"
        )
    return len(finished(study)) >= config.trials


def _wait_for_points(study: optuna.Study) -> bool:
    """Waits for a free point of the grid and returns whether there is one. A dead worker's point becomes free again."""
    has_said = False
    while True:
        optuna.storages.fail_stale_trials(study)
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not running:
            return False
        if not has_said:
            say(f"waiting for {len(running)} trials of other workers, which may have died")
            has_said = True
        time.sleep(POLL_SECONDS)


def parameter_importances(study: optuna.Study) -> dict[str, float]:
    """How much each dimension matters for the first objective (PED-ANOVA); {} if that cannot be computed."""
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    with contextlib.suppress(ValueError, RuntimeError, ZeroDivisionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low values count as good, which `sign` allows for
        return dict(
            optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                target=lambda trial: sign * trial.values[0],
            )
        )
    return {}
