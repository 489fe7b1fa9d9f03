import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from sqz_keras.compression import centroid_search, stage, tfmot_stages
from sqz_keras.compression.densities import count_nonzeros, count_values, layer_names, measure_densities
from sqz_keras.compression.stage import StageError
from sqz_keras.compression.teacher import teach
from sqz_keras.compression.tfmot_stages import cluster, finetune, import_tfmot, prune
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import SPEC, tiny_arrays, tiny_images

ROOT = Path(__file__).parents[2]
LAYERS = layer_names(SPEC.weight_shapes())
RATE = 1e-2
HALF = {layer: 0.5 for layer in LAYERS if layer != "conv1"}


def no_negative_zeros(arrays):
    return not any((np.signbit(array) & (array == 0)).any() for array in arrays.values())


def zeros_kept(before, after):
    return all(not after[f"{layer}/kernel"][before[f"{layer}/kernel"] == 0].any() for layer in LAYERS)


def accuracy(arrays):
    images, labels = tiny_images(64, seed=1)
    return np.mean(build(SPEC, arrays).predict_on_batch(images).argmax(-1) == labels)


@pytest.fixture(scope="module")
def pruned(arrays, batches):
    return prune(SPEC, arrays, batches, densities=HALF, steps=60, learning_rate=RATE)


@pytest.fixture
def no_training(monkeypatch):
    """Training leaves the weights as they are."""
    monkeypatch.setattr(stage.bridge, "train", lambda *args, **options: None)


def test_pruning_meets_each_density_and_learns(arrays, pruned):
    assert list(pruned) == list(SPEC.weight_shapes())
    assert all(array.dtype == np.float32 for array in pruned.values())
    counts = {layer: arrays[f"{layer}/kernel"].size // 2 for layer in HALF} | {"conv1": arrays["conv1/kernel"].size}
    assert count_nonzeros(pruned) == counts
    assert accuracy(pruned) >= 0.9 > accuracy(arrays) + 0.2
    assert no_negative_zeros(pruned)


def test_pruning_starts_from_the_present_density_and_never_adds_weights(pruned, batches):
    densities = {"conv10": 0.25, "fire2_expand3x3": 0.9}
    sparser = prune(SPEC, pruned, batches, densities=densities, steps=8, learning_rate=1e-4)
    expected = count_nonzeros(pruned) | {"conv10": pruned["conv10/kernel"].size // 4}
    assert count_nonzeros(sparser) == expected
    assert zeros_kept(pruned, sparser)


@pytest.mark.large
def test_a_bypass_net_goes_through_pruning_and_clustering(batches):
    spec = dataclasses.replace(SPEC, bypass="complex", conv10_padding=1)
    before = tiny_arrays(spec)
    densities = dict.fromkeys(layer_names(before), 0.5)
    sparse = prune(spec, before, batches, densities=densities, steps=8, learning_rate=1e-3)
    assert max(measure_densities(sparse).values()) <= 0.51
    shared = cluster(spec, sparse, batches, bits=3, steps=3, learning_rate=1e-4)
    assert "fire2_bypass1x1/kernel" in shared and max(count_values(shared).values()) <= 7


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 1},
        {"steps": 10, "end_step": 11},
        {"steps": 10, "frequency": 100},
        {"steps": 10, "begin_step": 0},
        {"steps": 10, "begin_step": 10},
        {"steps": 60, "begin_step": 1, "end_step": 50, "frequency": 100},
        {"steps": 60, "begin_step": 1, "end_step": 50, "frequency": 0},
    ],
)
def test_a_schedule_that_cannot_reach_the_densities_is_refused(arrays, batches, no_training, options):
    with pytest.raises(ValueError, match="cannot be reached with steps=") as refused:
        prune(SPEC, arrays, batches, densities=HALF, learning_rate=RATE, **options)
    assert not isinstance(refused.value, StageError)


@pytest.mark.parametrize("options", [{}, {"frequency": 7}, {"begin_step": 3}, {"end_step": 9}])
def test_schedules_left_alone_reach_their_end_as_tfmot_counts(options):
    tfmot = import_tfmot()
    for steps in (10, 11, 63, 100, 999, 1000, 20_000):
        schedule = tfmot_stages._pruning_steps(
            steps, **{"begin_step": 1, "end_step": None, "frequency": None} | options
        )
        turn, sparsity = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.7, **schedule)(
            tf.constant(schedule["end_step"], tf.int64)
        )
        assert turn and float(sparsity) == pytest.approx(0.7)
        assert 1 <= schedule["begin_step"] < schedule["end_step"] <= steps


def test_a_missed_density_is_an_error_that_says_how_much(arrays, batches, no_training):
    with pytest.raises(StageError, match=r"fire2_squeeze1x1 should keep 32 weights, but has 64\. Give more steps"):
        prune(SPEC, arrays, batches, densities=HALF, steps=8, learning_rate=RATE)


@pytest.mark.parametrize("initialization", tfmot_stages.INITIALIZATIONS)
def test_clustering_keeps_zeros_and_bounds_the_values(pruned, batches, initialization):
    bits = dict.fromkeys(LAYERS, 3) | {"conv1": 8, "conv10": 2}
    del bits["fire2_squeeze1x1"]
    shared = cluster(SPEC, pruned, batches, bits=bits, steps=3, learning_rate=1e-3, initialization=initialization)
    assert zeros_kept(pruned, shared) and no_negative_zeros(shared)
    values = count_values(shared)
    assert all(values[layer] <= 2**number - 1 for layer, number in bits.items())
    assert values["conv1"] > 31 and values["fire2_expand3x3"] >= 4
    for name in ("fire2_squeeze1x1/kernel", "fire2_squeeze1x1/bias"):
        np.testing.assert_array_equal(shared[name], pruned[name])
    assert not np.array_equal(shared["conv10/bias"], pruned["conv10/bias"])


def test_clustering_trains_the_values_on_a_teachers_answers(pruned, batches):
    lessons = teach(batches, SPEC, pruned)
    reports = []
    shared = cluster(
        SPEC, pruned, lessons, bits=2, steps=40, learning_rate=RATE, report=lambda *values: reports.append(values)
    )
    assert [report[:2] for report in reports] == [(10, 40), (20, 40), (30, 40), (40, 40)]
    assert reports[-1][2] < reports[0][2]
    assert accuracy(shared) >= 0.9


def test_a_layer_of_almost_no_weights_stays_as_it_is(pruned, batches):
    few = {name: array.copy() for name, array in pruned.items()}
    few["fire2_squeeze1x1/kernel"].flat[3:] = 0
    few["fire2_expand1x1/kernel"][:] = 0
    few["conv10/kernel"] = np.abs(few["conv10/kernel"])  # one sign only
    shared = cluster(SPEC, few, batches, bits=4, steps=2, learning_rate=1e-3, initialization="kmeans++")
    for layer in ("fire2_squeeze1x1", "fire2_expand1x1"):
        np.testing.assert_array_equal(shared[f"{layer}/kernel"], few[f"{layer}/kernel"])
    assert zeros_kept(few, finetune(SPEC, few, batches, steps=2, learning_rate=1e-3))


def test_dense_sparse_dense(pruned, batches):
    sparse = finetune(SPEC, pruned, batches, steps=4, learning_rate=1e-3)
    assert count_nonzeros(sparse) == count_nonzeros(pruned) and zeros_kept(pruned, sparse)
    assert not np.array_equal(sparse["conv10/kernel"], pruned["conv10/kernel"])
    dense = finetune(SPEC, sparse, batches, steps=4, learning_rate=1e-4, keep_zeros=False)
    revived = dense["conv10/kernel"][sparse["conv10/kernel"] == 0]
    assert 0 < np.abs(revived).max() <= 4 * 1e-4 * 1.01  # from 0, by Adam's steps


def test_the_sorted_search_is_the_same_clustering(pruned, batches, monkeypatch):
    from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import ClusteringAlgorithm

    shipped = ClusteringAlgorithm.get_pulling_indices
    options = {"bits": 4, "steps": 3, "learning_rate": 1e-3}
    quick = cluster(SPEC, pruned, batches, **options)
    assert ClusteringAlgorithm.get_pulling_indices is shipped
    monkeypatch.setattr(centroid_search, "_PATCHED_VERSION", "0.8.2")
    with pytest.warns(UserWarning, match=r"slow with many clusters: .* is 0\.8\.1"):
        slow = cluster(SPEC, pruned, batches, **options)
    for name in quick:
        np.testing.assert_allclose(quick[name], slow[name], rtol=0, atol=1e-4)


def test_the_sorted_search_is_used_only_where_it_agrees(monkeypatch):
    from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import ClusteringAlgorithm

    with centroid_search.sorted_search(import_tfmot()) as used:
        assert used and ClusteringAlgorithm.get_pulling_indices is centroid_search.get_pulling_indices
    assert ClusteringAlgorithm.get_clustered_weight.__module__.startswith("tensorflow_model_optimization")
    indices, weights = ClusteringAlgorithm.get_pulling_indices, ClusteringAlgorithm.get_clustered_weight
    others = {
        "get_pulling_indices": lambda *given: indices(*given) // 2,
        "get_clustered_weight": lambda *given: weights(*given) * 2,
    }
    for method, other in others.items():
        with monkeypatch.context() as patch:
            patch.setattr(ClusteringAlgorithm, method, other)
            with pytest.warns(UserWarning, match="on a sample"), centroid_search.sorted_search(import_tfmot()) as used:
                assert not used


def interrupted_at(step):
    def report(done, steps, loss):
        if done >= step:
            raise KeyboardInterrupt

    return report


def test_an_interrupted_stage_goes_on_where_it_was(arrays, batches, tmp_path, monkeypatch):
    options = {"densities": HALF, "steps": 30, "end_step": 25, "learning_rate": 1e-3, "checkpoint_every_steps": 8}
    whole = prune(SPEC, arrays, batches, **options)
    with pytest.raises(KeyboardInterrupt):
        prune(SPEC, arrays, batches, **options, workdir=tmp_path, report=interrupted_at(20))
    reports = []
    resumed = prune(SPEC, arrays, batches, **options, workdir=tmp_path, report=lambda step, *_: reports.append(step))
    assert reports == [20, 30]  # the first step after resuming is 17
    for name in whole:
        np.testing.assert_allclose(resumed[name], whole[name], rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "result.npz"]

    monkeypatch.setattr(stage.bridge, "train", None)  # the stage is finished: no more training
    again = prune(SPEC, arrays, batches, **options, workdir=tmp_path)
    assert list(again) == list(whole) and all(np.array_equal(again[name], resumed[name]) for name in whole)
    with pytest.raises(ValueError, match=r"stage of another request: learning_rate was 0\.001, now 0\.002"):
        prune(SPEC, arrays, batches, **options | {"learning_rate": 2e-3}, workdir=tmp_path)
    with pytest.raises(ValueError, match="stage of another request: arrays was"):
        prune(SPEC, arrays | {"conv1/bias": arrays["conv1/bias"] + 1}, batches, **options, workdir=tmp_path)
    with pytest.raises(ValueError, match="stage of another request: source was '', now 'other images'"):
        prune(SPEC, arrays, batches, **options, workdir=tmp_path, source="other images")


CHILD = """
import sys
from tests.compression.tiny_net import SPEC, tiny_arrays, tiny_batches
from sqz_keras.compression.tfmot_stages import cluster

def report(step, steps, loss):
    print(step, flush=True)

cluster(SPEC, tiny_arrays(SPEC), tiny_batches(), bits=4, steps=150, learning_rate=1e-3, workdir=sys.argv[1],
        checkpoint_every_steps=7, report=report)
"""


@pytest.mark.large
def test_a_stage_that_was_killed_goes_on_where_it_was(arrays, batches, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert [int(child.stdout.readline()) for _ in range(3)] == [10, 20, 30]
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "checkpoints").is_dir() and not (tmp_path / "result.npz").exists()
    options = {"bits": 4, "steps": 150, "learning_rate": 1e-3}
    reports = []
    resumed = cluster(SPEC, arrays, batches, **options, workdir=tmp_path, report=lambda step, *_: reports.append(step))
    assert 30 <= reports[0] < 150 and reports[-1] == 150
    whole = cluster(SPEC, arrays, batches, **options)
    for name in whole:
        np.testing.assert_allclose(resumed[name], whole[name], rtol=0, atol=1e-5)


PROCESS = """
import os, sys
import sqz_keras
from sqz_keras.compression import densities, teacher, tfmot_stages
print([name for name in ("tf_keras", "tensorflow_model_optimization") if name in sys.modules])
tfmot_stages.import_tfmot()
import tensorflow
print(os.environ.get("TF_USE_LEGACY_KERAS"), tensorflow.keras.__version__[:2], "tf_keras" in sys.modules)
"""


@pytest.mark.large
def test_the_process_stays_as_it_was():
    """Importing tfmot would turn TensorFlow's Keras into tf_keras, here and in child processes."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.check_output([sys.executable, "-c", PROCESS], env=environment, text=True)
    assert output.splitlines() == ["[]", "None 3. True"]


def test_mistakes_are_refused_before_any_work(arrays, batches, no_training):
    images, labels = tiny_images()

    def assert_refused(match, batches=batches, arrays=arrays, run=cluster, **options):
        with pytest.raises(ValueError, match=match) as error:
            run(SPEC, arrays, batches, **{"steps": 2, "learning_rate": 1e-3, "bits": 4} | options)
        assert not isinstance(error.value, StageError)

    assert_refused("steps must be an integer of at least 1", steps=0)
    assert_refused("learning_rate must be above 0", learning_rate=0)
    assert_refused("dropout_rate", dropout_rate=1)
    assert_refused("checkpoint_every_steps", checkpoint_every_steps=0)
    assert_refused("bits must be 2 to 12, got 1 for", bits=1)
    assert_refused("no layer 'conv2'", bits={"conv2": 4})
    assert_refused("initialization must be one of", initialization="random")
    assert_refused("conv1/bias", arrays={name: array for name, array in arrays.items() if name != "conv1/bias"})
    data = tf.data.Dataset.from_tensor_slices
    assert_refused("float32 images", batches=data((images.astype(np.float64), labels)).batch(8))
    assert_refused("float32 images", batches=data((images[:, :32], labels)).batch(8))
    assert_refused("class indices", batches=data((images, np.eye(5, dtype=np.float32)[labels])).batch(8))
    assert_refused("float32 images", batches=data(images).batch(8))


def test_batches_that_end_and_losses_that_explode_are_errors(arrays, batches):
    with pytest.raises(ValueError, match="ended after 4 of 5 steps"):
        finetune(SPEC, arrays, batches.take(4), steps=5, learning_rate=1e-3)
    broken = batches.map(lambda images, labels: (images, tf.one_hot(labels, 4) * np.nan))
    with pytest.raises(ValueError, match="The loss is nan at step 10: give a smaller learning_rate"):
        finetune(SPEC, arrays, broken, steps=12, learning_rate=1e-3)


def test_sample_weights_and_dropout_are_taken(arrays, batches):
    weighted = batches.map(lambda images, labels: (images, labels, tf.zeros(tf.shape(labels))))
    after = finetune(SPEC, arrays, weighted, steps=2, learning_rate=1e-3, dropout_rate=0.3)
    for name in arrays:
        np.testing.assert_array_equal(after[name], arrays[name])
