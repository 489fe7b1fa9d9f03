"""All steps once, on handwritten digits that need no download: train, compress, export, serve, classify.

Runs the project's own commands and prints each one before it runs. The files go into `demo-output/`, which is emptied
first. At the end it prints a short table, and the path of a page that shows the same: `demo-output/index.html`.
"""

from __future__ import annotations

import csv
import html
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import altair as alt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from trainers.reports.page import Section, Table, write_page
from trainers.reports.thumbnails import gallery

OUTPUT = pathlib.Path("demo-output")
WORKDIR, SMALL, TEST_DIGITS = OUTPUT / "train", OUTPUT / "small.sqz", OUTPUT / "test-digits"
BASE_PATH, PORT_FILE, PAGE = OUTPUT / "squeezenet", OUTPUT / "port", OUTPUT / "index.html"
DIGIT = TEST_DIGITS / "7" / "0.png"  # the picture that the server classifies
SERVER_SECONDS = 60


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    save_test_digits(TEST_DIGITS)
    run("sqz-train", "--config=digits", f"--workdir={WORKDIR}", f"--data_dir={OUTPUT / 'tfds'}")
    compress = ("--method=kmeans", "--bits=5", f"--evaluation_dir={TEST_DIGITS}", f"--output={SMALL}")
    run("sqz-compress", f"--model={WORKDIR}", *compress)
    run("sqz-export", f"--model={SMALL}", f"--base_path={BASE_PATH}", "--model_version=1")
    server = start("sqz-serve", f"--base_path={BASE_PATH}", "--port=0", f"--port_file={PORT_FILE}")
    try:
        port = wait_for_port(server)
        prediction = run("sqz-predict", f"--server=127.0.0.1:{port}", f"--image={DIGIT}", "--top=3")
    finally:
        server.terminate()
        server.wait()
    compressed = json.loads(SMALL.with_suffix(".json").read_text())
    rows = measured(prediction, compressed)
    print()
    for name, value in rows.items():
        print(f"{name:<30}{value}")
    write_demo_page(prediction, rows, compressed)
    print(f"\nThe same as a page: {PAGE}")


def run(*command: str) -> str:
    """Prints a command, runs it, shows its output as it appears, and returns the output."""
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


def save_test_digits(folder: pathlib.Path) -> None:
    """Saves the test split, which is every fifth image of a class, as PNG files in one folder per digit."""
    digits = load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for index, pixels in enumerate(digits.images[digits.target == digit][4::5]):
            Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(folder / str(digit) / f"{index}.png")


def measured(prediction: str, compressed: dict) -> dict[str, str]:
    """What was measured, by its name: accuracy, sizes, and the prediction that the server made for the digit."""
    results = json.loads((WORKDIR / "evaluation.json").read_text())
    low, high = results["top1_interval"]
    saved_model = sum(path.stat().st_size for path in (BASE_PATH / "1").rglob("*") if path.is_file())
    return {
        f"result for a picture of a {DIGIT.parent.name}": prediction.splitlines()[1].strip(),
        "top-1 on the test split": f"{results['top1_accuracy']:.1%} of {results['num_images']} images",
        "95% interval": f"{low:.1%} to {high:.1%}",
        "top-1 when compressed": f"{compressed['after']['top1_accuracy']:.1%}",
        "parameters": f"{results['num_params']:,}",
        "training": f"{results['train_seconds']:.0f} s",
        "model.weights.h5": f"{(WORKDIR / 'model.weights.h5').stat().st_size / 1e6:.2f} MB",
        "model.keras": f"{(WORKDIR / 'model.keras').stat().st_size / 1e6:.2f} MB",
        "small.sqz": f"{compressed['bytes'] / 1e6:.2f} MB",
        "SavedModel": f"{saved_model / 1e6:.2f} MB",
    }


def write_demo_page(prediction: str, rows: dict[str, str], compressed: dict) -> None:
    """Writes the page: the digit with the served answer, the training curve, the sizes, the table, and more pages."""
    score, answer = prediction.splitlines()[1].split()
    caption = [("is", DIGIT.parent.name), ("served answer", answer), ("at", score)]
    digit = gallery([(np.asarray(Image.open(DIGIT))[..., None], f"a handwritten {DIGIT.parent.name}", caption)])
    links = "".join(
        f'<li><a href="{html.escape(path.relative_to(OUTPUT).as_posix())}">{text}</a></li>'
        for path, text in (
            (WORKDIR / "report.html", "Training: curves, confusions, the worst mistakes"),
            (SMALL.with_suffix(".html"), "Compression: bytes by layer, weights and their centroids"),
        )
    )
    sections = [
        Section("The answer of the server", html=digit),
        Section("Training", chart=training_curve(), note="Top-1 on the validation split, after each 100 updates."),
        Section("Sizes", chart=size_bars(compressed), note="The weights as float32, and after sqz-compress."),
        Section("What was measured", table=Table(("what", "value"), list(rows.items()))),
        Section("More", html=f"<ul>{links}</ul>"),
    ]
    write_page(PAGE, "SqueezeNet on handwritten digits", sections)


def training_curve() -> alt.LayerChart:
    with open(WORKDIR / "metrics.csv", encoding="utf-8", newline="") as file:
        points = [
            {"update": int(row["step"]), "top-1": float(row["validation_top1_accuracy"])}
            for row in csv.DictReader(file)
        ]
    base = alt.Chart(alt.Data(values=points)).encode(
        alt.X("update:Q", axis=alt.Axis(grid=False, format=",d")),
        alt.Y("top-1:Q", title="top-1", axis=alt.Axis(format="~%"), scale=alt.Scale(domain=[0, 1])),
        tooltip=[alt.Tooltip("update:Q", format=","), alt.Tooltip("top-1:Q", format=".1%")],
    )
    return (base.mark_line() + base.mark_point(filled=True)).properties(width="container", height=220)


def size_bars(compressed: dict) -> alt.LayerChart:
    sizes = {"before: float32": compressed["float32_bytes"], "after: small.sqz": compressed["bytes"]}
    rows = [{"file": name, "bytes": size} for name, size in sizes.items()]
    room = alt.Scale(domain=[0, 1.15 * compressed["float32_bytes"]])  # for the number beside the longer bar
    base = alt.Chart(alt.Data(values=rows)).encode(
        alt.Y("file:N", sort=None, title=None), alt.X("bytes:Q", axis=alt.Axis(format="~s", tickCount=6), scale=room)
    )
    labels = base.mark_text(align="left", dx=6).encode(text=alt.Text("bytes:Q", format=","))
    return (base.mark_bar() + labels).properties(width="container", height=90)


if __name__ == "__main__":
    main()
