"""The server over real gRPC on 127.0.0.1: answers, status codes, limits, start and end."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from samples import encode, picture
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import contract
from export.client import Client
from export.server import ServedVersion, ServerConfig, load_newest, serve

GOOD = tf.make_tensor_proto(np.zeros((1, 8, 8, 3), np.float32))


@pytest.fixture(scope="module")
def channel(target):
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request_of(signature="serving_default", name="squeezenet", version=None, label=None, outputs=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for key, value in (inputs or {"images": GOOD}).items():
        request.inputs[key].CopyFrom(value)
    return request


def tensor(dtype=tf.float32, shape=(1, 8, 8, 3), **values):
    """A tensor proto as a careless or hostile client may send it."""
    return tf.make_tensor_proto(0.0, shape=[]).__class__(
        dtype=tf.as_dtype(dtype).as_datatype_enum, tensor_shape=tf.TensorShape(shape).as_proto(), **values
    )


@pytest.mark.parametrize("request_", [request_of(), request_of(signature=""), request_of(version=3)])
def test_predict_answers_with_every_output_and_its_version(stub, request_):
    response = stub.Predict(request_, timeout=10)
    assert set(response.outputs) == {output.name for output in contract.SERVING_DEFAULT.outputs}
    assert (response.model_spec.name, response.model_spec.version.value) == ("squeezenet", 3)
    assert response.model_spec.signature_name == "serving_default"


def test_predict_takes_values_as_fields_too(stub):
    images = np.random.default_rng(0).uniform(0, 255, (1, 8, 9, 3)).astype(np.float32)
    answers = [
        tf.make_ndarray(stub.Predict(request_of(images=sent), timeout=10).outputs["probabilities"])
        for sent in (tf.make_tensor_proto(images), tensor(shape=images.shape, float_val=images.ravel()))
    ]
    np.testing.assert_array_equal(*answers)


def test_output_filter(stub):
    response = stub.Predict(request_of(outputs=["class_ids"]), timeout=10)
    assert list(response.outputs) == ["class_ids"]


STRINGS = tf.make_tensor_proto([b"x"])
REFUSED = {
    "no model": (request_of(name=""), "INVALID_ARGUMENT"),
    "unknown model": (request_of(name="resnet"), "NOT_FOUND"),
    "unknown version": (request_of(version=4), "NOT_FOUND"),
    "unknown label": (request_of(label="stable"), "INVALID_ARGUMENT"),
    "unknown signature": (request_of(signature="regress"), "FAILED_PRECONDITION"),
    "wrong key": (request_of(pictures=GOOD), "INVALID_ARGUMENT"),
    "a key too many": (request_of(images=GOOD, more=GOOD), "INVALID_ARGUMENT"),
    "unknown output": (request_of(outputs=["logits"]), "INVALID_ARGUMENT"),
    "double": (request_of(images=tf.make_tensor_proto(np.zeros((1, 8, 8, 3)))), "INVALID_ARGUMENT"),
    "string for float": (request_of(images=STRINGS), "INVALID_ARGUMENT"),
    "float for string": (request_of(signature="serve_bytes", image_bytes=GOOD), "INVALID_ARGUMENT"),
    "no batch dimension": (request_of(images=tensor(shape=(8, 8, 3), float_val=[0] * 192)), "INVALID_ARGUMENT"),
    "4 channels": (request_of(images=tensor(shape=(1, 8, 8, 4), float_val=[0] * 256)), "INVALID_ARGUMENT"),
    "scalar string": (request_of("serve_bytes", image_bytes=tf.make_tensor_proto(b"x")), "INVALID_ARGUMENT"),
    "empty batch": (request_of(images=tensor(shape=(0, 8, 8, 3))), "INVALID_ARGUMENT"),
    "no pixels": (request_of(images=tensor(shape=(1, 0, 8, 3))), "INVALID_ARGUMENT"),
    "too few values": (request_of(images=tensor(float_val=[0.0])), "INVALID_ARGUMENT"),
    "too few bytes": (request_of(images=tensor(tensor_content=b"1234")), "INVALID_ARGUMENT"),
    "huge declared size": (request_of(images=tensor(shape=(1, 2**30, 2**30, 3), float_val=[0])), "INVALID_ARGUMENT"),
    "fewer strings than declared": (
        request_of("serve_bytes", image_bytes=tensor(tf.string, (9,), string_val=[b"x"])),
        "INVALID_ARGUMENT",
    ),
    "too large a batch": (
        request_of("serve_bytes", image_bytes=tf.make_tensor_proto([b"x"] * (contract.MAX_BATCH_SIZE + 1))),
        "INVALID_ARGUMENT",
    ),
    "too elongated": (request_of(images=tensor(shape=(1, 1, 101, 3), float_val=[0] * 303)), "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_requests_get_the_real_servers_codes(stub, name):
    request, code = REFUSED[name]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=10)
    assert caught.value.code().name == code
    assert caught.value.details()
    stub.Predict(request_of(), timeout=10)


def test_an_unknown_dtype_is_refused(stub):
    request = request_of()
    request.inputs["images"].dtype = 9999
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_too_large_a_message_is_refused(stub):
    side = int((contract.MAX_MESSAGE_BYTES / 12) ** 0.5) + 1
    images = tensor(shape=(1, side, side, 3), tensor_content=bytes(12 * side * side))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request_of(images=images), timeout=10)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_is_the_signatures(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "squeezenet"
    response = stub.GetModelMetadata(request, timeout=10)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    for signature in contract.EXPORTED:
        assert list(found.signature_def[signature.name].inputs) == [signature.input.name]
    request.metadata_field[0] = "weights"
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelMetadata(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_status_is_available(channel):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "squeezenet"
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    (version,) = status(request, timeout=10).model_version_status
    assert (version.version, version.state, version.status.error_code) == (3, version.AVAILABLE, 0)
    request.model_spec.name = "resnet"
    with pytest.raises(grpc.RpcError) as caught:
        status(request, timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_what_is_not_served_is_unimplemented(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Classify(classification_pb2.ClassificationRequest(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_parallel_calls_get_their_own_answers(client, model, spec):
    pictures = [encode(picture(40 + seed, 50, seed=seed)) for seed in range(12)]
    alone = [client.predict_bytes([data])[0] for data in pictures]
    assert len({prediction.scores for prediction in alone}) == 12
    with futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: client.predict_bytes([pictures[index % 12]])[0], range(96)))
    for index, prediction in enumerate(together):
        np.testing.assert_allclose(prediction.probabilities, alone[index % 12].probabilities, atol=1e-6)


def test_queue_is_bounded_and_running_calls_are_finished_at_the_end(base_path):
    """A model that answers when it is told to: one call runs, one waits, the third is refused, then the server ends."""
    real, started, finish = load_newest(base_path), threading.Event(), threading.Event()

    def slow(images):
        started.set()
        assert finish.wait(30)
        return real.functions["serving_default"](images=images)

    model = ServedVersion("squeezenet", 3, real.signature_defs, {"serving_default": slow}, real.root)
    with futures.ThreadPoolExecutor(2) as pool:
        with serve(model, ServerConfig(port=0, max_workers=1, max_queue=1)) as port:
            channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            calls = [stub.Predict.future(request_of(), timeout=30)]
            assert started.wait(10)
            calls.append(stub.Predict.future(request_of(), timeout=30))
            code, deadline = None, time.monotonic() + 10
            while code != grpc.StatusCode.RESOURCE_EXHAUSTED and time.monotonic() < deadline:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Predict(request_of(), timeout=0.2)
                code = caught.value.code()
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            pool.submit(lambda: (time.sleep(0.2), finish.set()))
        assert [call.result().model_spec.version.value for call in calls] == [3, 3]
    channel.close()


def test_newest_version_is_loaded_and_leftovers_are_not(base_path, tmp_path):
    shutil.copytree(base_path / "3", tmp_path / "9")
    shutil.copytree(base_path / "3", tmp_path / "10")
    shutil.copytree(base_path / "3", tmp_path / ".tmp-11-0123456789abcdef")
    assert load_newest(tmp_path).version == 10


def test_nothing_to_load_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="sqz-export"):
        load_newest(tmp_path / "missing")
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match="no SavedModel"):
        load_newest(tmp_path)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\xff\xff garbage")
    with pytest.raises(ValueError, match="no SavedModel"):
        load_newest(tmp_path)


def test_a_taken_port_is_a_clear_error(base_path, target):
    port = int(target.rpartition(":")[2])
    with pytest.raises(OSError, match="--port=0"), serve(load_newest(base_path), ServerConfig(port=port)):
        pass


def test_command_from_start_to_sigterm(base_path, tmp_path):
    """In a process of its own: the port file, an answer with a broken picture in it, and a clean end."""
    port_file = tmp_path / "port"
    port_file.write_text("1\n")
    command = [sys.executable, "-m", "export.serve", f"--base_path={base_path}", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--port_file={port_file}"],
        cwd=pathlib.Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        port = port_file.read_text().strip()
        assert line == f"Serving squeezenet version 3 on 127.0.0.1:{port}\n"
        with Client(f"127.0.0.1:{port}") as client:
            client.wait_until_ready(10)
            status = [each.status for each in client.predict_bytes([encode(picture(40, 40)), b"\xff\xd8\xff broken"])]
        assert status == [contract.STATUS_OK, contract.STATUS_DAMAGED]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert os.listdir(tmp_path) == []
