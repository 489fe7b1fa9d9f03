"""All steps once, on handwritten digits that need no download: train, export, serve, classify.

Runs the project's own commands and prints each one before it runs. The files go into `demo-output/`, which is emptied
first. At the end it prints a short table.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

OUTPUT = pathlib.Path("demo-output")
WORKDIR, BASE_PATH, PORT_FILE, IMAGE = (OUTPUT / name for name in ("train", "squeezenet", "port", "digit.png"))
SERVER_SECONDS = 60


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    run("sqz-train", "--config=digits", f"--workdir={WORKDIR}", f"--data_dir={OUTPUT / 'tfds'}")
    run("sqz-export", f"--model={WORKDIR}", f"--base_path={BASE_PATH}", "--model_version=1")
    digit = save_test_digit(IMAGE)
    server = start("sqz-serve", f"--base_path={BASE_PATH}", "--port=0", f"--port_file={PORT_FILE}")
    try:
        port = wait_for_port(server)
        prediction = run("sqz-predict", f"--server=127.0.0.1:{port}", f"--image={IMAGE}", "--top=3")
    finally:
        server.terminate()
        server.wait()
    print_table(prediction, digit)


def run(*command: str) -> str:
    """Prints a command, runs it, shows what it prints, and returns that."""
    process = start(*command, stdout=subprocess.PIPE)
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait():
        sys.exit(f"{command[0]} failed with exit status {process.returncode}")
    return "".join(lines)


def start(name: str, *arguments: str, **options) -> subprocess.Popen:
    print(f"\n$ {shlex.join((name, *arguments))}", flush=True)
    script = pathlib.Path(sys.executable).with_name(name)
    return subprocess.Popen([script, *arguments], text=True, **options)


def wait_for_port(server: subprocess.Popen) -> int:
    deadline = time.monotonic() + SERVER_SECONDS
    while not PORT_FILE.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("sqz-serve did not start")
        time.sleep(0.1)
    return int(PORT_FILE.read_text())


def save_test_digit(path: pathlib.Path) -> int:
    """Saves an image of the test split (every fifth of a class) as a PNG, and returns the digit that it shows."""
    digits = load_digits()
    digit = 7
    pixels = digits.images[digits.target == digit][4]
    Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(path)
    return digit


def print_table(prediction: str, digit: int) -> None:
    """Prints what was measured: accuracy, size, and the prediction that the server made for the digit."""
    results = json.loads((WORKDIR / "evaluation.json").read_text())
    low, high = results["top1_interval"]
    saved_model = sum(path.stat().st_size for path in (BASE_PATH / "1").rglob("*") if path.is_file())
    rows = {
        f"result for a picture of a {digit}": prediction.splitlines()[1].strip(),
        "top-1 on the test split": f"{results['top1_accuracy']:.1%} of {results['num_images']} images",
        "95% interval": f"{low:.1%} to {high:.1%}",
        "parameters": f"{results['num_params']:,}",
        "training": f"{results['train_seconds']:.0f} s",
        "model.weights.h5": f"{(WORKDIR / 'model.weights.h5').stat().st_size / 1e6:.2f} MB",
        "model.keras": f"{(WORKDIR / 'model.keras').stat().st_size / 1e6:.2f} MB",
        "SavedModel": f"{saved_model / 1e6:.2f} MB",
    }
    print()
    for name, value in rows.items():
        print(f"{name:<30}{value}")


if __name__ == "__main__":
    main()
