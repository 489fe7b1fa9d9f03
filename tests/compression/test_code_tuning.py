import numpy as np
import pytest
import tensorflow as tf

from sqz_keras import codec
from sqz_keras.compression.code_tuning import tune
from sqz_keras.compression.quantize import Quantizer
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import SPEC, tiny_images

TARGET, UPDATES = 620, 150


@pytest.fixture(scope="module")
def quantized(pruned):
    return Quantizer(SPEC, pruned, tiny_images(64)[0], trellis=False).to_size(TARGET)


@pytest.fixture(scope="module")
def tuned(pruned, quantized):
    return tune(SPEC, pruned, quantized, batches_after, target_bytes=TARGET, updates=UPDATES, learning_rate=0.003)


def batches_after(updates):
    """Endless batches of 16 images and weights, after the first `updates`; images of weight 0 are misleading noise."""
    images = tiny_images(256, seed=3)[0]
    images[::8] *= 1e3
    weights = np.ones(len(images), np.float32)
    weights[::8] = 0
    return tf.data.Dataset.from_tensor_slices((images, weights)).repeat().batch(16).skip(updates)


def size(arrays):
    return len(codec.encode(arrays, {}))


def divergence(arrays, others):
    images = tiny_images(256, seed=9)[0]
    before, after = (np.log(build(SPEC, weights).predict(images, verbose=0)) for weights in (arrays, others))
    return np.mean(np.sum(np.exp(before) * (before - after), axis=1))


@pytest.mark.large
def test_unseen_images_are_answered_more_like_the_uncompressed_net_in_as_many_bytes(pruned, quantized, tuned):
    assert size(tuned) <= TARGET
    assert divergence(pruned, tuned) < 0.9 * divergence(
        pruned, quantized
    )  # 0.79 on one processor, less than 0.7 on others


@pytest.mark.large
def test_weights_stay_on_their_grids_and_pruned_ones_0(pruned, quantized, tuned):
    for name, array in tuned.items():
        if quantized[name].any():
            step = np.diff(np.unique(quantized[name])).min()
            np.testing.assert_allclose(array / step, np.rint(array / step), atol=1e-3)
        assert not (np.signbit(array) & (array == 0)).any()
    assert not tuned["fire2_expand3x3/kernel"][pruned["fire2_expand3x3/kernel"] == 0].any()


@pytest.mark.large
def test_a_killed_run_resumes_and_a_finished_one_is_not_repeated(pruned, quantized, tuned, tmp_path):
    options = {"target_bytes": TARGET, "updates": UPDATES, "learning_rate": 0.003, "workdir": tmp_path}

    def killed(update, updates, divergence):
        if update == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(SPEC, pruned, quantized, batches_after, **options, report=killed)
    reports = []
    result = tune(SPEC, pruned, quantized, batches_after, **options, report=lambda *report: reports.append(report[:2]))
    assert reports == [(update, UPDATES) for update in range(101, UPDATES + 1)]
    for name, array in tuned.items():
        np.testing.assert_array_equal(result[name], array)
    again = tune(SPEC, pruned, quantized, batches_after, **options, report=lambda *report: pytest.fail("repeated"))
    for name, array in result.items():
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(ValueError, match="holds a stage of another request: target_bytes"):
        tune(SPEC, pruned, quantized, batches_after, **(options | {"target_bytes": TARGET - 1}))


def test_the_file_has_the_requested_size_even_if_too_few_updates_could_make_it_smaller(pruned, quantized):
    target = round(0.9 * size(quantized))
    result = tune(SPEC, pruned, quantized, batches_after, target_bytes=target, updates=2, learning_rate=0.003)
    assert 0.9 * target < size(result) <= target


def test_refusals(pruned, quantized):
    options = {"target_bytes": TARGET, "updates": 3, "learning_rate": 0.003}
    with pytest.raises(ValueError, match="ended after 2 of 3 updates"):
        tune(SPEC, pruned, quantized, lambda updates: batches_after(updates).take(2), **options)
    with pytest.raises(ValueError, match="on a grid"):
        tune(SPEC, pruned, pruned, batches_after, **options)
    with pytest.raises(ValueError, match="quantized"):
        tune(SPEC, pruned, {}, batches_after, **options)
    with pytest.raises(ValueError, match=r"divergence is nan at update \d: give a smaller learning_rate"):
        tune(SPEC, pruned, quantized, batches_after, **(options | {"learning_rate": 1e38}))
