import json
import types

import pytest
import tensorflow as tf

from trainers.training import distribute


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """What a strategy knows of its cluster, without the cluster."""

    def __init__(self, cluster, kind, number):
        self._resolver = types.SimpleNamespace(
            task_type=kind, task_id=number, cluster_spec=lambda: tf.train.ClusterSpec(cluster)
        )

    @property
    def cluster_resolver(self):
        return self._resolver


@pytest.mark.parametrize("chiefs", [0, 1])
def test_exactly_one_worker_writes_and_each_has_its_number(chiefs):
    cluster = {"worker": ["a:1", "b:1"]} | ({"chief": ["c:1"]} if chiefs else {})
    tasks = [("chief", 0)] * chiefs + [("worker", 0), ("worker", 1)]
    strategies = [Workers(cluster, *task) for task in tasks]
    assert [distribute.worker_index(strategy) for strategy in strategies] == [
        (i, len(tasks)) for i in range(len(tasks))
    ]
    assert [distribute.is_chief(strategy) for strategy in strategies] == [True] + [False] * (len(tasks) - 1)


def test_alone_every_process_is_chief():
    for strategy in (distribute.make_strategy("one"), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        assert distribute.worker_index(strategy) == (0, 1)
        assert distribute.is_chief(strategy)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "not json",
        "[]",
        json.dumps({"cluster": {}}),
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}),
        json.dumps({"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "worker", "index": 1}}),
        json.dumps({"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"worker": ["grpc://a:1"]}, "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}),
    ],
)
def test_workers_without_a_cluster_are_refused(monkeypatch, value):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: pytest.fail("started"))
    with pytest.raises(ValueError, match="TF_CONFIG"):
        distribute.make_strategy("multiworker")


def test_a_port_that_is_taken_is_said(monkeypatch):
    def start():
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server")

    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}')
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", start)
    with pytest.raises(OSError, match=r"cannot start at its address in TF_CONFIG .*gRPC server"):
        distribute.make_strategy("multiworker")
