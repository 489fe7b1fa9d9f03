"""One flag for where training runs: one device, all devices of this machine, or many machines."""

from __future__ import annotations

import json
import os
import re

import tensorflow as tf


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The tf.distribute strategy of this name; it must be made before TensorFlow is used for anything else.

    Args:
        name: "one" (the first GPU, or the CPU), "mirrored" (all GPUs of this machine), "multiworker" (the workers that
            the environment variable TF_CONFIG names, as cluster managers set it) or "tpu" (untested).

    Raises:
        ValueError: "multiworker" without a TF_CONFIG that names workers.
        OSError: This worker's port is taken.
    """
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        _check_tf_config()
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.UnknownError as error:
            raise OSError(
                f"This worker cannot start at its address in TF_CONFIG ({error.message:.200}). Stop what uses that "
                "port, perhaps an earlier run, or give another one to all workers."
            ) from error
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files; a process that trains alone always does."""
    return worker_index(strategy)[0] == 0


def worker_index(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(this process's number, number of processes), counting only processes that feed their own replicas."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return 0, 1
    spec = resolver.cluster_spec().as_dict()
    chiefs = len(spec.get("chief", []))
    index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return index, chiefs + len(spec.get("worker", []))


def spread(batch: tuple[tf.Tensor, ...], strategy: tf.distribute.Strategy) -> tuple:
    """This worker's batch in equal parts on its replicas, for `strategy.run`; with one replica, the batch itself."""
    if strategy.num_replicas_in_sync == 1:
        return batch
    parts = strategy.num_replicas_in_sync // worker_index(strategy)[1]

    def part(context):
        return tuple(tf.split(tensor, parts)[context.replica_id_in_sync_group % parts] for tensor in batch)

    return strategy.experimental_distribute_values_from_function(part)


def _check_tf_config() -> None:
    """Refuses a cluster that TensorFlow does, in its own words, or whose workers would wait for each other in vain."""
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        cluster, task = config["cluster"], config["task"]
        addresses = [address for job in cluster.values() for address in job]
        is_member = 0 <= task["index"] < len(cluster.get(task["type"], ()))
        are_addresses = all(re.fullmatch(r"[^/\s]+:\d+", address) for address in addresses)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            "strategy='multiworker' needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}; '
            f"here it is {os.environ.get('TF_CONFIG')!r:.200}."
        ) from error
    if not are_addresses or len(set(addresses)) < len(addresses) or not cluster.keys() <= {"chief", "worker"}:
        raise ValueError(
            "TF_CONFIG's cluster must have lists of different addresses, HOST:PORT, under worker, and one under chief "
            f"if there is one; got {cluster!r:.200}."
        )
    if not is_member:
        raise ValueError(f"TF_CONFIG's task {task} is none of its cluster {cluster}.")
