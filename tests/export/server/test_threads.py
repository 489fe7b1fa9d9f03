"""TensorFlow's threads in the embedded server, in a process of its own: TensorFlow's first use creates the threads."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os
import tensorflow as tf
from export.server import threads

config = tf.compat.v1.ConfigProto(
    intra_op_parallelism_threads=threads.INSIDE_AN_OPERATION,
    inter_op_parallelism_threads=threads.between_operations(),
)
with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph, config=config) as session:
    session.run(tf.ones((2, 2)) @ tf.ones((2, 2)))
    threads.keep_apart()
names = {thread: open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")}
print(json.dumps([sorted(os.sched_getaffinity(int(thread))) for thread in names if names[thread] == "tf_Compute"]))
"""


@pytest.mark.large
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says which thread runs on which core")
def test_threads_are_kept_on_cores_of_their_own():
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert sorted(json.loads(output)) == [[core] for core in sorted(os.sched_getaffinity(0))]
