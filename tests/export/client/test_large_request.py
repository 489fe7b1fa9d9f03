import numpy as np
import pytest

from export.client import messages
from export.client.large_request import with_input


@pytest.mark.parametrize("size", [0, 1, 30, 127, 128, 5_000, 70_000, 1_000_000])
@pytest.mark.parametrize("name", ["images", "ü" * 70])
def test_the_bytes_are_those_of_protobuf(size, name):
    """The sizes cover every number of bytes that a length can take."""
    request = messages.PredictRequest(output_filter=["scores"])
    request.model_spec.name = "squeezenet"
    request.model_spec.version.value = 3
    tensor = messages.TensorProto(dtype=messages.DT_FLOAT)
    tensor.tensor_shape.dim.add(size=size)
    content = np.random.default_rng(0).bytes(size)
    encoded = with_input(request, name, tensor, [memoryview(content[: size // 3]), memoryview(content[size // 3 :])])
    tensor.tensor_content = content
    request.inputs[name].CopyFrom(tensor)
    assert messages.PredictRequest.FromString(encoded.SerializeToString()) == request
