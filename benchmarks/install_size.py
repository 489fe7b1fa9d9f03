"""Megabytes that the distribution and its extras install, each in a fresh environment.

    python benchmarks/install_size.py [--extras=,tensorflow,jax] [--folder=DIR]

Needs a package index, and disk space for one environment at a time: gigabytes for `tensorflow` and the extras that
build on it. The versions are those of constraints.txt. For `torch`, PyTorch's CPU wheel comes from --torch_index, since
PyPI's wheel brings CUDA on Linux. Counts what the wheels contain, without the byte-code that Python writes later.
Prints a line for each environment, with its largest packages; required: at most 90 MB for the base.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import venv

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

ROOT = pathlib.Path(__file__).parents[1]
REQUIRED_MEGABYTES = 90
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("", "client", "onnxruntime", "litert", "jax", "torch", "openvino", "tensorflow", "train", "serve", "all")
LARGEST = 3


def define_flags() -> None:
    flags.DEFINE_list("extras", list(EXTRAS), "What is measured; nothing between two commas is the base.")
    flags.DEFINE_string("folder", None, "Where the environments are made, one after the other; else a temporary one.")
    flags.DEFINE_string("torch_index", TORCH_INDEX, "Package index that has PyTorch's CPU wheel.")


def main(argv) -> None:
    del argv
    for extra in dict.fromkeys(flags.FLAGS.extras):  # absl reads a lone comma as two empty names
        with tempfile.TemporaryDirectory(dir=flags.FLAGS.folder) as folder:
            sizes = installed_sizes(pathlib.Path(folder), extra)
        total = sum(sizes.values())
        largest = ", ".join(f"{name} {sizes[name]:.0f}" for name in sorted(sizes, key=sizes.get)[: -LARGEST - 1 : -1])
        required = f" (required: at most {REQUIRED_MEGABYTES})" if not extra else ""
        name = f"sqz-keras[{extra}]" if extra else "sqz-keras"
        print(f"{name}: megabytes={total:.0f}{required}; {largest}", flush=True)


def installed_sizes(folder: pathlib.Path, extra: str) -> dict[str, float]:
    """Megabytes that an extra installs into an empty environment, for each entry in site-packages."""
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-compile", "--no-cache-dir"]
    pip.append(f"--constraint={ROOT / 'constraints.txt'}")
    cpu_wheel = []
    if extra == "torch":
        pin = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)[0]
        cpu_wheel = [f"--extra-index-url={flags.FLAGS.torch_index}", f"{pin}+cpu"]
    subprocess.run([*pip, *cpu_wheel, f"{ROOT}[{extra}]" if extra else ROOT], check=True)
    (packages,) = (folder / "environment" / "lib").glob("*/site-packages")
    return {path.name: size(path) / 1e6 for path in packages.iterdir()}


def size(path: pathlib.Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.lstat(pathlib.Path(where, name)).st_size for where, _, names in os.walk(path) for name in names)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
