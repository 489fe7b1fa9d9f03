"""The code and commands of the README and the guides run as they are, in a folder with the files that they name."""

import contextlib
import importlib
import importlib.metadata
import io
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from sqz_keras.architecture.drawing import draw_svg
from sqz_keras.architecture.spec import ModelSpec

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A row of the README's table of what to do: its second cell holds one or several commands.
ROW = re.compile(r"^\| \*\*\w+\*\* .*? \| (.*?) \| <img ", re.MULTILINE)
SERVER_SECONDS = 60
MODULES = {script.name: script.module for script in importlib.metadata.distribution("sqz-keras").entry_points}


def python_blocks():
    """The Python blocks of the pages; blocks that train or import much are marked large."""
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text("utf-8"))):
            if match[1] == "python":
                slow = any(name in match[2] for name in ("train_and_evaluate", "keras_hub", "keras_tuner", "shap"))
                marks = [pytest.mark.large] if slow else []
                yield pytest.param(match[2], id=f"{page.name}-{number}", marks=marks)


def commands(page):
    """The commands of a page, except `make`, whose targets run this test."""
    text = page.read_text("utf-8")
    found = []
    for match in sorted((*BLOCK.finditer(text), *ROW.finditer(text)), key=re.Match.start):
        if match.re is ROW:
            found += [f"$ {command}" for command in re.findall(r"`(.+?)`", match[1])]
        elif match[1] == "console":
            found += match[2].splitlines()
    assert all(line.startswith("$ ") for line in found)
    return [line[2:] for line in found if not line.startswith("$ make ")]


@pytest.fixture(scope="module")
def folder(test_data, cached_weights, tmp_path_factory):
    """The files that the pages name: photo.jpg (a tench), photos/, PEM files."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(min((test_data / "images" / "imagenet_sample").iterdir()), folder / "photo.jpg")
    for wnid in ("n01440764", "n02102040"):
        (folder / "photos" / wnid).mkdir(parents=True)
        for path in sorted((test_data / "images" / "imagenette" / "val" / wnid).iterdir())[:5]:
            shutil.copy(path, folder / "photos" / wnid)
    for name in ("key.pem", "cert.pem"):
        (folder / name).write_text("-----BEGIN-----\nMIIB\n-----END-----\n")
    return folder


def test_every_fence_is_of_a_known_kind():
    fences = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if line.startswith("```")]
    assert set(fences) == {"```python", "```console", "```"}


def test_formulas_are_rendered_as_they_are_written():
    """Outside of code, no `*` becomes emphasis by accident, and no minus at the start of a line becomes a bullet."""
    markdown = pytest.importorskip("markdown", reason="needs the extra `docs`")
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        html = markdown.markdown(page.read_text("utf-8"), extensions=["tables", "pymdownx.superfences"])
        html = re.sub(r"<(pre|code)\b.*?</\1>", "", html, flags=re.DOTALL)
        emphasised = "".join(match[2] for match in re.finditer(r"<(em|strong)>(.*?)</\1>", html, re.DOTALL))
        damage = re.findall(r"[*=+/|<>^()]", emphasised) + re.findall(r"\*|\n- |<li>\s*\d", html)
        assert damage == [], page.name


def test_no_page_has_the_marks_of_a_merge():
    marks = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
    assert [page.name for page in PAGES if marks.search(page.read_text("utf-8"))] == []


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text("utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text) + re.findall(r'src="([^"]+)"', text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_short_and_its_pictures_small():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert len(ROW.findall(text)) == 6
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert pictures and [path.name for path in pictures if f"docs/images/{path.name}" not in text] == []
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []


def test_the_drawing_in_the_readme_is_that_of_the_network():
    drawing = draw_svg(ModelSpec().with_net("1.0", "simple"))
    assert (ROOT / "docs" / "images" / "network.svg").read_text("utf-8") == drawing


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
def test_commands(folder, free_port, run_command, monkeypatch):
    """Each distinct command once, in the order of the pages, in this process; a server runs until the end."""
    guides = [page for page in PAGES if page.parent.name != "tutorials"]  # for these see test_tutorials.py
    distinct = {line: None for page in guides for line in commands(page)}
    assert len(distinct) > 5
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "tfds"))
    monkeypatch.chdir(folder)
    with contextlib.ExitStack() as servers:
        for line in distinct:
            name, *arguments = shlex.split(line.replace("8500", free_port))
            if name == "sqz-sweep" and "--max_steps=2" not in arguments:
                arguments.append("--dry_run")
            if name == "sqz-train":  # the demo runs it whole
                arguments.append("--dry_run" if "--image_dir=photos" in arguments else "--max_steps=2")
            if name == "sqz-serve":
                ports = ["--port_file=port", *(["--port=0", "--web_port=0"] if "--web" in arguments else [])]
                command = [pathlib.Path(sys.executable).with_name(name), *arguments, *ports]
                server = servers.enter_context(subprocess.Popen(command, cwd=folder))
                servers.callback(server.terminate)
                wait_until_there(folder / "port", server)
                continue
            if name == "python":
                _, name, *arguments = arguments  # python -m MODULE
            assert not run_command(importlib.import_module(MODULES.get(name, name)), *arguments), line


def wait_until_there(path, server):
    """Waits for the file of a server's port, and removes it."""
    deadline = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if path.exists():
            path.unlink()
            return
        time.sleep(0.1)
    pytest.fail("sqz-serve did not start")
