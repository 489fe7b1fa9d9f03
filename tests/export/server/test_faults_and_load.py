"""Small versions of benchmarks/serving_faults.py and serving_load.py: what the server does when things go wrong."""

import shutil
import types

import pytest

from benchmarks import serving_faults as faults
from benchmarks import serving_load as load
from benchmarks import serving_malformed as malformed
from benchmarks import serving_server as servers
from export.client.client import Client
from tests.export.calls import bytes_of
from tests.export.samples import encode, random_image


@pytest.fixture(scope="module")
def images():
    return [encode(random_image(60 + 10 * seed, 80, seed=seed)) for seed in range(6)]


@pytest.fixture(scope="module")
def answers(base_path, images):
    return servers.right_answers(base_path / "3", images)


def test_malformed_requests_get_their_status_codes(target, client, images):
    """Five of every kind; the server's memory is measured by the benchmark, which sends thousands."""
    server = types.SimpleNamespace(target=target, resident_bytes=lambda: 0)
    count = 5 * len(malformed.makers(images))
    mistakes, _ = faults.send_malformed(server, images, count)
    assert mistakes == {}
    assert client.predict(images[0])[0].status == "OK"


@pytest.mark.parametrize(("code", "status"), [("NOT_FOUND", None), ("OK", "damaged")])
def test_a_wrong_answer_would_be_noticed(stubs, images, code, status):
    call = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    request = b"" if code != "OK" else bytes_of(images[0]).SerializeToString()
    wrong = faults.send_case(call, malformed.Case("Predict", request, code, status))
    assert ("INVALID_ARGUMENT" if code != "OK" else "OK") in wrong


@pytest.mark.large
def test_killed_and_started_again_then_given_a_broken_version(base_path, tmp_path, images, answers):
    """The command's server gets requests from four clients; no answer is lost or wrong."""
    base = tmp_path / "squeezenet"
    shutil.copytree(base_path / "3", base / "1")
    server = servers.Server(base, tmp_path)
    try:
        questions = faults.Questions(server.target, images, answers)
        faults.kill_and_restart(server, questions, kills=1)
        assert set(questions.counts) == {"right"}
        questions = faults.Questions(server.target, images, answers)
        assert "saved_model.pb" in faults.offer_broken_version(server, base, questions)
        assert set(questions.counts) == {"right"}
        server.stop()
    finally:
        server.process.kill()
        server.process.wait()


def test_load(target, images, answers):
    tally = load.Tally(images, answers)
    clients = [Client(target) for _ in range(4)]
    assert load.measure_capacity(clients, tally, 0.5) > 0
    sent = load.offer(clients, tally, 20, 1)
    for client in clients:
        client.close()
    assert set(tally.counts) == {"right"}
    assert tally.counts["right"] == len(tally.seconds) > sent == 20
