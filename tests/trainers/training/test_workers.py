"""Processes as a cluster manager or an impatient user handles them: several at once, and killed at any moment."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from trainers.training import checkpoints

ROOT = pathlib.Path(__file__).parents[3]
# A small and quick run of the real command's function; the net is alive, and dropout is off if runs are compared.
SCRIPT = """
import json, os, sys
import keras, numpy as np
from sqz_keras import Metaparameters, ModelSpec, Preprocessing
from trainers.training import loop
from trainers.training.config import TrainConfig

folder, tfds_dir, steps, strategy, dropout = sys.argv[1:]
net = Metaparameters(8, 4, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,))
config = TrainConfig(
    model=ModelSpec(None, None, net, classes=10, input_size=16, preprocessing=Preprocessing(resize_to=18)),
    dataset="digits", max_steps=int(steps), base_learning_rate=1e-3, global_batch_size=32, conv10_stddev=0.05,
    augmentation="crop", dropout_rate=float(dropout), shuffle_buffer_size=2000, eval_every_steps=1000,
    checkpoint_every_steps=2, strategy=strategy, deterministic=strategy == "one",
)

class Keep(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
        np.savez(f"{folder}.{index}.npz", *self.model.get_weights())

try:
    loop.train_and_evaluate(config, folder, tfds_dir, callbacks=[Keep()])
except OSError as error:
    sys.exit(f"ENDED: {error}")
"""


def start(folder, tfds_dir, steps, *, strategy="one", dropout=0.5, cluster=None, index=0):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    if cluster:
        task = {"type": "worker", "index": index}
        env["TF_CONFIG"] = json.dumps({"cluster": {"worker": cluster}, "task": task})
    command = [sys.executable, "-c", SCRIPT, *map(str, (folder, tfds_dir, steps, strategy, dropout))]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def finish(process, seconds=120):
    _, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors[-3000:]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return [f"127.0.0.1:{port}" for port in ports]


def weights(path):
    with np.load(path) as archive:
        return [archive[name] for name in archive.files]


def wait_for_checkpoint(folder, beyond, seconds=60):
    deadline = time.monotonic() + seconds
    while max(checkpoints.steps(folder / "checkpoints"), default=0) <= beyond:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


@pytest.mark.large
def test_two_workers_train_as_one(tmp_path, tfds_dir, digits):
    """20 updates with the same global batch: equal weights on both, and within 1e-5 of one worker's."""
    finish(start(tmp_path / "one", tfds_dir, 20, dropout=0))
    cluster = free_ports(2)
    options = {"strategy": "multiworker", "dropout": 0, "cluster": cluster}
    workers = [start(tmp_path / "two", tfds_dir, 20, index=index, **options) for index in range(2)]
    for worker in workers:
        finish(worker)
    one, first, second = (weights(f"{tmp_path}/{name}.npz") for name in ("one.0", "two.0", "two.1"))
    for a, b, c in zip(one, first, second, strict=True):
        np.testing.assert_array_equal(b, c)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    for name in ("model.keras", "evaluation.json", "report.html"):
        assert (tmp_path / "two" / name).exists()


@pytest.mark.large
def test_a_lost_worker_ends_the_other_and_both_go_on(tmp_path, tfds_dir, digits):
    options = {"strategy": "multiworker", "dropout": 0}
    cluster = free_ports(2)
    workers = [start(tmp_path / "run", tfds_dir, 4000, cluster=cluster, index=index, **options) for index in range(2)]
    wait_for_checkpoint(tmp_path / "run", 4)
    workers[1].kill()
    began = time.monotonic()
    _, errors = workers[0].communicate(timeout=120)
    assert workers[0].returncode != 0
    assert time.monotonic() - began < 60
    assert "ENDED: Another worker of this run has ended" in errors
    assert "Start all workers again" in errors
    workers[1].communicate()
    reached = max(checkpoints.steps(tmp_path / "run" / "checkpoints"))
    cluster = free_ports(2)
    workers = [start(tmp_path / "run", tfds_dir, 4000, cluster=cluster, index=index, **options) for index in range(2)]
    wait_for_checkpoint(tmp_path / "run", reached)
    for worker in workers:
        worker.kill()
        worker.communicate()


@pytest.mark.large
def test_three_kills_change_no_bit(tmp_path, tfds_dir, digits):
    """SIGKILL at random moments; the resumed run ends with the weights of an uninterrupted one."""
    moments = random.Random()
    finish(start(tmp_path / "whole", tfds_dir, 60))
    for _ in range(3):
        process = start(tmp_path / "killed", tfds_dir, 60)
        wait_for_checkpoint(tmp_path / "killed", max(checkpoints.steps(tmp_path / "killed" / "checkpoints"), default=0))
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "killed" / "model.keras").exists()
    finish(start(tmp_path / "killed", tfds_dir, 60))
    whole, killed = (checkpoints.load_newest(tmp_path / name / "checkpoints")[0] for name in ("whole", "killed"))
    for name, array in whole.items():
        np.testing.assert_array_equal(killed[name], array, err_msg=name)
