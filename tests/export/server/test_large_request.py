"""A request is read as protobuf reads it, whatever its form; in the usual form, the content is not copied."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2

from export.server.large_request import parse

IMAGES = np.random.default_rng(0).random((2, 70, 50, 3)).astype(np.float32)


def request_of(**inputs):
    request = predict_pb2.PredictRequest(output_filter=["scores"])
    request.model_spec.name = "squeezenet"
    request.model_spec.version.value = 300
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def whole(parsed):
    """The request with its contents put back where protobuf has them."""
    for name, content in parsed.contents.items():
        parsed.message.inputs[name].tensor_content = bytes(content)
    return parsed.message


def test_the_content_of_the_usual_form_is_a_view():
    data = request_of(images=IMAGES).SerializeToString()
    parsed = parse(data)
    assert parsed.contents["images"].obj is data
    np.testing.assert_array_equal(np.frombuffer(parsed.contents["images"], "<f4"), IMAGES.ravel())
    assert not parsed.message.inputs["images"].tensor_content
    assert whole(parsed) == request_of(images=IMAGES)


LARGE = request_of(images=IMAGES).SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        request_of().SerializeToString(),
        request_of(images=IMAGES[:1, :10]).SerializeToString(),
        request_of(images=IMAGES, others=IMAGES).SerializeToString(),
        request_of(files=[b"x" * 100_000]).SerializeToString(),
        LARGE + request_of(images=[1.0]).SerializeToString(),  # the last input of a name counts
        b"\x78\x01" * 100 + LARGE,  # too many fields to walk through in Python
        b"",
    ],
)
def test_other_forms_are_left_to_protobuf(data):
    parsed = parse(data)
    assert not parsed.contents
    assert parsed.message == predict_pb2.PredictRequest.FromString(data)


@pytest.mark.parametrize(
    "extra",
    [b"\x78\x80\x01", b"\x79" + bytes(8), b"\x7d" + bytes(4), b"\x7a\x02ab"],
    ids=["varint", "8 bytes", "4 bytes", "length"],
)
def test_unknown_fields_are_skipped(extra):
    for data in (extra + LARGE, LARGE + extra):
        parsed = parse(data)
        assert parsed.contents
        assert whole(parsed) == predict_pb2.PredictRequest.FromString(data)


def test_damaged_requests_are_read_or_refused_as_by_protobuf():
    random = np.random.default_rng(1)
    refused = read = 0
    for _ in range(3000):
        data = bytearray(LARGE)
        place = int(random.integers(0, 120)) * int(random.choice([1, -1]))
        if random.random() < 0.2:
            data = data[: place or None]
        else:
            data[place] = int(random.integers(0, 256))
        try:
            expected = predict_pb2.PredictRequest.FromString(bytes(data))
        except DecodeError:
            with pytest.raises(DecodeError):
                parse(bytes(data))
            refused += 1
            continue
        assert whole(parse(bytes(data))) == expected
        read += 1
    assert refused > 500 and read > 500
