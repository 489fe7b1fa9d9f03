"""The pictures of the README: the drawing of the network, and what the commands show, in headless Chromium.

    make screenshots

The reports of the training and the compression are those of `make demo`. Everything else is made by the project's own
commands in `.build/screenshots/`. The networks of the sweep and the exported version in that folder are used again:
remove the folder to start afresh. The pictures go into `docs/images/`. It needs Chromium, and takes 8 minutes on 2
cores. The picture of a tower comes with scikit-learn; the weights are downloaded if they are not in Keras's folder.
"""

from __future__ import annotations

import base64
import contextlib
import io
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import altair as alt
import sklearn.datasets
from PIL import Image

from benchmarks.report_speed import DRAWN
from sqz_keras.architecture.drawing import draw_svg
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.files import write_file
from tests.browser import Browser, Tab
from trainers.reports.page import save_chart

ROOT = pathlib.Path(__file__).parents[1]
IMAGES, WORK, DEMO = ROOT / "docs" / "images", ROOT / ".build" / "screenshots", ROOT / "demo-output"
PHOTO = pathlib.Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
WIDTH, HEIGHT = 1000, 640  # of the part of a page that is shown
MOST_BYTES = 150_000


def main() -> None:
    program = shutil.which("chromium")
    if program is None:
        raise ValueError("chromium must be on the PATH.")
    if not (DEMO / "index.html").exists():
        raise ValueError("The reports of `make demo` are shown: run it first.")
    for folder in (IMAGES, WORK):
        folder.mkdir(parents=True, exist_ok=True)
    save("network.svg", draw_svg(ModelSpec().with_net("1.0", "simple")).encode())
    explain()
    update()
    search()
    with tempfile.TemporaryDirectory() as profile, contextlib.closing(Browser(program, profile)) as browser:
        show_report(browser, "train.png", DEMO / "train" / "report.html", "Loss")
        show_report(browser, "compress.png", DEMO / "small.html", "Bytes by layer")
        show_report(browser, "sweep.png", WORK / "sweep" / "report.html", "Accuracy and cost")
        serve(browser)


def run(name: str, *arguments: str) -> None:
    """Prints one of the project's commands and runs it."""
    print(f"$ {shlex.join((name, *arguments))}", flush=True)
    subprocess.run([pathlib.Path(sys.executable).with_name(name), *arguments], cwd=WORK, check=True)


def explain() -> None:
    """Where the network sees the class."""
    run("sqz-classify", str(PHOTO), "--version=1.1", "--explain=map.png")
    save("classify.jpg", as_jpeg(Image.open(WORK / "map.png")))


def update() -> None:
    """The bytes of a whole file and of an update of it."""
    run("sqz-compress", "--method=kmeans", "--bits=6", "--output=small.sqz")
    run("sqz-compress", "--method=kmeans", "--bits=6,conv10=5", "--base=small.sqz", "--output=update.sqz")
    files = {"the whole file": "small.sqz", "the update": "update.sqz"}
    rows = [{"file": text, "bytes": (WORK / name).stat().st_size} for text, name in files.items()]
    base = alt.Chart(alt.Data(values=rows)).encode(
        alt.Y("file:N", sort=None, title=None),
        alt.X("bytes:Q", axis=alt.Axis(format="~s", tickCount=5), scale=alt.Scale(domain=[0, 450_000])),
    )
    labels = base.mark_text(align="left", dx=6).encode(text=alt.Text("bytes:Q", format=","))
    save_chart((base.mark_bar() + labels).properties(width=420, height=90), IMAGES / "update.svg")


def search() -> None:
    """A short sweep over the values of the paper's Figure 3; one that was stopped, and has a report, is resumed."""
    short = ("--max_steps=300", "--eval_every_steps=300", "--warmup_steps=50", f"--data_dir={DEMO / 'tfds'}")
    run("sqz-sweep", "--space=squeeze_ratio", "--sampler=grid", "--workdir=sweep", *short)


def show_report(browser: Browser, name: str, page: pathlib.Path, title: str) -> None:
    """Saves a picture of part of a report, from a section's heading on."""
    tab = browser.open(page.as_uri(), WIDTH, HEIGHT)
    tab.wait(DRAWN)
    tab.run(f"[...document.querySelectorAll('h2')].find(h => h.textContent === '{title}').scrollIntoView()")
    save(name, as_png(shown(tab)))


def serve(browser: Browser) -> None:
    """Saves a picture of a server's page, once the server has answered and the page shows where it looked."""
    if not (WORK / "served" / "1").exists():
        run("sqz-export", "--version=1.1", "--base_path=served", "--model_version=1")
    script = pathlib.Path(sys.executable).with_name("sqz-serve")
    command = [script, "--base_path=served", "--embedded", "--port=0", "--web", "--web_port=0"]
    server = subprocess.Popen(command, cwd=WORK, stdout=subprocess.PIPE, text=True)
    try:
        url = next(line.split()[-1] for line in server.stdout if line.startswith("Page at "))
        tab = browser.open(url, WIDTH, HEIGHT)
        tab.wait("!document.getElementById('card').hidden")
        tab.choose(PHOTO)
        tab.wait("!document.getElementById('seen').hidden")
        save("serve.jpg", as_jpeg(shown(tab)))
    finally:
        server.terminate()
        server.wait()


def shown(tab: Tab) -> Image.Image:
    """What a person sees of a page without scrolling."""
    tab.run("document.documentElement.style.scrollbarWidth = 'none'")
    data = tab.call("Page.captureScreenshot", format="png")["data"]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def as_png(image: Image.Image) -> bytes:
    """For text and charts: 128 colours are enough."""
    data = io.BytesIO()
    image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


def as_jpeg(image: Image.Image) -> bytes:
    """For images with many colours."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=85, optimize=True)
    return data.getvalue()


def save(name: str, data: bytes) -> None:
    """Writes a picture, and refuses one that is too large for a README."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"{name} has {len(data):,} bytes, and may have {MOST_BYTES:,}.")
    write_file(IMAGES / name, data)
    print(f"docs/images/{name}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
