"""The embedded server under the load of several clients: its capacity, then arrivals at a share of the capacity.

    python benchmarks/serving_load.py --image_dir=imagenet_sample [--model=imagenet] [--clients=8] [--seconds=60]

First, a loop in a process of its own decodes images and runs onnxruntime on all cores, without any server. Then every
client sends images without pause, which gives the capacity. Then images arrive at 70% of the capacity, at random
(Poisson) times that do not depend on the answers; latency is measured from the arrival. Every answer is compared with
the SavedModel's. Required: a capacity of at least 0.8 times the loop's rate, no answers lost or wrong, fewer than 1% of
the requests refused, and p99 at most 4 times p50.
"""

import collections
import contextlib
import io
import multiprocessing
import pathlib
import sys
import threading
import time
from concurrent import futures

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import grpc
import numpy as np
from absl import flags

from benchmarks.serving_server import ask, define_server_flags, read_images, right_answers, serving
from export.client.client import Client, ServingError
from sqz_keras import command

CAPACITY_SECONDS = 15
REQUIRED_SHARE = 0.8  # of the images per second of the loop without a server
AT_ONCE = 16  # calls per client


class Tally:
    """Counts of the results of calls, and their latencies in seconds."""

    def __init__(self, images, answers):
        self._images, self._answers = images, answers
        self.counts, self.seconds, self._lock = collections.Counter(), [], threading.Lock()

    def ask(self, client: Client, number: int, arrival: float) -> None:
        """Sends an image, and counts the result."""
        try:
            result = ask(client, self._images, self._answers, number)
        except ServingError as error:
            result = "refused" if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED else "lost"
        with self._lock:
            self.counts[result] += 1
            self.seconds.append(time.perf_counter() - arrival)


def bare_rate(model: str, images: list[bytes], seconds: float) -> float:
    """Images per second of a loop that decodes and resizes with Pillow and runs onnxruntime with its defaults."""
    from PIL import Image

    from sqz_keras.runtimes.onnx_file import convert
    from sqz_keras.runtimes.run import onnx_runner
    from sqz_keras.weights.resolve import resolve_model

    spec, arrays = resolve_model(model)
    size = spec.input_size
    run = onnx_runner(convert(spec, arrays))

    def answer(data: bytes) -> None:
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        run(np.asarray(image, np.float32)[None])

    answer(images[0])
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        answer(images[count % len(images)])
        count += 1
    return count / (time.perf_counter() - start)


def measure_capacity(clients: list[Client], tally: Tally, seconds: float) -> float:
    """Images per second when every client sends them without pause."""
    end = time.perf_counter() + seconds

    def send_images(first: int) -> None:
        for number in range(first, 1 << 30, len(clients)):
            if time.perf_counter() >= end:
                return
            tally.ask(clients[first], number, time.perf_counter())

    start = time.perf_counter()
    with futures.ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(send_images, first) for first in range(len(clients))]:
            done.result()
    return tally.counts["right"] / (time.perf_counter() - start)


def offer(clients: list[Client], tally: Tally, rate: float, seconds: float) -> int:
    """Sends images that arrive at `rate` per second, and returns their number once all are answered."""
    gaps = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))
    arrivals = time.perf_counter() + 0.1 + np.cumsum(gaps)
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(futures.ThreadPoolExecutor(AT_ONCE)) for _ in clients]
        done = []
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, arrival - time.perf_counter()))
            client = number % len(clients)
            done.append(pools[client].submit(tally.ask, clients[client], number, arrival))
    for call in done:
        call.result()
    return len(arrivals)


def milliseconds(tally: Tally) -> tuple[float, float]:
    """The latency's p50 and p99."""
    return tuple(1e3 * np.quantile(tally.seconds, [0.5, 0.99]))


def define_flags() -> None:
    define_server_flags()
    flags.DEFINE_integer("clients", 8, "How many clients send images.", lower_bound=1)
    flags.DEFINE_float("seconds", 60, "For how long images arrive.", lower_bound=1)
    flags.DEFINE_float("load", 0.7, "Share of the capacity at which they arrive.", lower_bound=0.01)


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    images = read_images(args.image_dir)
    with multiprocessing.get_context("spawn").Pool(1) as process:
        bare = process.apply(bare_rate, (args.model, images, CAPACITY_SECONDS))
    with serving(args.model) as (server, base_path), contextlib.ExitStack() as stack:
        answers = right_answers(base_path / "1", images)
        clients = [stack.enter_context(Client(server.target)) for _ in range(args.clients)]
        for client in clients:
            client.predict(images[0])
        full = Tally(images, answers)
        capacity = measure_capacity(clients, full, CAPACITY_SECONDS)
        print(f"capacity: {capacity:.1f} images/s, {args.clients} clients without a pause: {dict(full.counts)}")
        print("p50 {:.1f} ms, p99 {:.1f} ms".format(*milliseconds(full)))
        print(f"a loop of decoding and onnxruntime: {bare:.1f} images/s")
        print(f"share={capacity / bare:.2f} (required: at least {REQUIRED_SHARE})", flush=True)
        tally = Tally(images, answers)
        sent = offer(clients, tally, args.load * capacity, args.seconds)
    p50, p99 = milliseconds(tally)
    print(f"{sent} arrived at {args.load:.0%} of that in {args.seconds:.0f} s: {dict(tally.counts)}")
    lost = sent - tally.counts["right"] - tally.counts["refused"]
    print(f"lost or wrong: {lost} (required: 0); refused: {tally.counts['refused'] / sent:.2%} (required: below 1%)")
    print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, ratio={p99 / p50:.2f} (required: at most 4)")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
