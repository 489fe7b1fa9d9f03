"""Pruning, clustering and fine-tuning by tfmot, on the tf_keras twin: arrays in, arrays out.

The one file that names tfmot, which is imported by the first call. Common to all stages:

- `batches` is an endless tf.data.Dataset of (images float32 (B, S, S, C) as the network takes them, targets), with
  sample weights as a third part where there are any. Targets are class indices (B,), integers, or probabilities
  (B, classes), floats, such as a teacher gives. The loss is the cross-entropy with labels, and a divergence between
  softened answers with probabilities (`tf_keras_bridge.train`).
- `learning_rate` is Adam's at the first of `steps` updates and falls linearly to 0.
- With a `workdir`, a folder of the stage's own, a stage that was killed goes on from its last checkpoint, given the
  same arrays, options and batches, and one that is finished gives its result at once. The batches that are done are
  read again and passed over. Without dropout the result is, to rounding, that of a run which was not interrupted.
- `report(step, steps, loss)` is called every ten steps.
- What a stage has to reach is measured at its end, and a miss is a StageError.

Dense-sparse-dense training is two calls more after `prune`: `finetune`, which keeps the zeros, and then `finetune` with
`keep_zeros=False`, in which the pruned weights start again from 0, at a smaller rate.
"""

from __future__ import annotations

import contextlib
import functools
import os
import unittest.mock
import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from sqz_keras.architecture.plain_numbers import as_integer
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression import centroid_search
from sqz_keras.compression.densities import check_densities, count_kept, count_nonzeros, count_values, layer_names
from sqz_keras.compression.stage import Arrays, Report, Stage, StageError, Training, run_stage
from sqz_keras.weights.arrays import check_shapes

INITIALIZATIONS = {"linear": "LINEAR", "density": "DENSITY_BASED", "kmeans++": "KMEANS_PLUS_PLUS"}
BITS = range(2, 13)
_PRUNINGS = 64
_PATCHED_VERSION = "0.8.1"
_REPORT_IT = "This is a defect of the stage; please report it."


def prune(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    batches,
    *,
    densities: Mapping[str, float],
    steps: int,
    learning_rate: float,
    begin_step: int = 1,
    end_step: int | None = None,
    frequency: int | None = None,
    dropout_rate: float = 0.0,
    workdir: str | os.PathLike | None = None,
    checkpoint_every_steps: int = 100,
    report: Report | None = None,
) -> Arrays:
    """Prunes by magnitude while it trains, from each layer's present density to a given one.

    Sparsity follows tfmot's `PolynomialDecay`: final + (present - final) * (1 - progress)**3.

    Args:
        spec: of the model.
        arrays: its weights by name.
        batches: see above.
        densities: by layer, in (0, 1]. Layers that are left out, or are sparser already, keep their zeros.
        steps: updates.
        learning_rate: of the first one.
        begin_step: the first update at which weights are pruned, at least 1.
        end_step: the last one; left alone it is at three quarters of the steps.
        frequency: updates between two prunings; left alone there are about 64 prunings.
        dropout_rate: of drop9.
        workdir: see above.
        checkpoint_every_steps: updates between two checkpoints.
        report: see above.

    Returns:
        The weights, float32, in net order.

    Raises:
        ValueError: an option is out of range, or the densities cannot be reached with these steps; before any work.
        StageError: a density was not met.
    """
    training = Training(steps, learning_rate, dropout_rate, workdir, checkpoint_every_steps, report)
    check_densities(densities, layer_names(spec.weight_shapes()))
    schedule = _pruning_steps(steps, begin_step, end_step, frequency)
    check_shapes("arrays", arrays, spec.weight_shapes())
    kept = count_nonzeros(arrays)
    for layer, density in densities.items():
        kept[layer] = min(kept[layer], count_kept(arrays[f"{layer}/kernel"].size, density))
    options = {"densities": {layer: float(density) for layer, density in densities.items()}, **schedule}
    tfmot = import_tfmot()

    def wrap(layer):
        final = 1 - kept[layer.name] / int(np.prod(layer.kernel.shape))
        present = _sparsity(layer)
        if final == present:
            return _hold_zeros(layer)
        decay = tfmot.sparsity.keras.PolynomialDecay(present, final, **schedule)
        return tfmot.sparsity.keras.prune_low_magnitude(layer, decay)

    def check(result: Arrays) -> None:
        for layer, got in count_nonzeros(result).items():
            if abs(got - kept[layer]) > 1:
                raise StageError(
                    f"prune: {layer} was to keep {kept[layer]} weights and has {got}. Give more steps, or a smaller "
                    "learning_rate."
                )

    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    stage = Stage("prune", options, wrap, tfmot.sparsity.keras.strip_pruning, check, callbacks)
    return run_stage(stage, spec, arrays, batches, training)


def finetune(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    batches,
    *,
    steps: int,
    learning_rate: float,
    keep_zeros: bool = True,
    dropout_rate: float = 0.0,
    workdir: str | os.PathLike | None = None,
    checkpoint_every_steps: int = 100,
    report: Report | None = None,
) -> Arrays:
    """Trains on: with the pruned weights kept at 0, or, as the last phase of dense-sparse-dense, from 0.

    Args:
        spec: of the model.
        arrays: its weights by name.
        batches: see above.
        steps: updates.
        learning_rate: of the first one.
        keep_zeros: whether kernels' zeros stay zeros.
        dropout_rate: of drop9.
        workdir: see above.
        checkpoint_every_steps: updates between two checkpoints.
        report: see above.

    Returns:
        The weights, float32, in net order.

    Raises:
        ValueError: an option is out of range; before any work.
        StageError: a zero did not stay one.
    """
    training = Training(steps, learning_rate, dropout_rate, workdir, checkpoint_every_steps, report)
    if not keep_zeros:
        stage = Stage("finetune", {"keep_zeros": False})
    else:
        tfmot = import_tfmot().sparsity.keras
        check = functools.partial(_check_zeros, "finetune", arrays)
        callbacks = [tfmot.UpdatePruningStep()]
        stage = Stage("finetune", {"keep_zeros": True}, _hold_zeros, tfmot.strip_pruning, check, callbacks)
    return run_stage(stage, spec, arrays, batches, training)


def cluster(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    batches,
    *,
    bits: int | Mapping[str, int],
    steps: int,
    learning_rate: float,
    initialization: str = "linear",
    dropout_rate: float = 0.0,
    workdir: str | os.PathLike | None = None,
    checkpoint_every_steps: int = 100,
    report: Report | None = None,
) -> Arrays:
    """Gives each layer's weights at most 2**bits - 1 values and 0, and trains these values; zeros stay zeros.

    A layer with few weights gets fewer values, one for every two weights that are not 0; one with fewer than four such
    weights stays as it is. The result may have more zeros than `arrays`: a weight may be nearest to 0.

    Args:
        spec: of the model.
        arrays: its weights by name.
        batches: see above.
        bits: of a code, 2 to 12: for all layers, or by layer; layers that are left out stay as they are.
        steps: updates.
        learning_rate: of the first one.
        initialization: of the values: "linear" (evenly spaced, Deep Compression's best), "density" or "kmeans++".
        dropout_rate: of drop9.
        workdir: see above.
        checkpoint_every_steps: updates between two checkpoints.
        report: see above.

    Returns:
        The weights, float32, in net order.

    Raises:
        ValueError: an option is out of range; before any work.
        StageError: a layer has too many values, or a zero did not stay one.
    """
    training = Training(steps, learning_rate, dropout_rate, workdir, checkpoint_every_steps, report)
    by_layer = _check_bits(bits, layer_names(spec.weight_shapes()))
    if initialization not in INITIALIZATIONS:
        raise ValueError(f"initialization must be one of {tuple(INITIALIZATIONS)}, got {initialization!r}.")
    check_shapes("arrays", arrays, spec.weight_shapes())
    nonzeros = count_nonzeros(arrays)
    clusters = {layer: _cluster_count(by_layer[layer], nonzeros[layer]) for layer in by_layer}
    options = {"bits": by_layer, "initialization": initialization}
    keras_api = import_tfmot().clustering.keras
    centroids = getattr(keras_api.CentroidInitialization, INITIALIZATIONS[initialization])

    def wrap(layer):
        if not clusters.get(layer.name):
            layer.trainable = False
            return layer
        return keras_api.cluster_weights(layer, clusters[layer.name], centroids, preserve_sparsity=True)

    def check(result: Arrays) -> None:
        _check_zeros("cluster", arrays, result)
        for layer, got in count_values(result).items():
            if layer in by_layer and got > 2 ** by_layer[layer] - 1:
                raise StageError(
                    f"cluster: {layer} was to have at most {2 ** by_layer[layer] - 1} values beside 0 and has {got}. "
                    f"{_REPORT_IT}"
                )

    with sorted_search():
        stage = Stage("cluster", options, wrap, keras_api.strip_clustering, check)
        return run_stage(stage, spec, arrays, batches, training)


@contextlib.contextmanager
def sorted_search() -> Iterator[bool]:
    """While it is open, tfmot clusters by the methods of `centroid_search`; what is traced in it keeps them.

    As tfmot 0.8.1 ships it, a step with 256 centroids takes several times as long as any other, and twice its memory.
    The whole process is affected. Where tfmot is of another version, or its own methods give other answers on a sample,
    nothing is changed and a warning says so.

    Yields:
        Whether the methods are in use.
    """
    tfmot = import_tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import ClusteringAlgorithm

    if tfmot.__version__ != _PATCHED_VERSION:
        reason = f"tensorflow-model-optimization is {tfmot.__version__}, and what is known is {_PATCHED_VERSION}"
    elif not centroid_search.same_answers(ClusteringAlgorithm):
        reason = "its answers on a sample are not those of tensorflow-model-optimization"
    else:
        with unittest.mock.patch.multiple(
            ClusteringAlgorithm,
            get_pulling_indices=centroid_search.get_pulling_indices,
            get_clustered_weight=centroid_search.get_clustered_weight,
        ):
            yield True
        return
    warnings.warn(f"Clustering does without sorted search, and is slow with many clusters: {reason}.", stacklevel=3)
    yield False


@functools.cache
def import_tfmot():
    """The package, imported so that the process stays as it was.

    Its import sets TF_USE_LEGACY_KERAS, which child processes would inherit, and which decides what TensorFlow's own
    name for Keras means from its first use on. So that is decided before, and the variable restored behind.
    """
    import tensorflow as tf

    dir(vars(tf)["keras"])  # the first use
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
    finally:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot


def _pruning_steps(steps: int, begin_step: int, end_step: int | None, frequency: int | None) -> dict[str, int]:
    """The begin_step, end_step and frequency, such that the last pruning is at end_step.

    tfmot counts from 1, prunes where (step - begin_step) % frequency == 0, and says nothing where that never happens.
    """
    last = max(3 * steps // 4, begin_step + (frequency or 1)) if end_step is None else end_step
    if frequency is None:
        most = max((last - begin_step) // _PRUNINGS, 1)
        divisors = (step for step in range(most, 0, -1) if (last - begin_step) % step == 0)
        frequency = most if end_step is None else next(divisors)
    if end_step is None and frequency >= 1:
        last -= (last - begin_step) % frequency
    if not (1 <= begin_step < last <= steps and frequency >= 1 and (last - begin_step) % frequency == 0):
        raise ValueError(
            f"The densities cannot be reached with steps={steps}, begin_step={begin_step}, end_step={last} and "
            f"frequency={frequency}: weights are pruned at begin_step and every `frequency` steps from there, so that "
            "1 <= begin_step < end_step <= steps is needed, and end_step - begin_step a multiple of frequency."
        )
    return {"begin_step": begin_step, "end_step": last, "frequency": frequency}


def _hold_zeros(layer):
    """A pruning wrapper whose mask is made once, of the kernel's zeros; the layer itself where it has none."""
    tfmot = import_tfmot().sparsity.keras
    sparsity = _sparsity(layer)
    if sparsity == 0:
        return layer
    if sparsity == 1:  # tfmot always keeps one weight
        layer.trainable = False
        return layer
    return tfmot.prune_low_magnitude(layer, tfmot.ConstantSparsity(sparsity, begin_step=1, end_step=1, frequency=1))


def _check_bits(bits: int | Mapping[str, int], layers: list[str]) -> dict[str, int]:
    requested = bits if isinstance(bits, Mapping) else dict.fromkeys(layers, bits)
    by_layer = {layer: as_integer(number) for layer, number in requested.items()}
    for layer, number in by_layer.items():
        if layer not in layers:
            raise ValueError(f"bits: the model has no layer {layer!r}; its layers are {', '.join(layers)}.")
        if number not in BITS:
            raise ValueError(f"bits must be {BITS[0]} to {BITS[-1]}, got {requested[layer]} for {layer}.")
    return by_layer


def _cluster_count(bits: int, nonzeros: int) -> int:
    """The number_of_clusters that tfmot gets, zero's included; 0 where there are too few weights to cluster.

    tfmot needs at least 3, and crashes where one of its initialisations gets more clusters than weights.
    """
    return 0 if nonzeros < 4 else min(2**bits, nonzeros // 2 + 1)


def _check_zeros(stage: str, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> None:
    for layer in layer_names(after):
        revived = np.count_nonzero(after[f"{layer}/kernel"][before[f"{layer}/kernel"] == 0])
        if revived:
            raise StageError(f"{stage}: {revived} zeros of {layer} did not stay zeros. {_REPORT_IT}")


def _sparsity(layer) -> float:
    kernel = layer.get_weights()[0]
    return 1 - int(np.count_nonzero(kernel)) / kernel.size
