"""ONNX files written from the arrays answer as Keras does, and ONNX's own checker finds nothing wrong."""

import numpy as np
import onnx
import pytest

from sqz_keras import protobuf
from sqz_keras.architecture.colours import COLOURS
from sqz_keras.runtimes import onnx_file
from sqz_keras.runtimes.run import run_onnx
from tests.export.samples import random_arrays, small_spec
from tests.runtimes.nets import SIX, coloured_net, keras_answers, odd_net, paper_net, random_images, telling_arrays


def check_file(spec):
    arrays, images = telling_arrays(spec), random_images(spec)
    data = onnx_file.convert(spec, arrays)
    np.testing.assert_allclose(run_onnx(data, images), keras_answers(spec, arrays, images), atol=1e-5)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == data, "no field is out of place or unknown"


@pytest.mark.parametrize(("version", "bypass"), SIX)
def test_the_six_nets(version, bypass):
    check_file(paper_net(version, bypass))


@pytest.mark.parametrize("size", [31, 32, 33, 34])
@pytest.mark.parametrize(("bypass", "padding"), [(None, 1), ("simple", 0), ("complex", 2)])
def test_every_size_and_bypass(size, bypass, padding):
    """Covers pools in ceil mode, sums, and conv10's padding."""
    check_file(odd_net(bypass, padding, size))


@pytest.mark.parametrize("mode", list(COLOURS))
def test_colours_are_part_of_the_file(mode):
    check_file(coloured_net(mode))


def test_grey_models_are_refused():
    spec = small_spec(channels=1)
    with pytest.raises(ValueError, match="3 channels; this model takes 1"):
        onnx_file.convert(spec, random_arrays(spec))


def test_numbers_of_every_length():
    fields = {1: "batch", 2: [1, 127, 128, 300, 1 << 40]}
    assert protobuf.write_message(fields).hex() == "0a056261746368" + "1001" + "107f" + "108001" + "10ac02" + (
        "10808080808020"
    )
