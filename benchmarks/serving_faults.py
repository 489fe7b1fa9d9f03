"""What the embedded server does when it is killed, gets malformed requests, or gets a version that cannot be loaded.

    python benchmarks/serving_faults.py --image_dir=imagenet_sample [--model=imagenet] [--requests=10000] [--kills=3]

The server runs in a process of its own, and four clients send it images at the same time. Required: after every SIGKILL
and restart, no answer is lost or wrong; every malformed request gets the right status code; after all malformed
requests, the server's memory (measured on Linux only) is at most 100 MB higher than after a tenth of them; and a broken
version changes nothing.
"""

import collections
import contextlib
import itertools
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import grpc
import numpy as np
from absl import flags
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2

from benchmarks import serving_malformed
from benchmarks.serving_server import Server, ask, define_server_flags, read_images, right_answers, serving
from export import contract
from export.client.client import Client, ServingError
from sqz_keras import command

CLIENTS = 4


class Questions:
    """Clients that send images without pause, and compare every answer with the right one."""

    def __init__(self, target: str, images, answers):
        self._target, self._images, self._answers = target, images, answers
        self.counts, self._lock, self._ended = collections.Counter(), threading.Lock(), threading.Event()

    def _ask(self, first: int) -> None:
        with Client(self._target, timeout_seconds=60) as client:
            for number in itertools.count(first, CLIENTS):
                if self._ended.is_set():
                    return
                try:
                    result = ask(client, self._images, self._answers, number)
                except ServingError as error:
                    result = error.code.name
                with self._lock:
                    self.counts[result] += 1

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sends images while the block runs."""
        with futures.ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._ask, first) for first in range(CLIENTS)]
            try:
                yield
            finally:
                self._ended.set()
            for client in clients:
                client.result()

    def wait_for(self, more: int) -> None:
        """Returns after `more` additional right answers."""
        required = self.counts["right"] + more
        deadline = time.monotonic() + 120
        while self.counts["right"] < required:
            if time.monotonic() > deadline:
                raise TimeoutError(f"No answers any more: {dict(self.counts)}")
            time.sleep(0.02)


def kill_and_restart(server: Server, questions: Questions, kills: int) -> None:
    """Kills the server under load and starts it again, `kills` times."""
    with questions.running():
        for _ in range(kills):
            questions.wait_for(20)
            server.kill()
            server.start()
        questions.wait_for(20)


def send_malformed(server: Server, images, count: int) -> tuple[collections.Counter, int]:
    """Sends malformed requests.

    Returns:
        Counts of the wrong answers, and how much the server's memory grew after the first tenth of the requests, in
        bytes.
    """
    make, mistakes, lock = serving_malformed.makers(images), collections.Counter(), threading.Lock()
    with (
        grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel,
        futures.ThreadPoolExecutor(CLIENTS) as pool,
    ):
        calls = {name: _raw_call(channel, name) for name in ("Predict", "Classify")}

        def send(number: int) -> None:
            kind = number % len(make)
            case = make[kind](np.random.default_rng(number))
            wrong = send_case(calls[case.call], case)
            if wrong is not None:
                with lock:
                    mistakes[f"kind {kind}: expected {case.code} {case.status or ''}, got {wrong}"] += 1

        list(pool.map(send, range(count // 10)))
        after_a_tenth = server.resident_bytes()
        list(pool.map(send, range(count // 10, count)))
        return mistakes, server.resident_bytes() - after_a_tenth


def _raw_call(channel: grpc.Channel, name: str):
    return channel.unary_unary(
        f"/tensorflow.serving.PredictionService/{name}",
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
    )


def send_case(call, case: serving_malformed.Case) -> str | None:
    """Sends one case, and returns the answer if it is not the expected one, else None."""
    try:
        answer, code, details = call(case.request, timeout=60), "OK", ""
    except grpc.RpcError as error:
        answer, code, details = b"", error.code().name, error.details()
    if code != case.code or (code != "OK" and not details):
        return f"{code} {details:.100}"
    if code == "OK" and case.status is not None:
        status = predict_pb2.PredictResponse.FromString(answer).outputs[contract.STATUS.name].string_val[0].decode()
        return None if status == case.status else status
    return None


def offer_broken_version(server: Server, base_path, questions: Questions) -> str:
    """Adds a version that is not a SavedModel, under load, and returns its error message from GetModelStatus."""
    hidden = base_path / ".broken"
    shutil.copytree(base_path / "1", hidden)
    (hidden / "saved_model.pb").write_bytes(b"\xff\xff garbage")
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = contract.MODEL_NAME
    with questions.running(), grpc.insecure_channel(server.target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        questions.wait_for(20)
        hidden.rename(base_path / "2")
        while True:
            newest = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request).model_version_status[0]
            if newest.version == 2 and newest.state == newest.END:
                break
            time.sleep(0.02)
        questions.wait_for(20)
    return newest.status.error_message


def define_flags() -> None:
    define_server_flags()
    flags.DEFINE_integer("requests", 10_000, "How many malformed requests are sent.", lower_bound=1)
    flags.DEFINE_integer("kills", 3, "How often the server is killed.", lower_bound=1)
    flags.DEFINE_enum("part", None, ["kills", "malformed", "version"], "Run this part alone.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    images = read_images(args.image_dir)
    with serving(args.model) as (server, base_path):
        answers = right_answers(base_path / "1", images)
        if args.part in ("kills", None):
            questions = Questions(server.target, images, answers)
            kill_and_restart(server, questions, args.kills)
            print(f"{args.kills} times killed and started again: {dict(questions.counts)} (required: only right)")
        if args.part in ("malformed", None):
            start = time.perf_counter()
            wrong, growth = send_malformed(server, images, args.requests)
            took = f"{args.requests} malformed requests in {time.perf_counter() - start:.0f} s"
            print(f"{took}, wrongly answered: {dict(wrong)} (required: none)")
            print(f"memory after a tenth of them and after all: {growth / 1e6:+.1f} MB (required: at most +100)")
        if args.part in ("version", None):
            questions = Questions(server.target, images, answers)
            error = offer_broken_version(server, base_path, questions)
            print(f"beside a version that cannot be loaded: {dict(questions.counts)} (required: only right)")
            print(f"its error in GetModelStatus: {error:.200}")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
