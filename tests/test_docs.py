"""The code and commands of the README and the guides run as they are, in a folder with the files that they name."""

import contextlib
import io
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time

import pytest

from sqz_keras.weights import download, records

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVER_SECONDS = 60


def python_blocks():
    """The Python blocks of the pages; those that train or import much are large."""
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8"))):
            if match[1] == "python":
                slow = any(name in match[2] for name in ("train_and_evaluate", "keras_hub", "keras_tuner", "shap"))
                marks = [pytest.mark.large] if slow else []
                yield pytest.param(match[2], id=f"{page.name}-{number}", marks=marks)


def commands(page):
    """The commands of a page, but for `make`, whose targets are what runs this test."""
    text = page.read_text("utf-8")
    lines = [line for match in BLOCK.finditer(text) if match[1] == "console" for line in match[2].splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line[2:] for line in lines if not line.startswith("$ make ")]


@pytest.fixture(scope="module")
def folder(test_data, tmp_path_factory):
    """The files that the pages name: photo.jpg (a tench), photos/, PEM files; and pretrained weights in the cache."""
    folder = tmp_path_factory.mktemp("docs")
    samples = sorted((test_data / "images" / "imagenet_sample").iterdir())
    shutil.copy(samples[0], folder / "photo.jpg")
    (folder / "photos").mkdir()
    for path in samples[:4]:
        shutil.copy(path, folder / "photos")
    for name in ("key.pem", "cert.pem"):
        (folder / name).write_text("-----BEGIN-----\nMIIB\n-----END-----\n")
    for name in ("squeezenet1.0_deep_compression", "squeezenet1.1_authors"):
        record = records.get_record(name)
        path = download.cache_path(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next((test_data / "weights").rglob(record.filename)), path)
    return folder


def test_every_fence_is_of_a_known_kind():
    fences = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if line.startswith("```")]
    assert set(fences) == {"```python", "```console", "```"}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_file_map_names_every_room_and_script():
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    for package in ("sqz_keras", "trainers", "export"):
        rooms = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
        assert rooms and [room for room in rooms if f"`{room}/`" not in text] == []
    for folder in ("benchmarks", "experiments"):
        scripts = [path.name for path in (ROOT / folder).glob("*.py")]
        assert scripts and [name for name in scripts if not re.search(f"`({folder}/)?{name}`", text)] == []


@pytest.mark.parametrize("code", list(python_blocks()))
def test_python_blocks(code, folder, monkeypatch):
    """Each block runs, and prints what its comments say: `print(...)  # this`, or lines of `# this` at its end."""
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs", "exec"), {})
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    last_lines = re.search(r"(?:^# .*\n)+\Z", code, re.MULTILINE)
    if last_lines:
        promised += [line.removeprefix("# ") for line in last_lines[0].splitlines()]
    if promised:
        assert printed.getvalue().splitlines() == promised


@pytest.mark.large
def test_commands(folder, free_port):
    """Each distinct command once, in the order of the pages; a server runs until the end."""
    distinct = {line: None for page in PAGES for line in commands(page)}
    assert len(distinct) > 5
    env = os.environ | {"TFDS_DATA_DIR": str(folder / "tfds")}
    with contextlib.ExitStack() as servers:
        for line in distinct:
            name, *arguments = shlex.split(line.replace("8500", free_port))
            if name == "sqz-train":
                arguments.append("--max_steps=2")  # the demo runs it whole
            command = [pathlib.Path(sys.executable).with_name(name), *arguments]
            if name == "sqz-serve":
                server = servers.enter_context(subprocess.Popen(command, cwd=folder))
                servers.callback(server.terminate)
                wait_until_open(int(free_port), server)
                continue
            result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"{line}: {result.stdout}{result.stderr}"


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def wait_until_open(port, server):
    deadline = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail("sqz-serve did not start")
