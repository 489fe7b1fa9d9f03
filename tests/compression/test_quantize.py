import bisect

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.compression.bits import round_evenly
from sqz_keras.compression.choose_codes import choose_codes
from sqz_keras.compression.densities import prune_magnitudes
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.compression.quantize import quantize
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import SPEC, tiny_images

TARGET = 750


@pytest.fixture(scope="module")
def quantized(pruned):
    lines = []
    return quantize(SPEC, pruned, tiny_images(64)[0], target_bytes=TARGET, report=lines.append), lines


def divergence(arrays, others, images):
    before, after = (np.log(build(SPEC, weights).predict(images, verbose=0)) for weights in (arrays, others))
    return np.mean(np.sum(np.exp(before) * (before - after), axis=1))


def test_the_file_has_the_requested_size(quantized):
    assert 0.9 * TARGET < len(codec.encode(quantized[0], {})) <= TARGET
    assert any("attempt 1" in line for line in quantized[1])


def test_pruned_weights_stay_and_all_lie_on_trellises(pruned, quantized):
    assert not quantized[0]["fire2_expand3x3/kernel"][pruned["fire2_expand3x3/kernel"] == 0].any()
    kinds = {array.name: array.kind for array in codec.describe(codec.encode(quantized[0], {})).arrays}
    kernels = {kind for name, kind in kinds.items() if name.endswith("/kernel")}
    assert kernels <= {"trellis", "trellis_dense"}  # if an array has few values, both may fit


def test_answers_are_nearer_than_with_plain_rounding_to_as_many_bytes(pruned, quantized):
    def plain(step):
        return {name: (step * np.rint(array / step)).astype(np.float32) for name, array in pruned.items()}

    steps = np.geomspace(0.01, 1, 200)
    finest = steps[bisect.bisect_left(steps, True, key=lambda step: len(codec.encode(plain(step), {})) <= TARGET)]
    unseen = tiny_images(256, seed=9)[0]
    assert divergence(pruned, quantized[0], unseen) < 0.5 * divergence(pruned, plain(finest), unseen)


@pytest.mark.large
def test_it_comes_out_the_same_again(pruned, quantized):
    again = quantize(SPEC, pruned, tiny_images(64)[0], target_bytes=TARGET)
    for name, array in quantized[0].items():
        np.testing.assert_array_equal(again[name], array)


def test_codes_chosen_anew_answer_more_alike(pruned):
    clustered = kmeans(pruned, 3)
    chosen = choose_codes(SPEC, pruned, clustered, tiny_images(64)[0])
    for name, array in chosen.items():
        if name.endswith("/kernel"):
            assert set(np.unique(array)) <= set(np.unique(clustered[name])) | {0}
            if (clustered[name] != 0).mean() < 0.9:
                assert not array[clustered[name] == 0].any()
    unseen = tiny_images(64, seed=1)[0]
    assert divergence(pruned, chosen, unseen) < 0.5 * divergence(pruned, clustered, unseen)


@pytest.mark.parametrize("sureness", [20, 80])
def test_a_model_that_is_very_sure_fills_the_file_too(pruned, sureness):
    """Its answers hardly depend on its weights: the finest grids take 1,156 bytes, and more would be of no use."""
    sure = pruned | {"conv10/kernel": sureness * pruned["conv10/kernel"]}
    result = quantize(SPEC, sure, tiny_images(64)[0], target_bytes=1500)
    assert len(codec.encode(result, {})) > 1100
    images = tiny_images(64, seed=1)[0]
    answers = [build(SPEC, arrays).predict(images, verbose=0).argmax(axis=1) for arrays in (sure, result)]
    np.testing.assert_array_equal(*answers)


def test_what_fits_as_it_is_stays_as_it_is(pruned):
    result = quantize(SPEC, pruned, tiny_images(8)[0], target_bytes=1 << 20)
    for name, array in pruned.items():
        np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize(
    ("images", "target", "expected"),
    [
        (np.zeros((2, 33, 33, 3), np.uint8), TARGET, r"float32 \(N, 33, 33, 3\), got uint8"),
        (np.zeros((2, 32, 33, 3), np.float32), TARGET, r"got float32 \(2, 32, 33, 3\)"),
        (np.zeros((0, 33, 33, 3), np.float32), TARGET, "got float32"),
        (tiny_images(2)[0], 100, "ask for more"),
    ],
)
def test_refusals(pruned, images, target, expected):
    with pytest.raises(ValueError, match=expected):
        quantize(SPEC, pruned, images, target_bytes=target)


def test_a_net_that_is_silent_is_refused(pruned):
    silent = {name: -np.abs(array) if name.startswith("conv1/") else array for name, array in pruned.items()}
    images = np.abs(tiny_images(2)[0])
    with pytest.raises(ValueError, match="gives the same answers"):
        quantize(SPEC, silent | {"conv10/bias": np.full(4, -1, np.float32)}, images, target_bytes=TARGET)


def test_arrays_of_another_net_are_refused(pruned):
    with pytest.raises(ValueError, match="clustered"):
        choose_codes(SPEC, pruned, {"conv1/bias": np.zeros(3, np.float32)}, tiny_images(2)[0])
    with pytest.raises(ValueError, match="do not fit"):
        quantize(SPEC, pruned | {"conv1/bias": np.zeros(3, np.float32)}, tiny_images(2)[0], target_bytes=TARGET)


def test_no_result_has_a_negative_zero(pruned, quantized):
    """The codec would treat -0.0 as a value of its own, and give up the grid."""
    masked = {name: np.where(array == 0, np.float32(-0.0), array) for name, array in pruned.items()}
    results = [
        quantized[0],
        round_evenly(pruned, {"conv1": 3, "conv10": 4}),
        kmeans(masked, 3),
        kmeans(masked, 16),
        choose_codes(SPEC, pruned, kmeans(pruned, 3), tiny_images(16)[0]),
        prune_magnitudes(pruned, {"conv1": 0.5}),
    ]
    for arrays in results:
        for name, array in arrays.items():
            assert not (np.signbit(array) & (array == 0)).any(), name
