"""The embedded server's own promises: bounds, deadlines, versions, TLS, start and end; test_serving_contract.py holds
what it shares with TensorFlow's model server."""

import contextlib
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, regression_pb2

from export import contract
from export.client.client import Client
from export.server.errors import RequestError
from export.server.large_request import ParsedRequest
from export.server.manager import MAX_LOADS, VersionManager, load_version
from export.server.model import ServedVersion
from export.server.serving import ServerConfig, serve
from sqz_keras import quiet
from tests.export.calls import Stubs, bytes_of, classification_of, code_of, request_of, status_of, tensor
from tests.export.samples import encode, random_image

TOO_LARGE = {
    "an empty batch": request_of(images=tensor(shape=(0, 8, 8, 3))),
    "no pixels": request_of(images=tensor(shape=(1, 0, 8, 3))),
    "too many values": request_of(images=tensor(shape=(1, 1, 1, 3), float_val=[0] * 4)),
    "too large a batch": bytes_of(*[b"x"] * (contract.MAX_BATCH_SIZE + 1)),
    "few strings for many": request_of("serve_bytes", image_bytes=tensor(tf.string, (2**40,), string_val=[b"x"])),
    "more than a message declared": request_of(images=tensor(shape=(1, 4000, 4000, 3), float_val=[0])),
    "strings as content": request_of("serve_bytes", image_bytes=tensor(tf.string, (1,), tensor_content=b"\1x")),
    "a negative size": request_of(images=tensor(shape=(1, 8, 8, 3))),
}
TOO_LARGE["a negative size"].inputs["images"].tensor_shape.dim[1].size = -8


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_would_take_memory_is_refused_unread(stubs, name):
    assert code_of(stubs.predict, TOO_LARGE[name]) == "INVALID_ARGUMENT"


def test_a_call_may_have_no_deadline(stubs):
    photo = encode(random_image(20, 20))
    assert stubs.predict(request_of()).model_spec.version.value == 3
    assert len(stubs.classify(classification_of(photo)).result.classifications) == 1


def test_an_unknown_dtype_is_refused(stubs):
    request = request_of()
    request.inputs["images"].dtype = 9999
    assert code_of(stubs.predict, request) == "INVALID_ARGUMENT"


def test_too_large_a_message_is_refused(stubs):
    side = int((contract.MAX_MESSAGE_BYTES / 12) ** 0.5) + 1
    images = tensor(shape=(1, side, side, 3), tensor_content=bytes(12 * side * side))
    assert code_of(stubs.predict, request_of(images=images)) == "RESOURCE_EXHAUSTED"


def test_what_is_no_message_is_refused(stubs):
    raw = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert code_of(raw, b"\xff\xff\xff") == "INTERNAL"
    stubs.predict(request_of(), timeout=10)


def test_what_is_not_served_is_unimplemented(stubs):
    assert code_of(stubs.regress, regression_pb2.RegressionRequest()) == "UNIMPLEMENTED"


class FakeVersion:
    """Answers with its number once `finish` is set."""

    def __init__(self, version=3):
        self.version, self.closed, self.runs = version, False, 0
        self.started, self.finish = threading.Event(), threading.Event()

    def predict(self, request, timeout_ms):
        self.runs += 1
        self.started.set()
        assert self.finish.wait(30)
        assert not self.closed
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = self.version
        return response

    def close(self):
        self.closed = True


@pytest.fixture
def model():
    return FakeVersion()


@pytest.fixture
def start(model, tmp_path):
    """Starts a server with one worker for the fake version."""
    (tmp_path / "3").mkdir()
    return lambda **config: serve(tmp_path, ServerConfig(port=0, max_workers=1, **config), lambda *_: model)


def test_queue_is_bounded_and_calls_are_finished_at_the_end(start, model):
    """One call runs, one waits, the third is refused; then the server ends, and the first two are answered."""
    with contextlib.ExitStack() as channels:
        with start(max_queue=1) as port:
            stubs = channels.enter_context(Stubs(f"127.0.0.1:{port}"))
            calls = [stubs.predict.future(request_of(), timeout=30)]
            assert model.started.wait(10)
            calls.append(stubs.predict.future(request_of(), timeout=30))
            code, deadline = None, time.monotonic() + 10
            while code != "RESOURCE_EXHAUSTED" and time.monotonic() < deadline:
                code = code_of(stubs.predict, request_of(), timeout=0.2)
            assert code == "RESOURCE_EXHAUSTED"
            threading.Timer(0.2, model.finish.set).start()
        assert [call.result().model_spec.version.value for call in calls] == [3, 3]
    assert model.closed


def test_a_call_whose_deadline_passed_in_the_queue_is_not_run(start, model):
    with start() as port, Stubs(f"127.0.0.1:{port}") as stubs:
        first = stubs.predict.future(request_of(), timeout=30)
        assert model.started.wait(10)
        assert code_of(stubs.predict, request_of(), timeout=0.2) == "DEADLINE_EXCEEDED"
        last = stubs.predict.future(request_of(), timeout=30)
        model.finish.set()
        assert [call.result().model_spec.version.value for call in (first, last)] == [3, 3]
    assert model.runs == 2


def test_a_server_without_a_version_is_not_healthy(start, tmp_path):
    with start(poll_seconds=0.02) as port, Stubs(f"127.0.0.1:{port}") as stubs:
        check = health_pb2_grpc.HealthStub(stubs.channel).Check
        health, request = health_pb2.HealthCheckResponse, health_pb2.HealthCheckRequest()
        assert check(request, timeout=10).status == health.SERVING
        (tmp_path / "3").rmdir()
        deadline = time.monotonic() + 10
        while check(request, timeout=10).status != health.NOT_SERVING:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert code_of(stubs.predict, request_of()) == "NOT_FOUND"


def test_a_run_ends_at_its_deadline(base_path):
    model = ServedVersion(base_path / "3", "squeezenet", 3)
    request = ParsedRequest(bytes_of(*[encode(random_image(900, 900))] * contract.MAX_BATCH_SIZE))
    with pytest.raises(tf.errors.DeadlineExceededError):
        model.predict(request, timeout_ms=5)
    assert model.predict(ParsedRequest(request_of()), timeout_ms=10_000).model_spec.version.value == 3
    model.close()


class Manager(VersionManager):
    """Manages fake versions: `fakes` holds them by number; the numbers in `broken` cannot be loaded."""

    def __init__(self, folder, **options):
        self.fakes, self.broken, self.loads = {}, set(), []
        super().__init__(folder, "squeezenet", load=self.load_fake, **options)
        (folder / "1").mkdir()
        self.load_newest()

    def load_fake(self, path, name, version):
        self.loads.append((version, states(self)))
        if version in self.broken:
            raise ValueError(f"{path} is broken")
        self.fakes[version] = FakeVersion(version)
        return self.fakes[version]


@pytest.fixture
def versions(tmp_path):
    return Manager(tmp_path)


def states(versions):
    spec = status_of().model_spec
    return {status.version: status.State.Name(status.state) for status in versions.statuses(spec)}


def newest(versions):
    with versions.lease(request_of().model_spec) as model:
        return model.version


def test_the_old_version_goes_after_the_new_one_came(versions, tmp_path, capsys):
    (tmp_path / "2").mkdir()
    versions.poll()
    assert capsys.readouterr().out == "Version 2 of squeezenet is served\n"
    assert versions.loads == [(1, {1: "LOADING"}), (2, {1: "AVAILABLE", 2: "LOADING"})]
    assert states(versions) == {1: "END", 2: "AVAILABLE"}
    assert versions.fakes[1].closed and not versions.fakes[2].closed


def test_calls_that_run_keep_their_version(versions, tmp_path):
    """While a call holds the old version, other calls get the new one, and the old one is not closed."""
    (tmp_path / "2").mkdir()
    with versions.lease(request_of().model_spec) as held:
        poller = threading.Thread(target=versions.poll)
        poller.start()
        deadline = time.monotonic() + 10
        while states(versions)[1] != "UNLOADING" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (held.version, held.closed, newest(versions)) == (1, False, 2)
    poller.join()
    assert held.closed
    assert states(versions) == {1: "END", 2: "AVAILABLE"}


def test_a_version_that_fails_leaves_the_old_one(versions, tmp_path):
    versions.broken.add(2)
    (tmp_path / "2").mkdir()
    for _ in range(3):
        versions.poll()
    failed, served = versions.statuses(status_of().model_spec)
    assert (served.version, served.state) == (1, served.AVAILABLE)
    assert (failed.version, failed.state) == (2, failed.END)
    assert failed.status.error_code == grpc.StatusCode.INTERNAL.value[0]
    assert "2 is broken" in failed.status.error_message
    assert newest(versions) == 1
    assert len(versions.loads) == 2, "it is not retried before its time"


@pytest.mark.parametrize("mended", [True, False])
def test_a_version_that_fails_is_retried_a_limited_number_of_times(tmp_path, mended):
    versions = Manager(tmp_path, retry_seconds=0)
    versions.broken.add(2)
    (tmp_path / "2").mkdir()
    versions.poll()
    if mended:
        versions.broken.clear()
    for _ in range(2 * MAX_LOADS):
        versions.poll()
    assert newest(versions) == (2 if mended else 1)
    assert [version for version, _ in versions.loads].count(2) == (2 if mended else MAX_LOADS)
    if not mended:  # the folder is removed, and exported again under the same number
        (tmp_path / "2").rmdir()
        versions.poll()
        versions.broken.clear()
        (tmp_path / "2").mkdir()
        versions.poll()
        assert newest(versions) == 2


def test_folders_that_go_away(versions, tmp_path):
    (tmp_path / "2").mkdir()
    versions.poll()
    (tmp_path / "2").rmdir()
    versions.poll()
    assert (newest(versions), states(versions)) == (1, {1: "AVAILABLE", 2: "END"})
    tmp_path.rename(tmp_path.with_name("away"))
    versions.poll()
    assert newest(versions) == 1, "a base path out of reach changes nothing"
    tmp_path.with_name("away").rename(tmp_path)
    (tmp_path / "1").rmdir()
    versions.poll()
    with pytest.raises(RequestError, match="versions: none"):
        newest(versions)
    assert not versions.any_available()


def test_newest_version_is_loaded_and_leftovers_are_not(tmp_path):
    for name in ("9", "10", ".tmp-11-0123456789abcdef", "v12"):
        (tmp_path / name).mkdir()
    manager = VersionManager(tmp_path, "squeezenet", load=lambda path, name, version: FakeVersion(version))
    assert manager.load_newest() == 10


def test_nothing_to_load_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="sqz-export"), serve(tmp_path / "missing", ServerConfig(port=0)):
        pass
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match="not a SavedModel"), serve(tmp_path, ServerConfig(port=0)):
        pass
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\xff\xff garbage")
    with pytest.raises(ValueError, match="not a SavedModel"), serve(tmp_path, ServerConfig(port=0)):
        pass


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_has_brackets(base_path, host, ipv6):
    """Without brackets, gRPC takes the port for the address's last part, and listens on port 443."""
    with serve(base_path, ServerConfig(host=host, port=0)) as port, Client(contract.address(host, port)) as client:
        assert client.available_versions() == [3]


def test_a_taken_port_is_a_clear_error(base_path, target, monkeypatch, capfd):
    monkeypatch.setenv(quiet.LEVEL, "3")  # as in a command
    config = ServerConfig(port=int(target.rpartition(":")[2]))
    with pytest.raises(OSError, match="--port=0"), serve(base_path, config):
        pass
    assert capfd.readouterr().err == "", "gRPC's log"


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([request_of()] * 3, None),
        ([request_of(images=tf.make_tensor_proto(np.zeros((1, 8, 8, 3))))], "DT_FLOAT"),
        ([request_of()] * 1001, "more than 1000"),
        ([b"\xff\xff"], "parsing"),
    ],
)
def test_warm_up(base_path, tmp_path, records, error):
    """All of a version's records are replayed. It is not loaded with too many records, or a refused or invalid one."""
    folder = tmp_path / "3"
    shutil.copytree(base_path / "3", folder)
    with tf.io.TFRecordWriter(str(folder / contract.EXTRA_FOLDER / contract.WARMUP_NAME)) as file:
        for record in records:
            log = prediction_log_pb2.PredictionLog()
            if not isinstance(record, bytes):
                log.predict_log.request.CopyFrom(record)
                record = log.SerializeToString()
            file.write(record)
    if error is None:
        load_version(folder, "squeezenet", 3).close()
        return
    with pytest.raises(Exception, match=error):
        load_version(folder, "squeezenet", 3)


def test_a_warm_up_file_of_another_format_keeps_a_version_from_loading(base_path, tmp_path):
    folder = tmp_path / "3"
    shutil.copytree(base_path / "3", folder)
    (folder / contract.EXTRA_FOLDER / contract.WARMUP_NAME).write_bytes(b"no records" * 10)
    with pytest.raises(tf.errors.DataLossError):
        load_version(folder, "squeezenet", 3)
