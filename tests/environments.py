"""Environments with only some of this environment's packages, as links to them."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
BASE = ("numpy", "absl", "PIL")  # what the distribution depends on


def _packages():
    """Every package and its companions (such as numpy.libs) by name, where this process finds it first."""
    found = {}
    for folder in map(pathlib.Path, sys.path):
        if folder.name == "site-packages":
            for path in sorted(folder.iterdir()):
                found.setdefault(path.name, path)
    return found


def _top(name):
    """The name under which an entry of site-packages is imported."""
    return name.split("-")[0].split(".")[0]


def make(folder, only=None, without=()):
    """Fills `folder` with links to the packages in `only`, by default to all, except those in `without`."""
    folder.mkdir()
    for name, path in _packages().items():
        # The wheels of NumPy and Pillow keep their shared libraries in folders beside the packages.
        top = {"pillow": "PIL"}.get(_top(name), _top(name))
        if (only is None or top in only) and top not in without and path.suffix != ".pth":
            (folder / name).symlink_to(path)
    return folder


def run(packages, *arguments, env=None, cwd=None):
    """Runs Python with only the folder of packages and this project on its path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, packages)))} | (env or {})
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=300)
