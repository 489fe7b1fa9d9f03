"""One training step while clustering to 256 values per layer, compared with a plain step of the same net, interleaved.

    python benchmarks/cluster_step.py [--rounds=20] [--batch=8] [--input_size=227] [--version=1.0] [--clusters=256]

Each step is tf_keras's own, on random weights at Table 1's densities. Prints `ratio=` of the medians (required: at most
1.3), and the ratios for tfmot's clustering as it is shipped, without the sorted search. On a shared machine, CPU times
and the quickest steps are steadier than medians of wall time.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from absl import flags

from sqz_keras import ModelSpec, command
from sqz_keras.architecture.metaparameters import VERSIONS
from sqz_keras.compression import tf_keras_bridge as bridge
from sqz_keras.compression.centroid_search import sorted_search
from sqz_keras.compression.densities import TABLE1, prune_magnitudes
from sqz_keras.compression.tfmot_stages import import_tfmot
from sqz_keras.models.squeezenet import build, named_arrays

REQUIRED = 1.3
WARM_UP = 2


def define_flags() -> None:
    flags.DEFINE_integer("rounds", 20, "Each step runs that often.", lower_bound=1)
    flags.DEFINE_integer("batch", 8, "Images per step.", lower_bound=1)
    flags.DEFINE_integer("input_size", 227, "Pixels of a side.", lower_bound=1)
    flags.DEFINE_enum("version", "1.0", list(VERSIONS), "Version of the network.")
    flags.DEFINE_integer("clusters", 256, "Clusters per layer.", lower_bound=2)


def main(argv) -> None:
    del argv
    args = flags.FLAGS

    tfmot = import_tfmot()
    clustering = tfmot.clustering.keras
    spec = ModelSpec(args.version, input_size=args.input_size)
    net = build(spec, prune_magnitudes(named_arrays(build(spec)), TABLE1), dropout_rate=0)
    random = np.random.default_rng(0)
    images = random.uniform(-120, 140, (args.batch, args.input_size, args.input_size, 3)).astype(np.float32)
    labels = random.integers(0, spec.classes, args.batch)

    def clustered(layer):
        linear = clustering.CentroidInitialization.LINEAR
        return clustering.cluster_weights(layer, args.clusters, linear, preserve_sparsity=True)

    def make_step(wrap, search):
        with search:
            model = bridge.to_tf_keras(net, wrap)
            model.compile("adam", "sparse_categorical_crossentropy")
            for _ in range(WARM_UP):  # the step keeps the search that is in use when it is traced
                model.train_on_batch(images, labels)
        return model.train_on_batch

    steps = {
        "plain": make_step(None, contextlib.nullcontext()),
        "clustering": make_step(clustered, sorted_search(tfmot)),
        "clustering as shipped": make_step(clustered, contextlib.nullcontext()),
    }
    taken = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(images, labels)
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = ({name: statistics.median(column) for name, column in columns(taken, i)} for i in (0, 1))
    quickest = {name: min(column) for name, column in columns(taken, 0)}
    print(f"v{args.version}, {args.clusters} clusters, medians of {args.rounds}, load {os.getloadavg()}:")
    for name in steps:
        ratios = " and ".join(f"{times[name] / times['plain']:.2f}" for times in (walls, cpus, quickest))
        print(
            f"  {name}: {walls[name]:.3f} s, {cpus[name]:.3f} s of the processors, quickest {quickest[name]:.3f} s: "
            f"{ratios} of plain"
        )
    print(f"ratio={walls['clustering'] / walls['plain']:.3f} (required: at most {REQUIRED})")


def columns(taken: dict[str, list[tuple[float, float]]], index: int):
    return [(name, [pair[index] for pair in pairs]) for name, pairs in taken.items()]


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
