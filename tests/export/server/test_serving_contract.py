"""What clients may rely on, with the embedded server and TensorFlow's model server alike: the same tests for both.

The model server is tested if SQZ_MODEL_SERVER names its binary. It listens on every address of the machine.
"""

import contextlib
import os
import shutil
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_log_pb2

from export import contract
from export.client.client import Client
from export.server import model_server
from export.server.serving import ServerConfig, serve
from sqz_keras import prepare_images
from tests.export.calls import (
    GOOD,
    Stubs,
    bytes_of,
    classification_of,
    code_of,
    example_of,
    request_of,
    status_of,
    tensor,
)
from tests.export.samples import encode, random_image

SECONDS = 60  # for a version to come or go; the model server polls once a second
STRINGS = tf.make_tensor_proto([b"x"])


BINARY = os.environ.get("SQZ_MODEL_SERVER")


@pytest.fixture(scope="session", params=["embedded", "model_server"] if BINARY else ["embedded"])
def start(request):
    """Starts a server of either kind for the versions in a folder, and gives host:port."""

    @contextlib.contextmanager
    def run(base_path):
        if request.param == "model_server":
            server = model_server.serve(BINARY, base_path, "squeezenet", 0)
        else:
            server = serve(base_path, ServerConfig(port=0, poll_seconds=0.05))
        with server as port:
            yield f"127.0.0.1:{port}"

    return run


@pytest.fixture(scope="session")
def any_target(start, base_path):
    with start(base_path) as target:
        yield target


@pytest.fixture(scope="session")
def any_stubs(any_target):
    with Stubs(any_target) as stubs:
        yield stubs


@pytest.fixture(scope="session")
def any_client(any_target):
    with Client(any_target) as client:
        client.wait_until_ready(SECONDS)
        yield client


@pytest.mark.parametrize("request_", [request_of(), request_of(signature=""), request_of(version=3)])
def test_predict_answers_with_every_output_and_its_version(any_stubs, request_):
    response = any_stubs.predict(request_, timeout=10)
    assert set(response.outputs) == {output.name for output in contract.SERVING_DEFAULT.outputs}
    assert (response.model_spec.name, response.model_spec.version.value) == ("squeezenet", 3)
    assert response.model_spec.signature_name == "serving_default"


def test_predict_takes_values_as_fields_too(any_stubs):
    images = np.random.default_rng(0).uniform(0, 255, (1, 8, 9, 3)).astype(np.float32)
    answers = [
        tf.make_ndarray(any_stubs.predict(request_of(images=sent), timeout=10).outputs["probabilities"])
        for sent in (tf.make_tensor_proto(images), tensor(shape=images.shape, float_val=images.ravel()))
    ]
    np.testing.assert_array_equal(*answers)


def test_the_last_value_stands_for_those_left_out(any_stubs):
    even = tf.make_tensor_proto(np.full((1, 8, 8, 3), 77, np.float32))
    answers = [
        tf.make_ndarray(any_stubs.predict(request_of(images=sent), timeout=10).outputs["probabilities"])
        for sent in (even, tensor(float_val=[77]), tensor(float_val=[77, 77]))
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answers[0], answer)


def test_output_filter(any_stubs):
    response = any_stubs.predict(request_of(outputs=["class_ids"]), timeout=10)
    assert list(response.outputs) == ["class_ids"]


def test_answers_are_the_models(any_client, model, spec):
    image = np.asarray(random_image(45, 61))
    expected = model.predict_on_batch(prepare_images(image[None], spec))[0]
    (by_array,), (by_file,) = any_client.predict(image), any_client.predict(encode(random_image(45, 61), "PNG"))
    for prediction in (by_array, by_file):
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
        assert prediction.classes[0] == spec.labels[int(expected.argmax())]


def test_a_bad_image_fails_only_itself(any_client):
    good = encode(random_image(40, 40))
    predictions = any_client.predict([good, b"no image", good[:200], good])
    assert [prediction.status for prediction in predictions] == [
        contract.STATUS_OK,
        contract.STATUS_UNKNOWN_FORMAT,
        contract.STATUS_DAMAGED,
        contract.STATUS_OK,
    ]
    assert predictions[0].scores == pytest.approx(predictions[3].scores, rel=1e-5)


REFUSED = {
    "no model": (request_of(name=""), "INVALID_ARGUMENT"),
    "unknown model": (request_of(name="resnet"), "NOT_FOUND"),
    "unknown version": (request_of(version=4), "NOT_FOUND"),
    "unknown label": (request_of(label="stable"), "INVALID_ARGUMENT"),
    "unknown signature": (request_of(signature="regress"), "FAILED_PRECONDITION"),
    "wrong key": (request_of(inputs=GOOD), "INVALID_ARGUMENT"),
    "a key too many": (request_of(images=GOOD, more=GOOD), "INVALID_ARGUMENT"),
    "unknown output": (request_of(outputs=["logits"]), "INVALID_ARGUMENT"),
    "an output twice": (request_of(outputs=["scores", "scores"]), "INVALID_ARGUMENT"),
    "double": (request_of(images=tf.make_tensor_proto(np.zeros((1, 8, 8, 3)))), "INVALID_ARGUMENT"),
    "string for float": (request_of(images=STRINGS), "INVALID_ARGUMENT"),
    "float for string": (request_of(signature="serve_bytes", image_bytes=GOOD), "INVALID_ARGUMENT"),
    "no batch dimension": (request_of(images=tensor(shape=(8, 8, 3), float_val=[0] * 192)), "INVALID_ARGUMENT"),
    "4 channels": (request_of(images=tensor(shape=(1, 8, 8, 4), float_val=[0] * 256)), "INVALID_ARGUMENT"),
    "scalar string": (request_of("serve_bytes", image_bytes=tf.make_tensor_proto(b"x")), "INVALID_ARGUMENT"),
    "too few bytes": (request_of(images=tensor(tensor_content=b"1234")), "INVALID_ARGUMENT"),
    "huge declared size": (request_of(images=tensor(shape=(1, 2**30, 2**30, 3), float_val=[0])), "INVALID_ARGUMENT"),
    "too elongated": (request_of(images=tensor(shape=(1, 1, 101, 3), float_val=[0] * 303)), "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_predict_requests(any_stubs, name):
    request, code = REFUSED[name]
    assert code_of(any_stubs.predict, request) == code
    any_stubs.predict(request_of(), timeout=10)


def test_classify_is_predicts_answer(any_stubs):
    images = [encode(random_image(40, 50, seed=seed)) for seed in (1, 2)]
    expected = any_stubs.predict(bytes_of(*images), timeout=10).outputs
    merged = classification_of()
    for data in images:
        merged.input.example_list_with_context.examples.append(example_of(data))
    merged.input.example_list_with_context.context.SetInParent()
    for request in (classification_of(*images), merged):
        answers = any_stubs.classify(request, timeout=10).result.classifications
        labels = [[best.label.encode() for best in answer.classes] for answer in answers]
        assert labels == tf.make_ndarray(expected["classes"]).tolist()
        scores = [[best.score for best in answer.classes] for answer in answers]
        np.testing.assert_allclose(scores, tf.make_ndarray(expected["scores"]), atol=1e-6)


@pytest.mark.parametrize(
    "request_",
    [
        classification_of(),
        classification_of(b"x", signature="regress"),
        classification_of(b"x", signature="serving_default"),
        classification_of(b"x", signature=""),
    ],
)
def test_wrong_classify_requests(any_stubs, request_):
    assert code_of(any_stubs.classify, request_) == "INVALID_ARGUMENT"


def test_metadata_is_the_signatures(any_stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "squeezenet"
    response = any_stubs.metadata(request, timeout=10)
    assert response.model_spec.version.value == 3
    served = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(served)
    for signature in contract.EXPORTED:
        assert list(served.signature_def[signature.name].inputs) == [signature.input.name]
        assert set(served.signature_def[signature.name].outputs) == {output.name for output in signature.outputs}
    for fields in (["weights"], []):
        del request.metadata_field[:]
        request.metadata_field.extend(fields)
        assert code_of(any_stubs.metadata, request) == "INVALID_ARGUMENT"


def test_status_is_available(any_stubs):
    assert any_stubs.states() == {3: ("AVAILABLE", "")}
    (one,) = any_stubs.status(status_of(version=3), timeout=10).model_version_status
    assert (one.version, one.state, one.status.error_code) == (3, one.AVAILABLE, 0)
    assert code_of(any_stubs.status, status_of("resnet")) == "NOT_FOUND"
    assert code_of(any_stubs.status, status_of(version=4)) == "NOT_FOUND"


def test_health_check(any_stubs):
    check = health_pb2_grpc.HealthStub(any_stubs.channel).Check
    assert check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_past_the_deadline(any_stubs):
    many = bytes_of(*[encode(random_image(900, 900))] * contract.MAX_BATCH_SIZE)
    assert code_of(any_stubs.predict, many, timeout=0.02) == "DEADLINE_EXCEEDED"
    any_stubs.predict(request_of(), timeout=10)


def test_parallel_calls_get_their_own_answers(any_client):
    images = [encode(random_image(40 + seed, 50, seed=seed)) for seed in range(12)]
    alone = [any_client.predict(data)[0] for data in images]
    assert len({prediction.scores for prediction in alone}) == 12
    with futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda index: any_client.predict(images[index % 12])[0], range(96)))
    for index, prediction in enumerate(together):
        np.testing.assert_allclose(prediction.probabilities, alone[index % 12].probabilities, atol=1e-6)


def served_version(stubs):
    return stubs.predict(request_of(), timeout=10).model_spec.version.value


def wait_until(holds):
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def test_versions_come_and_go_and_a_broken_one_changes_nothing(start, base_path, tmp_path):
    shutil.copytree(base_path / "3", tmp_path / "3")
    with start(tmp_path) as target, Stubs(target) as stubs:
        show(base_path / "3", tmp_path / "4")
        wait_until(lambda: served_version(stubs) == 4)
        wait_until(lambda: stubs.states()[3][0] == "END")
        assert code_of(stubs.predict, request_of(version=3)) == "NOT_FOUND"
        assert stubs.predict(request_of(version=4), timeout=10).model_spec.version.value == 4

        broken = tmp_path / ".tmp-5"
        shutil.copytree(base_path / "3", broken)
        (broken / "saved_model.pb").write_bytes(b"\xff\xff garbage")
        broken.rename(tmp_path / "5")
        wait_until(lambda: 5 in stubs.states())
        assert served_version(stubs) == 4

        shutil.rmtree(tmp_path / "5")
        hide(tmp_path / "4")
        wait_until(lambda: served_version(stubs) == 3)
        wait_until(lambda: stubs.states()[4][0] == "END")


def show(version, path):
    """Copies a version to where a server sees it, whole or not at all."""
    hidden = path.with_name(f".tmp-{path.name}")
    shutil.copytree(version, hidden)
    hidden.rename(path)


def hide(path):
    path.rename(path.with_name(f".gone-{path.name}"))


def test_a_bad_warm_up_record_keeps_a_version_from_serving(start, base_path, tmp_path):
    shutil.copytree(base_path / "3", tmp_path / "3")
    with start(tmp_path) as target, Stubs(target) as stubs:
        for version, sent in ((4, GOOD), (5, STRINGS)):
            prepared = tmp_path / f".prepared-{version}"
            shutil.copytree(base_path / "3", prepared)
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request_of(images=sent))
            with tf.io.TFRecordWriter(str(prepared / contract.EXTRA_FOLDER / contract.WARMUP_NAME)) as file:
                file.write(log.SerializeToString())
            prepared.rename(tmp_path / str(version))
            wait_until(lambda version=version: version in stubs.states())
            if version == 4:
                wait_until(lambda: served_version(stubs) == 4)
        wait_until(lambda: stubs.states()[5][0] in ("LOADING", "END"))
        assert served_version(stubs) == 4
