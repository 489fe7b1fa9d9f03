"""Milliseconds per image of the served model and of other ways to run the same net, on the same images.

    python benchmarks/serving_speed.py --image_dir=DIR [--model=imagenet] [--base_path=DIR] [--seconds=40]

All take images of the network's size, float32 RGB in 0..255, and give probabilities. Each runs in a process of its own
with its own threads. Prints medians for calls of 1, 8 and 32 images, made in turn in one run, and `ratio=` to
onnxruntime with the required ratio, and how often a runtime's top class is onnxruntime's. PyTorch is measured if it is
installed. --base_path keeps the exports for the next run on the same model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from benchmarks.serving_sides import BFLOAT16, IMAGES, MODEL, REFERENCE, SAVED, SERVED, SIDES, TARGET, Side
from sqz_keras import command

BATCHES = (1, 8, 32)
# Largest ratio to onnxruntime's time, for each of BATCHES. The ratios for bfloat16 apply to processors with AMX.
REQUIRED_RATIOS = {SAVED: (1.6, 1.1, 1.0), BFLOAT16: (0.9, 0.45, 0.4)}
REQUIRED_GRPC_MILLISECONDS = 1.5  # per image, in addition to the SavedModel's own call
REQUIRED_AGREEMENT = {SAVED: 1.0, BFLOAT16: 0.985}


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_integer("images", 200, "At most so many of them.", lower_bound=max(BATCHES))
    flags.DEFINE_string("base_path", None, "Folder for the exported versions; a temporary one where it is left out.")
    flags.DEFINE_float("seconds", 40, "For each batch size.", lower_bound=1)


def main(argv) -> None:
    del argv
    from benchmarks.serving_server import Server

    args = flags.FLAGS
    name, features = processor()
    print(f"processor: {name}, {os.cpu_count()} cores, {', '.join(features) or 'no AVX-512, no AMX'}", flush=True)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as running:
        folder = pathlib.Path(args.base_path or scratch)
        count = write_inputs(args, folder)
        server = Server(folder / "float32", scratch)
        running.callback(server.stop)
        (folder / TARGET).write_text(server.target)
        names = [name for name in SIDES if name != "PyTorch" or importlib.util.find_spec("torch")]
        sides = {}
        for name in names:
            sides[name] = Side(name, folder)
            running.callback(sides[name].stop)
        report_agreement(sides, count)
        for batch in BATCHES:
            milliseconds = in_turn({name: side.seconds for name, side in sides.items()}, batch, args.seconds)
            report_speed(milliseconds, batch, checked={SAVED} | ({BFLOAT16} if "AMX" in features else set()))


def write_inputs(args, folder: pathlib.Path) -> int:
    """Writes what the sides read, and returns the number of images.

    Raises:
        ValueError: There are too few images, or `folder` holds the exports of another model.
    """
    from export import contract
    from export.formats.saved_model import export_saved_model
    from export.formats.single_file import read_images
    from export.versions import list_versions
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model

    folder.mkdir(parents=True, exist_ok=True)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    # Resizing may round up to 255.00002, which the client refuses.
    images = read_images(find_enough_images(args.image_dir, args.images), spec).clip(0, 255)
    resize = dataclasses.replace(spec.preprocessing, resize_to=spec.input_size)
    spec = dataclasses.replace(spec, preprocessing=resize)
    model = sqz.encode(spec, arrays)
    if (folder / MODEL).exists() and (folder / MODEL).read_bytes() != model:
        raise ValueError(f"--base_path={folder} holds the exports of another model; choose another folder.")
    np.save(folder / IMAGES, images)
    (folder / MODEL).write_bytes(model)
    for precision in contract.PRECISIONS:
        if not list_versions(folder / precision):
            export_saved_model(spec, arrays, folder / precision, 1, precision=precision)
    return len(images)


def find_enough_images(image_dir: str, at_most: int) -> list[pathlib.Path]:
    """The images of a folder, as `find_images` gives them.

    Raises:
        ValueError: There are too few to fill the largest batch.
    """
    from sqz_keras.images.files import find_images

    paths = find_images(image_dir, at_most)
    if len(paths) < max(BATCHES):
        raise ValueError(f"--image_dir={image_dir} must hold at least {max(BATCHES)} images, got {len(paths)}.")
    return paths


def processor() -> tuple[str, list[str]]:
    """The processor's name, and which of AVX-512 and AMX it has, according to Linux."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    values = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    has = values.get("flags", "").split()
    features = [feature for feature, flag in (("AVX-512", "avx512f"), ("AMX", "amx_bf16")) if flag in has]
    family = f"family {values.get('cpu family')}, model {values.get('model')}"
    return f"{values.get('model name', platform.machine())} ({family})", features


def in_turn(sides: Mapping[str, Callable[[int], float]], batch: int, seconds: float) -> dict[str, float]:
    """Calls the functions in turn, and returns each one's median milliseconds per image.

    A function takes a number of images, and returns the seconds that a call with that many takes.
    """
    taken = {name: [] for name in sides}
    for run in sides.values():
        run(batch)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or min(map(len, taken.values())) < 3:
        for name, run in sides.items():
            taken[name].append(1000 * run(batch) / batch)
    return {name: statistics.median(times) for name, times in taken.items()}


def report_agreement(sides: Mapping[str, Side], count: int) -> None:
    reference = None
    for name, side in sides.items():
        parts = [side.probabilities(at, at + 32) for at in range(0, count, 32)]
        classes = np.concatenate([np.argmax(part, axis=-1) for part in parts])
        reference = classes if reference is None else reference  # onnxruntime is the first
        share, least = float((classes == reference).mean()), REQUIRED_AGREEMENT.get(name)
        required = requirement(f"at least {least:.1%}", share >= least) if least else ""
        print(f"{name}: top-1 as {REFERENCE} on {share:.1%} of {count}{required}", flush=True)


def report_speed(milliseconds: Mapping[str, float], batch: int, checked: set[str]) -> None:
    for name, median in milliseconds.items():
        ratio, required = median / milliseconds[REFERENCE], ""
        if name in checked:
            most = REQUIRED_RATIOS[name][BATCHES.index(batch)]
            required = requirement(f"at most {most:g}", ratio <= most)
        print(f"batch {batch}, {name}: {median:.2f} ms an image, ratio={ratio:.2f}{required}")
    more = milliseconds[SERVED] - milliseconds[SAVED]
    required = requirement(f"at most {REQUIRED_GRPC_MILLISECONDS:g}", more <= REQUIRED_GRPC_MILLISECONDS)
    print(f"batch {batch}, gRPC over the bare call: {more:.2f} ms an image{required}", flush=True)


def requirement(text: str, holds: bool) -> str:
    """What is required of a measurement, marked if it does not hold."""
    return f" (required: {text}{'' if holds else ', FAILED'})"


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
