"""The sizes and accuracy required of the authors' v1.0 when compressed, on the real weights and images."""

import numpy as np
import pytest

from sqz_keras import codec, resolve_model
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.weights import sqz
from trainers.evaluation.agreement import compare_models, find_evaluation_images, image_batches


@pytest.fixture(scope="module")
def net(test_data):
    return resolve_model(test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net")


@pytest.fixture(scope="module")
def shared(net):
    return kmeans(net[1], 6)


def encode(spec, arrays, profile):
    return codec.encode(arrays, sqz.header(spec, arrays, {"stages": []}), profile=profile)


@pytest.mark.parametrize(("profile", "most"), [("max", 533_000), ("paper", 547_000)])
def test_lossless(net, profile, most):
    spec, arrays = net
    data = encode(spec, arrays, profile)
    assert len(data) <= most
    for name, array in codec.decode(data).arrays.items():
        np.testing.assert_array_equal(array.view(np.uint32), arrays[name].view(np.uint32))


def test_six_bits(net, shared):
    spec, _ = net
    paper, smallest = (len(encode(spec, shared, profile)) for profile in ("paper", "max"))
    assert paper <= 372_000
    assert smallest <= 0.985 * paper


@pytest.mark.large
def test_six_bits_agree(net, shared, test_data):
    spec, arrays = net
    images = find_evaluation_images(test_data / "images" / "imagenet_sample", spec)
    before, after = compare_models(spec, [arrays, shared], image_batches(images, spec))
    assert before["num_images"] == 200
    assert after["agreement"] >= 0.77  # measured: 78.5%
    assert after["top1_accuracy"] >= before["top1_accuracy"] - 0.08  # measured: 60.5%, before 67.5%
