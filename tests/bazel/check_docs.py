"""The workspace of docs/bazel.md, outside this one, builds the same as //export:example; `make bazel` runs this."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "bazel-bin" / "export" / "example"
SHOWN = re.compile(r"`(WORKSPACE|BUILD)`:\n\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "sqz-keras").symlink_to(ROOT)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    shown = dict(SHOWN.findall((ROOT / "docs" / "bazel.md").read_text("utf-8")))
    assert set(shown) == {"WORKSPACE", "BUILD"}
    for name, text in shown.items():
        (workspace / name).write_text(text, "utf-8")
    (workspace / "model.sqz").write_bytes((ROOT / "bazel-bin" / "tests" / "bazel" / "random.sqz").read_bytes())
    (workspace / "trees.txt").write_bytes((ROOT / "tests" / "bazel" / "trees.txt").read_bytes())
    (workspace / ".venv").symlink_to(ROOT / ".venv")
    return workspace


@pytest.fixture
def bazel(workspace, tmp_path):
    def run(*arguments):
        command = ["bazel", f"--output_base={tmp_path / 'output'}", *arguments]
        result = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr

    yield run
    run("shutdown")


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_page_builds_the_same_bytes_in_another_workspace(bazel, workspace):
    bazel("build", "//:all")
    built, example = files(workspace / "bazel-bin" / "trees"), files(EXAMPLE)
    assert "3/saved_model.pb" in built
    assert [name for name in built.keys() | example.keys() if built.get(name) != example.get(name)] == []
    assert (workspace / "bazel-bin" / "layer.tar").is_file()
    assert 'base_path: "/models/trees"' in (workspace / "bazel-bin" / "config" / "models.config").read_text()
