"""The client and sqz-predict work if TensorFlow, Keras and the readers of weights cannot be imported."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from export import contract
from export.client import messages
from export.client.exchange import to_array
from tests.export.samples import encode, random_image

ROOT = pathlib.Path(__file__).parents[3]
ABSENT = ("tensorflow", "tensorflow_serving", "keras", "tf_keras", "jax", "h5py", "onnx", "grpc_health", "tqdm")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"


def run(code, *arguments):
    command = [sys.executable, "-c", f"{WITHOUT}; {code}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(random_image(45, 61)))
    return path


def test_the_command_answers(target, client, photo):
    result = run("from export import predict; predict.run()", f"--server={target}", f"--image={photo}")
    assert (result.returncode, result.stderr) == (0, "")
    (expected,) = client.predict(photo)
    best = f"  {expected.scores[0]:7.2%}  {expected.classes[0]}"
    assert result.stdout.splitlines()[:2] == [str(photo), best]


def test_every_method_of_the_client_answers(target, client, photo):
    code = """
import json
from export.client.client import Client
with Client(sys.argv[1]) as client:
    client.wait_until_ready()
    print(json.dumps([client.available_versions(), sorted(client.signatures()), client.classify(sys.argv[2]),
                      client.features(sys.argv[2]).tolist(), client.predict(sys.argv[2])[0].scores]))
"""
    result = run(f"exec({code!r})", target, str(photo))
    assert result.stderr == ""
    versions, signatures, classes, features, scores = json.loads(result.stdout)
    assert versions == [3]
    assert set(signatures) == {signature.name for signature in contract.EXPORTED}
    assert classes == [[[name, score] for name, score in client.classify(photo)[0]]]
    np.testing.assert_array_equal(features, client.features(photo))
    assert tuple(scores) == client.predict(photo)[0].scores


def tensor(dtype, shape, **values):
    proto = messages.TensorProto(dtype=dtype, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "dtype", "expected"),
    [
        (tensor(messages.DT_FLOAT, (1, 2), float_val=[1.5, 2.5]), "float32", [[1.5, 2.5]]),
        (tensor(messages.DT_FLOAT, (2,), tensor_content=b"\0\0\x80?\0\0\0@"), "float32", [1.0, 2.0]),
        (tensor(messages.DT_FLOAT, (3,), float_val=[1.5, 2.5]), "float32", [1.5, 2.5, 2.5]),
        (tensor(messages.DT_INT32, (2, 1), int_val=[-1]), "int32", [[-1], [-1]]),
        (tensor(messages.DT_INT32, (1,), tensor_content=b"\xff\xff\xff\xff"), "int32", [-1]),
        (tensor(messages.DT_STRING, (1, 2), string_val=[b"a", b"a\0"]), "string", [[b"a", b"a\0"]]),
        (tensor(messages.DT_STRING, (0,)), "string", []),
    ],
)
def test_tensors_are_read_in_every_form_that_servers_send(proto, dtype, expected):
    array = to_array(proto, dtype)
    assert array.dtype == (object if dtype == "string" else dtype)
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("proto", "dtype"),
    [
        (tensor(messages.DT_INT32, (1,), int_val=[1]), "float32"),
        (tensor(messages.DT_FLOAT, (1,), float_val=[1, 2]), "float32"),
        (tensor(messages.DT_FLOAT, (2,)), "float32"),
        (tensor(messages.DT_FLOAT, (1,), tensor_content=b"\0\0\0"), "float32"),
        (tensor(messages.DT_FLOAT, (1 << 40,), float_val=[1]), "float32"),
        (tensor(messages.DT_STRING, (1,), tensor_content=b"a"), "string"),
    ],
)
def test_tensors_that_are_not_of_the_contract_are_refused(proto, dtype):
    with pytest.raises(ValueError, match=r"type|values|size|large"):
        to_array(proto, dtype)
