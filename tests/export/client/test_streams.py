"""Streams of images with either client: answers in order, a bounded number of calls, and errors in their place."""

import asyncio
import contextlib
import io
import itertools
import threading
import time

import grpc
import numpy as np
import pytest

from export import contract
from export.client.async_client import AsyncClient
from export.client.client import Client, ServingError
from export.server.errors import RequestError
from export.server.model import ServedVersion
from export.server.serving import ServerConfig, serve
from tests.export.samples import encode, random_image


class WatchedVersion(ServedVersion):
    """Counts how many calls run at once, and takes longer for the first call."""

    running, most, refusals, calls = 0, 0, 0, 0
    lock = threading.Lock()

    def predict(self, request, timeout_ms=0):
        with self.lock:
            self.running += 1
            self.most, self.calls, number = max(self.most, self.running), self.calls + 1, self.calls
        try:
            if number < self.refusals:
                raise RequestError(grpc.StatusCode.UNAVAILABLE, "not now")
            time.sleep(0.15 if number == 0 else 0.02)
            return super().predict(request, timeout_ms)
        finally:
            with self.lock:
                self.running -= 1


@pytest.fixture
def watched(base_path):
    """A version, and the address of its server."""
    version = WatchedVersion(base_path / "3", "squeezenet", 3)
    config = ServerConfig(port=0, max_workers=8)
    with serve(base_path, config, load=lambda *_: version) as port:
        yield version, f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def files():
    return [encode(random_image(20, 20 + index % 5, seed=index)) for index in range(23)]


def stream_of(kind, target, images, **options):
    """The predictions of a stream from `Client` or `AsyncClient`, as an iterator."""
    if kind == "Client":
        with Client(target) as client:
            yield from client.predict_stream(images, **options)
        return
    with asyncio.Runner() as runner:
        client = runner.run(opened(target))
        stream = client.predict_stream(images, **options)
        try:
            while (prediction := runner.run(anext_or_none(stream))) is not None:
                yield prediction
        finally:
            runner.run(stream.aclose())
            runner.run(client.close())


async def opened(target):
    return AsyncClient(target)


async def anext_or_none(stream):
    return await anext(stream, None)


def assert_same(predictions, expected):
    """Checks that predictions are equal, apart from rounding in batches of different sizes."""
    assert [prediction.classes for prediction in predictions] == [prediction.classes for prediction in expected]
    actual, required = ([prediction.probabilities for prediction in side] for side in (predictions, expected))
    np.testing.assert_allclose(actual, required, atol=1e-5)


both = pytest.mark.parametrize("kind", ["Client", "AsyncClient"])


@both
def test_answers_come_in_order_from_a_bounded_number_of_calls(kind, watched, client, files):
    version, target = watched
    expected = client.predict(files)
    taken = []

    def images():
        for number, data in enumerate(files):
            taken.append(number)
            yield data

    stream = stream_of(kind, target, images(), batch_size=2, calls=3)
    first = next(stream)
    assert len(taken) <= 8, "nothing is read ahead of the calls"
    assert_same([first, *stream], expected)
    assert version.most == 3
    assert version.calls == 12


@both
def test_an_empty_stream_makes_no_call(kind, watched):
    version, target = watched
    assert list(stream_of(kind, target, [])) == []
    assert version.calls == 0


@both
def test_one_image_is_no_stream(kind, target, files, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(files[0])
    for image in (str(path), path, files[0], io.BytesIO(files[0]), random_image(20, 20)):
        with pytest.raises(ValueError, match="give one image to predict"):
            next(stream_of(kind, target, image))
    assert len(list(stream_of(kind, target, np.array([path, path])))) == 2


@both
def test_the_first_error_ends_the_stream_in_its_place(kind, target, client, files):
    images = [*files[:5], np.zeros((8, 8, 4)), *files]
    stream = stream_of(kind, target, images, batch_size=1, calls=2)
    assert_same(list(itertools.islice(stream, 5)), client.predict(files[:5]))
    with pytest.raises(ValueError, match="H, W, 3"):
        next(stream)
    assert list(stream) == []


@both
def test_a_stream_that_is_left_sends_no_more(kind, watched, files):
    version, target = watched
    stream = stream_of(kind, target, itertools.cycle(files), batch_size=1, calls=2)
    next(stream)
    stream.close()
    calls = version.calls
    time.sleep(0.2)
    assert version.calls <= calls + 2


@both
def test_unavailable_is_retried_in_a_stream(kind, watched, client, files):
    version, target = watched
    version.refusals = 4
    assert_same(list(stream_of(kind, target, files, batch_size=4)), client.predict(files))


@both
@pytest.mark.parametrize("options", [{"batch_size": 0}, {"calls": 0}])
def test_a_stream_of_nothing_at_a_time_is_refused(kind, target, files, options):
    with pytest.raises(ValueError, match="at least 1"):
        list(stream_of(kind, target, files, **options))


def test_the_methods_of_asyncio_answer_as_the_others(target, client, files):
    async def ask():
        async with AsyncClient(target) as mine:
            await mine.wait_until_ready(10)
            together = await asyncio.gather(mine.predict(files), *(mine.predict(data) for data in files))
            return (
                [*together[0]],
                [prediction for alone in together[1:] for prediction in alone],
                await mine.features(files),
                await mine.classify(files),
                await mine.available_versions(),
                await mine.signatures(),
            )

    together, alone, features, classes, versions, signatures = asyncio.run(ask())
    assert together == client.predict(files)
    assert_same(alone, together)
    np.testing.assert_allclose(features, client.features(files), atol=1e-6)
    assert classes == client.classify(files)
    assert versions == [3]
    assert set(signatures) == {signature.name for signature in contract.EXPORTED}


def test_every_public_method_has_its_twin():
    def methods(owner):
        return {name for name in vars(owner) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"model_name": "resnet"}, "NOT_FOUND"), ({"model_version": 4}, "NOT_FOUND"), ({}, None)],
)
def test_errors_of_asyncio_are_those_of_the_other(target, options, code):
    async def ask():
        async with AsyncClient(target, **options) as mine:
            return await mine.predict(b"x")

    if code is None:
        assert asyncio.run(ask())[0].status != contract.STATUS_OK
        return
    with pytest.raises(ServingError, match="not found") as caught:
        asyncio.run(ask())
    assert caught.value.code.name == code


def test_the_event_loop_goes_on_while_a_server_is_awaited(files):
    async def ask():
        ticks = 0
        with contextlib.suppress(ServingError):
            async with AsyncClient("127.0.0.1:1", timeout_seconds=0.4) as mine:
                call = asyncio.create_task(mine.predict(files[0]))
                while not call.done():
                    await asyncio.sleep(0.01)
                    ticks += 1
                await call
        return ticks

    assert asyncio.run(ask()) > 5
