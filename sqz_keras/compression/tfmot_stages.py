"""Pruning, clustering and fine-tuning with tfmot, on the tf_keras twin: arrays in, arrays out.

This is the only file that names tfmot; the first call imports it. Common to all stages:

- `batches` is an endless tf.data.Dataset of (images float32 (B, S, S, C) as the network takes them, targets), with
  optional sample weights as a third part. Targets are class indices (B,), integers, or probabilities
  (B, classes), floats, such as a teacher's. The loss is the cross-entropy for class indices, and a divergence between
  softened answers for probabilities (`tf_keras_bridge.train`).
- `learning_rate` is Adam's learning rate at the first of `steps` updates; it falls linearly to 0.
- With a `workdir`, which must be this stage's alone, a stage that was killed resumes from its last checkpoint if it is
  called with the same arrays, options, batches and `source`, and a finished stage returns its result at once. `source`
  is what the batches are made of, in any words or as a hash; a stage with another source is refused. On resuming, the
  batches of finished updates are read and skipped. Without dropout the result equals that of an uninterrupted run, up
  to rounding.
- `report(step, steps, loss)` is called every ten steps.
- At its end a stage measures its result, and raises a StageError if it is not what was requested.

Dense-sparse-dense training takes two more calls after `prune`: `finetune`, which keeps the zeros, and then `finetune`
with `keep_zeros=False` and a smaller rate, in which the pruned weights start again from 0.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.bits import check_bits
from sqz_keras.compression.centroid_search import sorted_search
from sqz_keras.compression.densities import check_densities, count_kept, count_nonzeros, count_values, layer_names
from sqz_keras.compression.stage import Arrays, Report, Stage, StageError, Training, run_stage
from sqz_keras.extras import needs
from sqz_keras.weights.arrays import check_shapes

INITIALIZATIONS = {"linear": "LINEAR", "density": "DENSITY_BASED", "kmeans++": "KMEANS_PLUS_PLUS"}
BITS = range(2, 13)
_PRUNINGS = 64
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
    source: str = "",
) -> Arrays:
    """Prunes by magnitude while it trains, from each layer's present density to a given one.

    Sparsity follows tfmot's `PolynomialDecay`: final + (present - final) * (1 - progress)**3.

    Args:
        spec: The model.
        arrays: The model's weights by name.
        batches: Endless tf.data.Dataset of (images as the network takes them, class indices or probabilities).
        densities: Densities by layer, in (0, 1]. Layers that are left out or already sparser keep their zeros.
        steps: Number of updates.
        learning_rate: Learning rate of the first update.
        begin_step: First update at which weights are pruned, at least 1.
        end_step: Last update at which weights are pruned; by default at three quarters of the steps.
        frequency: Updates between two prunings; by default there are about 64 prunings.
        dropout_rate: Dropout rate of drop9.
        workdir: Folder of this stage alone, from which a killed stage resumes; None keeps nothing.
        checkpoint_every_steps: Updates between two checkpoints.
        report: Called with (step, steps, loss) every ten steps.
        source: What the batches are made of, for resuming.

    Returns:
        The weights, float32, in net order.

    Raises:
        ValueError: An option is out of range, or the densities cannot be reached with these steps;
            it is raised before any work.
        StageError: A layer does not have the requested density.
    """
    training = Training(steps, learning_rate, dropout_rate, workdir, checkpoint_every_steps, report, source)
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
        for layer, count in count_nonzeros(result).items():
            if abs(count - kept[layer]) > 1:
                raise StageError(
                    f"prune: {layer} should keep {kept[layer]} weights, but has {count}. Give more steps, or a smaller "
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
    source: str = "",
) -> Arrays:
    """Continues training, with the pruned weights kept at 0 or, in dense-sparse-dense's last phase, starting from 0.

    Args:
        spec: The model.
        arrays: The model's weights by name.
        batches: Endless tf.data.Dataset of (images as the network takes them, class indices or probabilities).
        steps: Number of updates.
        learning_rate: Learning rate of the first update.
        keep_zeros: Whether zeros in kernels stay zeros.
        dropout_rate: Dropout rate of drop9.
        workdir: Folder of this stage alone, from which a killed stage resumes; None keeps nothing.
        checkpoint_every_steps: Updates between two checkpoints.
        report: Called with (step, steps, loss) every ten steps.
        source: What the batches are made of, for resuming.

    Returns:
        The weights, float32, in net order.

    Raises:
        ValueError: An option is out of range; it is raised before any work.
        StageError: A zero did not stay zero.
    """
    training = Training(steps, learning_rate, dropout_rate, workdir, checkpoint_every_steps, report, source)
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
    source: str = "",
) -> Arrays:
    """Gives each layer's weights at most 2**bits - 1 values and 0, and trains these values; zeros stay zeros.

    A layer with few weights gets fewer values, one for every two weights that are not 0; a layer with fewer than four
    such weights stays as it is. The result may have more zeros than `arrays`, because a weight may be nearest to 0.

    Args:
        spec: The model.
        arrays: The model's weights by name.
        batches: Endless tf.data.Dataset of (images as the network takes them, class indices or probabilities).
        bits: Bits of a code, 2 to 12, for all layers or by layer; layers that are left out stay as they are.
        steps: Number of updates.
        learning_rate: Learning rate of the first update.
        initialization: Initial values: "linear" (evenly spaced, Deep Compression's best), "density" or "kmeans++".
        dropout_rate: Dropout rate of drop9.
        workdir: Folder of this stage alone, from which a killed stage resumes; None keeps nothing.
        checkpoint_every_steps: Updates between two checkpoints.
        report: Called with (step, steps, loss) every ten steps.
        source: What the batches are made of, for resuming.

    Returns:
        The weights, float32, in net order.

    Raises:
        ValueError: An option is out of range; it is raised before any work.
        StageError: A layer has too many values, or a zero did not stay zero.
    """
    training = Training(steps, learning_rate, dropout_rate, workdir, checkpoint_every_steps, report, source)
    by_layer = check_bits(bits, layer_names(spec.weight_shapes()), BITS)
    if initialization not in INITIALIZATIONS:
        raise ValueError(f"initialization must be one of {tuple(INITIALIZATIONS)}, got {initialization!r}.")
    check_shapes("arrays", arrays, spec.weight_shapes())
    nonzeros = count_nonzeros(arrays)
    clusters = {layer: _cluster_count(by_layer[layer], nonzeros[layer]) for layer in by_layer}
    options = {"bits": by_layer, "initialization": initialization}
    tfmot = import_tfmot()
    keras_api = tfmot.clustering.keras
    centroids = getattr(keras_api.CentroidInitialization, INITIALIZATIONS[initialization])

    def wrap(layer):
        if not clusters.get(layer.name):
            layer.trainable = False
            return layer
        return keras_api.cluster_weights(layer, clusters[layer.name], centroids, preserve_sparsity=True)

    def check(result: Arrays) -> None:
        _check_zeros("cluster", arrays, result)
        for layer, count in count_values(result).items():
            if layer in by_layer and count > 2 ** by_layer[layer] - 1:
                raise StageError(
                    f"cluster: {layer} should have at most {2 ** by_layer[layer] - 1} values besides 0, but has "
                    f"{count}. {_REPORT_IT}"
                )

    with sorted_search(tfmot):
        stage = Stage("cluster", options, wrap, keras_api.strip_clustering, check)
        return run_stage(stage, spec, arrays, batches, training)


@functools.cache
def import_tfmot():
    """Imports the package without side effects on the process.

    The import sets TF_USE_LEGACY_KERAS, which child processes would inherit. The variable also decides, at the first
    use of `tf.keras`, which Keras `tf.keras` is. So `tf.keras` is used before the import, and the variable is restored
    afterwards.
    """
    with needs("compress"):
        import tensorflow as tf

    dir(vars(tf)["keras"])  # the first use
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        with needs("compress"):
            import tensorflow_model_optimization as tfmot
    finally:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot


def _pruning_steps(steps: int, begin_step: int, end_step: int | None, frequency: int | None) -> dict[str, int]:
    """The begin_step, end_step and frequency with which the last pruning is at end_step.

    tfmot counts from 1, prunes when (step - begin_step) % frequency == 0, and is silent if that never happens.
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
    """A pruning wrapper whose mask is made once, from the kernel's zeros; the layer itself if it has no zeros."""
    tfmot = import_tfmot().sparsity.keras
    sparsity = _sparsity(layer)
    if sparsity == 0:
        return layer
    if sparsity == 1:  # tfmot always keeps one weight
        layer.trainable = False
        return layer
    return tfmot.prune_low_magnitude(layer, tfmot.ConstantSparsity(sparsity, begin_step=1, end_step=1, frequency=1))


def _cluster_count(bits: int, nonzeros: int) -> int:
    """The number_of_clusters for tfmot, including the cluster of zero; 0 if there are too few weights to cluster.

    tfmot needs at least 3, and some of its initialisations crash if there are more clusters than weights.
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
