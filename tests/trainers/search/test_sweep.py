"""A sweep shared by workers, stopped, killed and resumed; nearly always with something quick instead of training."""

import dataclasses
import json
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from sqz_keras import resolve_model
from sqz_keras.files import InUseError
from trainers import sweep as command
from trainers import train
from trainers.configs import load_config
from trainers.evaluation.metrics import LossNotFiniteError
from trainers.search import objective, storage
from trainers.search import run as sweep_run
from trainers.search import study as sweep_study
from trainers.search.config import SweepConfig
from trainers.search.space import SPACES, find_space
from trainers.search.study import sweep
from trainers.search.table import best_lines

DIGITS = load_config("digits")
WIDE = {"pct_3x3": FloatDistribution(0.01, 0.64, step=0.01)}

# A worker whose trials take as long as its second argument says, and record in a file that they were run.
WORKER = """
import pathlib, signal, sys, time
from trainers.search import objective, study as sweep_study
from trainers.search.config import SweepConfig
from trainers.configs import load_config
from trainers.search.space import SPACES
from trainers.search.point import describe_net

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
folder, seconds, sampler, trials = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def run_point(config, trial_folder, *_):
    with open(folder / "log.txt", "a") as log:
        log.write(f"start {trial_folder.name}\\n")
        log.flush()
        time.sleep(seconds)
        log.write(f"end {trial_folder.name}\\n")
    top1 = 1 - 1e5 / config.model.count_params()
    return describe_net(config.model) | {"top1": top1, "test_top1": top1, "train_seconds": seconds, "latency": 0.001}

objective.run_point = run_point
objective.POLL_SECONDS = sweep_study.POLL_SECONDS = 0.1
config = SweepConfig(
    SPACES["pct_3x3"], load_config("digits"), sampler=sampler, trials=trials, heartbeat_seconds=1
)
records = sweep_study.sweep(config, folder)
print(len(records))
"""


def worker(folder, seconds, sampler="grid", trials=100):
    arguments = [sys.executable, "-c", WORKER, str(folder), str(seconds), sampler, str(trials)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(folder):
    return [line.split()[1] for line in (folder / "log.txt").read_text().splitlines() if line.startswith("end")]


def wait_for(folder, word, count, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""
        if sum(line.startswith(word) for line in text.splitlines()) >= count:
            return
        time.sleep(0.05)
    pytest.fail(f"no {count} lines {word!r}")


def finished_trials(folder):
    return json.loads((folder / "trials.json").read_text())["trials"]


@pytest.mark.large
def test_two_workers_share_a_grid_and_run_no_point_twice(tmp_path):
    workers = [worker(tmp_path, 0.3), worker(tmp_path, 0.3)]
    for process in workers:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    assert len(ended(tmp_path)) == len(set(ended(tmp_path))) == 9
    assert sorted(record["point"]["pct_3x3"] for record in finished_trials(tmp_path)) == sorted(
        point["pct_3x3"] for point in SPACES["pct_3x3"].grid()
    )
    assert (tmp_path / "report.html").exists() and (tmp_path / "report.svg").exists()


@pytest.mark.large
def test_a_killed_workers_point_is_noticed_and_given_to_another(tmp_path):
    killed = worker(tmp_path, 60)
    wait_for(tmp_path, "start", 1)
    killed.kill()
    killed.communicate()
    _, errors = (other := worker(tmp_path, 0)).communicate(timeout=100)
    assert other.returncode == 0, errors
    # The nine points, the dead worker's among them, each finished once.
    assert len(ended(tmp_path)) == len(set(ended(tmp_path))) == 9
    assert len(finished_trials(tmp_path)) == 9


@pytest.mark.large
def test_an_interrupted_sweep_keeps_what_is_finished_and_goes_on(tmp_path):
    stopped = worker(tmp_path, 2)
    wait_for(tmp_path, "start", 2)
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode != 0
    kept = ended(tmp_path)
    assert len(finished_trials(tmp_path)) == len(kept) == 1
    _, errors = (other := worker(tmp_path, 0)).communicate(timeout=100)
    assert other.returncode == 0, errors
    assert len(ended(tmp_path)) == len(set(ended(tmp_path))) == 9


@pytest.mark.large
def test_a_point_that_is_drawn_again_is_not_trained_again(tmp_path):
    output, errors = (only := worker(tmp_path, 0, "random", 20)).communicate(timeout=100)
    assert only.returncode == 0, errors
    assert len(ended(tmp_path)) == len(set(ended(tmp_path))) == int(output) <= 9


def config(**changes):
    return SweepConfig(**{"space": SPACES["squeeze_ratio"], "train": DIGITS} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("top1", "speed")}, "different ones of top1, bytes, latency, compressed_bytes"),
        ({"objectives": ("top1", "top1")}, "different ones"),
        ({"sampler": "best"}, "must be one of grid, random"),
        ({"sampler": "annealing", "objectives": ("top1", "bytes")}, "follows one objective"),
        ({"sampler": "grid", "space": SPACES["full"]}, "A grid needs steps"),
        ({"prune": True, "objectives": ("bytes",)}, "goes with --objectives=top1"),
        ({"trials": 0}, "at least 1"),
        ({"storage": "study.db"}, "must be a URL"),
    ],
)
def test_what_cannot_be_is_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_storage_that_cannot_be_opened_is_refused_before_a_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "POLL_SECONDS", 0)
    with pytest.raises(ValueError, match="cannot be opened"):
        sweep(config(storage=f"sqlite:///{tmp_path}/missing/study.db"), tmp_path)
    assert not (tmp_path / "trials").exists()


def test_a_damaged_database_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "POLL_SECONDS", 0)
    monkeypatch.setattr(objective, "run_point", trained)
    grid, database = config(space=SPACES["bypass"], sampler="grid"), tmp_path / "study.db"
    sweep(grid, tmp_path)
    data = database.read_bytes()
    database.write_bytes(data[:20_000] + bytes(8_000) + data[28_000:])
    with pytest.raises(OSError, match=r"^The sweep's database cannot be read or written: .*malformed") as refusal:
        sweep(grid, tmp_path)
    database.write_bytes(b"no database")
    with pytest.raises(ValueError, match=r"cannot be opened: .*file is not a database$"):
        sweep(grid, tmp_path)
    assert "\n" not in str(refusal.value)
    # What the line says.
    for name in ("study.db", "trials.json", "report.html", "report.svg", "report.png"):
        (tmp_path / name).unlink()
    assert len(sweep(grid, tmp_path)) == 3


def test_another_sweep_in_the_same_study_is_refused(tmp_path):
    sweep_study.open_study(config(), tmp_path)
    changed = dataclasses.replace(DIGITS, max_steps=7)
    with pytest.raises(ValueError, match=r"train\.max_steps was 1200, now 7"):
        sweep_study.open_study(config(train=changed), tmp_path)
    with pytest.raises(ValueError, match=r"images\.sizes was None, now {'train': 4}"):
        sweep_study.open_study(config(images={"sizes": {"train": 4}}), tmp_path)


def test_a_new_study_replaces_no_files_of_another_kind(tmp_path):
    for name in ("trials.json", "report.html", "report.svg", "report.png"):
        (tmp_path / name).write_text("mine")
        for _ in range(2):  # a refusal makes no study
            with pytest.raises(ValueError, match=f"holds {name}, which a sweep would replace, and no study"):
                sweep_study.open_study(config(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
    sweep_study.open_study(config(), tmp_path)
    (tmp_path / "report.html").write_text("the sweep's")
    sweep_study.open_study(config(), tmp_path)
    for _ in range(2):  # refusing makes no study in a database that is elsewhere, either
        with pytest.raises(ValueError, match=r"holds report\.html"):
            sweep_study.open_study(config(storage=f"sqlite:///{tmp_path}/other.db"), tmp_path)


def test_what_does_not_change_the_results_may_change(tmp_path):
    sweep_study.open_study(config(), tmp_path)
    changed = dataclasses.replace(DIGITS, max_bad_pictures=7, keep_checkpoints=9)
    sweep_study.open_study(config(train=changed), tmp_path)
    assert objective.trial_folder(tmp_path, changed) == objective.trial_folder(tmp_path, DIGITS)


def test_the_images_of_a_sweep_are_those_of_its_study(tmp_path, tfds_dir, digits, monkeypatch):
    seen = []
    monkeypatch.setattr(sweep_run, "sweep", lambda config, *_: seen.append(config) or [])
    assert sweep_run.run_sweep(config(), str(tmp_path), str(tfds_dir)) == 1
    assert seen[0].subject()["images"] == {"labels": list("0123456789"), "sizes": digits.sizes}


@pytest.mark.large
def test_hopeless_trials_are_given_up(tmp_path, monkeypatch):
    def run_point(run, folder, objectives, data_dir, callbacks):
        accuracy = run.model.metaparameters.pct_3x3
        for epoch in range(3):
            callbacks[0].on_epoch_end(epoch, {"val_accuracy": accuracy})
        return {"top1": accuracy, "test_top1": accuracy, "bytes": 4, "mebibytes": 1.0}

    monkeypatch.setattr(objective, "run_point", run_point)
    records = sweep(config(space=SPACES["full"], sampler="random", trials=20, prune=True), tmp_path)
    accuracies = {
        state: [record["point"]["pct_3x3"] for record in records if record["state"] == state]
        for state in ("complete", "pruned")
    }
    # One point makes no net, and does not count.
    assert sum(map(len, accuracies.values())) == 20 and len(accuracies["pruned"]) >= 3
    # The first five trials are spared; a pruned trial lies below the median of those that were finished before it.
    assert max(accuracies["pruned"]) < sorted(accuracies["complete"])[-1]


def trained(run, *_):
    return {"top1": 0.5, "test_top1": 0.5, "bytes": 4, "mebibytes": 1.0}


def test_a_net_that_diverges_is_reported_and_the_others_continue(tmp_path, monkeypatch, capsys):
    def run_point(run, *_):
        if run.model.bypass == "simple":
            raise LossNotFiniteError("The loss is nan at step 3")
        return trained(run)

    monkeypatch.setattr(objective, "run_point", run_point)
    records = sweep(config(space=SPACES["bypass"], sampler="grid"), tmp_path)
    assert [(record["point"]["bypass"], record["state"]) for record in records] == [
        ("none", "complete"),
        ("simple", "pruned"),
        ("complex", "complete"),
    ]
    assert records[1]["diverged"] == "The loss is nan at step 3"
    assert "trial 1 ends early: The loss is nan at step 3" in capsys.readouterr().err


def test_points_that_make_no_net_are_reported(tmp_path, monkeypatch, capsys):
    (tmp_path / "layers.json").write_text(json.dumps({"parameters": {"num_fire_modules": [4, 8]}}))
    monkeypatch.setattr(objective, "run_point", trained)
    records = sweep(config(space=find_space(str(tmp_path / "layers.json")), sampler="grid"), tmp_path)
    assert records == finished_trials(tmp_path)
    assert [(record["point"]["num_fire_modules"], record["state"]) for record in records] == [
        (4, "invalid"),
        (8, "complete"),
    ]
    assert "must name layers from 1 (conv1) to 5" in records[0]["invalid"]
    assert "trial 0 makes no network that can be trained (num_fire_modules 4): Meta" in capsys.readouterr().err
    assert next(best_lines(("top1",), records)).startswith("1 networks trained, 0 ended early, 1 points without")
    assert (tmp_path / "report.html").exists()


def test_any_other_mistake_ends_the_sweep_and_costs_no_point(tmp_path, monkeypatch):
    def run_point(*_):
        raise ValueError("global_batch_size=32 must be a multiple of 3")

    monkeypatch.setattr(objective, "run_point", run_point)
    with pytest.raises(ValueError, match="multiple of 3"):
        sweep(config(space=SPACES["bypass"], sampler="grid"), tmp_path)
    monkeypatch.setattr(objective, "run_point", trained)
    assert len(sweep(config(space=SPACES["bypass"], sampler="grid"), tmp_path)) == 3


def test_a_point_that_was_lost_outside_of_its_training_comes_back(tmp_path, monkeypatch):
    """As by Ctrl-C while the measurements are written down."""
    monkeypatch.setattr(objective, "run_point", trained)
    write = optuna.Trial.set_user_attr

    def interrupted(trial, name, value):
        if (trial.number, name) == (1, "top1"):
            raise KeyboardInterrupt
        write(trial, name, value)

    grid = config(space=SPACES["bypass"], sampler="grid")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Trial, "set_user_attr", interrupted)
        sweep(grid, tmp_path)
    assert {record["point"]["bypass"] for record in sweep(grid, tmp_path)} == {"none", "simple", "complex"}


def test_a_worker_whose_trial_was_taken_over_goes_on(tmp_path, monkeypatch, capsys):
    grid = config(space=SPACES["bypass"], sampler="grid")

    def run_point(run, *_):
        if run.model.bypass == "simple" and not (tmp_path / "taken").exists():
            (tmp_path / "taken").touch()
            other = optuna.load_study(storage=f"sqlite:///{tmp_path}/study.db", study_name=sweep_study.STUDY)
            other.tell(1, state=optuna.trial.TrialState.FAIL)
            other.enqueue_trial({"bypass": "simple"}, user_attrs=other.trials[1].user_attrs)
        return trained(run)

    monkeypatch.setattr(objective, "run_point", run_point)
    records = sweep(grid, tmp_path)
    assert sorted(record["point"]["bypass"] for record in records) == ["complex", "none", "simple"]
    assert "taken over that trial" in capsys.readouterr().err


def test_a_point_is_tried_again_where_another_worker_still_trains_it(tmp_path, monkeypatch):
    """The other worker was thought dead because its machine slept."""
    calls = []

    def run_point(run, *_):
        calls.append(run.model.bypass)
        if calls.count("simple") == 1:
            raise InUseError("another process")
        return trained(run)

    monkeypatch.setattr(objective, "run_point", run_point)
    monkeypatch.setattr(objective, "POLL_SECONDS", 0)
    records = sweep(config(space=SPACES["bypass"], sampler="grid"), tmp_path)
    assert sorted(record["point"]["bypass"] for record in records) == ["complex", "none", "simple"]


def test_a_large_grid_opens_again_at_once(tmp_path):
    """400 points took a minute when each point was looked up in the whole study."""
    grid = config(space=dataclasses.replace(SPACES["pct_3x3"], dimensions=WIDE), sampler="grid")
    sweep_study.open_study(grid, tmp_path)
    read, reads = optuna.Study.get_trials, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.Study, "get_trials", lambda *a, **k: reads.append(1) or read(*a, **k))
        study = sweep_study.open_study(grid, tmp_path)
    assert len(reads) <= 2 and len(study.trials) == 64


def test_someone_elses_study_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    other = optuna.create_study(storage=url, study_name="sqz-sweep", direction="minimize")
    other.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(ValueError, match="that sqz-sweep did not make"):
        sweep(config(), tmp_path)


def test_a_workdir_that_no_url_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must not contain"):
        sweep(config(), tmp_path / "a?b")
    assert not (tmp_path / "a?b").exists()


@pytest.mark.large
@pytest.mark.usefixtures("determinism_ends_here")
def test_a_point_has_the_weights_of_sqz_train_bit_for_bit(tmp_path, tfds_dir, digits, run_command):
    net = {"num_fire_modules": 2, "pool_after": [1], "base_e": 8, "incr_e": 8}
    space = tmp_path / "one.json"
    space.write_text(json.dumps({"base": net, "parameters": {"squeeze_ratio": [0.3]}}))
    common = ["--max_steps=3", "--warmup_steps=0", "--global_batch_size=8", "--deterministic", "--seed=5"]
    common += [f"--data_dir={tfds_dir}"]
    run_command(command, f"--space={space}", "--sampler=grid", f"--workdir={tmp_path / 'sweep'}", *common)
    (record,) = finished_trials(tmp_path / "sweep")
    name, *words, last = shlex.split(record["command"])
    assert (name, last) == ("sqz-train", "--workdir=DIR")
    run_command(train, *words, f"--workdir={tmp_path / 'alone'}")
    (swept,) = (tmp_path / "sweep" / "trials").iterdir()
    (spec, arrays), (other, alone) = resolve_model(swept), resolve_model(tmp_path / "alone")
    assert spec == other
    for name, array in arrays.items():
        np.testing.assert_array_equal(alone[name], array, err_msg=name)


def test_dry_run_and_mistakes_touch_nothing(tmp_path, run_command, capsys):
    assert run_command(command, "--space=squeeze_ratio", "--dry_run") == 0
    assert "6,279,016" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--workdir=DIR is needed"):
        run_command(command, "--space=bypass")
    for flag in ("--sampler=best", "--objectives=speed", "--storage=study.db", "--trials=0"):
        with pytest.raises(ValueError, match=flag.partition("=")[0]):
            run_command(command, "--space=bypass", "--dry_run", flag)
    with pytest.raises(ValueError, match="all points of the space: leave out --trials"):
        run_command(command, "--space=bypass", "--dry_run", "--sampler=grid", "--trials=2")
    for flag in ("--dataset=nonsense", f"--image_dir={tmp_path}/missing", "--test_split=nosuch"):
        with pytest.raises(ValueError):
            run_command(command, "--space=bypass", "--sampler=grid", f"--workdir={tmp_path}/sweep", flag)
    assert not (tmp_path / "sweep").exists()
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(ValueError, match="where it would become a class"):
        run_command(command, "--space=bypass", f"--image_dir={photos}", f"--workdir={photos / 'sweep'}")
    assert list(photos.iterdir()) == []
