"""Each tutorial runs in a folder of its own, command by command, and the commands print what the page shows."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TUTORIALS = {path.stem: path for path in sorted((ROOT / "docs" / "tutorials").glob("*.md"))}
STEP = re.compile(r"^```console\n\$ (.*?)\n```\n(?:\n```\n(.*?\n)```$)?", re.MULTILINE | re.DOTALL)
# Tutorials whose numbers depend on what the network learned, or on the pictures with which it was quantised.
NUMBERS_VARY = {"own-pictures", "smaller"}
# Less work than on the page.
IN_TESTS = {"--method=quantize": "--calibration_images=32"}
SERVER_SECONDS = 60


@pytest.fixture
def folder(test_data, cached_weights, tmp_path):
    """The pictures that the tutorials name, and the pretrained weights in the cache."""
    images = test_data / "images"
    shutil.copy(min((images / "imagenet_sample").iterdir()), tmp_path / "photo.jpg")
    for kind in ("accordion", "elephant", "sunflower"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        *paths, last = sorted((images / "caltech101" / kind).iterdir())
        for path in paths[:40]:
            shutil.copy(path, tmp_path / "photos" / kind)
        if kind == "elephant":
            (tmp_path / "new").mkdir()
            shutil.copy(last, tmp_path / "new" / "elephant.jpg")
    (tmp_path / "pictures").mkdir()
    for path in sorted((images / "imagenette" / "val").glob("*/*"))[::10][:100]:
        shutil.copy(path, tmp_path / "pictures")
    return tmp_path


@pytest.mark.large
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name, folder, free_port):
    text = TUTORIALS[name].read_text("utf-8").replace("8500", free_port)
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # as users have it
    steps = STEP.findall(text)
    assert len(steps) == text.count("```console") > 1
    with contextlib.ExitStack() as servers:
        for line, expected in steps:
            words = shlex.split(line)
            command = [pathlib.Path(sys.executable).with_name(words[0]), *words[1:]]
            command += [flag for word, flag in IN_TESTS.items() if word in words]
            output = folder / "output.txt"
            with output.open("w") as file:
                process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=env)
            if words[0] == "sqz-serve":
                servers.callback(process.wait)
                servers.callback(process.terminate)
                deadline = time.monotonic() + SERVER_SECONDS
                while not output.read_text("utf-8") and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
            else:
                assert process.wait() == 0, output.read_text("utf-8")
            check(expected, output.read_text("utf-8"), name in NUMBERS_VARY)


def check(expected, printed, numbers_vary):
    """A line `...` stands for any number of lines."""
    if numbers_vary:
        expected, printed = (re.sub(r"\d[\d,.]*", "#", text) for text in (expected, printed))
    pattern = "".join(r"(?:.*\n)*?" if line == "...\n" else re.escape(line) for line in expected.splitlines(True))
    assert not expected or re.fullmatch(pattern, printed), f"expected:\n{expected}\nprinted:\n{printed}"


def test_a_line_that_was_not_printed_is_found():
    check("one 1\n...\nlast\n", "one 1\ntwo\nlast\n", numbers_vary=False)
    check("one 12.5\n", "one 3\n", numbers_vary=True)
    for expected, printed in (("one 1\n", "one 2\n"), ("one\n...\n", "two\n"), ("one\n", "one\ntwo\n")):
        with pytest.raises(AssertionError):
            check(expected, printed, numbers_vary=False)
