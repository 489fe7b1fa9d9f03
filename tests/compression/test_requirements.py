"""The sizes and accuracy required of the authors' v1.0 when compressed, on the real weights and images."""

import numpy as np
import pytest

from sqz_keras import codec, resolve_model
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.compression.quantize import Quantizer
from sqz_keras.images.files import find_images
from sqz_keras.weights import sqz
from trainers.data.image_reader import read_inputs
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


@pytest.mark.large
def test_the_forecast_of_a_dense_network(test_data):
    """On pictures that calibrated, its answers change much less than on others."""
    spec, arrays = resolve_model(test_data / "weights" / "squeezenet1.1_authors" / "SqueezeNet_fp16.onnx")
    paths = find_images(test_data / "images" / "imagenette" / "val", 500)
    quantizer = Quantizer(spec, arrays, read_inputs(paths[::5], spec))
    others = read_inputs([path for index, path in enumerate(paths) if index % 5], spec)
    quantized = quantizer.to_size(quantizer.estimate_size(0.85))
    batches = ((others[start : start + 50], None) for start in range(0, len(others), 50))
    _, fields = compare_models(spec, [arrays, quantized], batches)
    assert fields["agreement"] == pytest.approx(0.85, abs=0.05)
