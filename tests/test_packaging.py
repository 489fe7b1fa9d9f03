"""The wheel, the sdist and the pins: what a user installs is whole, and nothing else is in it."""

import configparser
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "sqz_keras" / "version.py").read_text("utf-8"), re.MULTILINE)[1]
COMMANDS = {
    "sqz-classify",
    "sqz-inspect",
    "sqz-receive",
    "sqz-summary",
    "sqz-evaluate",
    "sqz-prepare-imagenet",
    "sqz-train",
    "sqz-compress",
    "sqz-sweep",
    "sqz-export",
    "sqz-serve",
    "sqz-predict",
}
PLATFORMS = [("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64")]


def _run(*command: str | Path, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory) -> Path:
    """A folder with the sdist, and with the wheel built from that sdist, as an installer without wheels would."""
    source = tmp_path_factory.mktemp("packaging") / "source"
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "demo-output", "bazel-*")
    shutil.copytree(ROOT, source, ignore=unwanted)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source.parent / "dist", source)
    return source.parent / "dist"


@pytest.fixture(scope="session")
def wheel(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="session")
def metadata(wheel) -> Message:
    return Parser().parsestr(wheel.read(_dist_info(wheel, "METADATA")).decode())


def _dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    return f"sqz_keras-{VERSION}.dist-info/{name}"


def test_wheel_holds_the_three_packages_whole_and_nothing_else(wheel):
    names = set(wheel.namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("sqz_keras", "trainers", "export")
        for path in (ROOT / package).rglob("*.py")
    }
    assert sources and sources <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"sqz_keras", "trainers", "export", _dist_info(wheel, "").rstrip("/")}


def test_sdist_holds_no_tests_benchmarks_or_examples(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "sqz_keras/py.typed"} <= set(names)
    assert not [name for name in names if name.split("/")[0] in {"tests", "benchmarks", "examples", "docs"}]


def test_wheel_holds_the_data_of_the_package(wheel):
    names = wheel.namelist()
    assert "sqz_keras/py.typed" in names
    assert {f"export/page/{name}" for name in ("index.html", "page.css", "page.js")} <= set(names)
    assert {"trainers/reports/page.css", "trainers/reports/page.js"} <= set(names)
    classes = wheel.read("sqz_keras/data/imagenet_classes.txt").decode().splitlines()
    assert len(classes) == 1000
    assert classes[0].startswith("n01440764 ")


def test_wheel_states_and_holds_its_licence(wheel, metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    for name in ("LICENSE", "NOTICE"):
        assert wheel.read(_dist_info(wheel, f"licenses/{name}")) == (ROOT / name).read_bytes()


def test_every_command_has_its_function(wheel):
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(_dist_info(wheel, "entry_points.txt")).decode())
    commands = dict(parser["console_scripts"])
    assert set(commands) == COMMANDS
    for target in commands.values():
        module, function = target.split(":")
        source = wheel.read(module.replace(".", "/") + ".py").decode()
        assert re.search(rf"^def {function}\(", source, re.MULTILINE), target


def test_metadata_declares_what_dependencies_forget(metadata):
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist")]

    def needed(extra: str, python: str) -> set[str]:
        environment = {"extra": extra, "python_version": python}
        return {r.name.lower() for r in requirements if r.marker and r.marker.evaluate(environment)}

    assert "importlib_resources" in needed("train", "3.11")
    assert "setuptools" in needed("compress", "3.12")
    assert "setuptools" not in needed("compress", "3.11")
    assert {r.name for r in requirements if r.marker is None} == {"absl-py", "numpy", "pillow"}
    with_keras = {"keras", "tensorflow", "jax", "torch", "openvino"}
    runtimes = {"onnxruntime", "litert", "receiver"}
    others = {
        "docs",
        "huggingface",
        "hub",
        "report",
        "train",
        "client",
        "serve",
        "page",
        "compress",
        "sweep",
        "test",
        "all",
    }
    assert set(metadata.get_all("Provides-Extra")) == with_keras | runtimes | others


def test_the_wheel_installs_and_imports(dist, tmp_path):
    wheel = next(dist.glob("*.whl"))
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path, wheel)
    code = "import sqz_keras, export, trainers; print(sqz_keras.__file__, export.__file__, trainers.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "KERAS_BACKEND": "jax"}  # the backend quickest to import
    imported = _run(sys.executable, "-c", code, cwd=tmp_path, env=environment).split()
    assert imported == [str(tmp_path / name / "__init__.py") for name in ("sqz_keras", "export", "trainers")]


def _pins() -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: "-".join(platform[1:]))
def test_one_pin_meets_each_requirement_on_each_platform(python, platform):
    environment = dict(zip(("sys_platform", "platform_system", "platform_machine"), platform, strict=True))
    environment |= {"python_version": python, "python_full_version": f"{python}.0", "os_name": "posix"}
    pins: dict[str, str] = {}
    for pin in _pins():
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        if pin.marker is None or pin.marker.evaluate(environment):
            assert canonicalize_name(pin.name) not in pins, f"two pins for {pin.name}"
            pins[canonicalize_name(pin.name)] = specifier.version
    extras = PROJECT["optional-dependencies"]
    for requirement in map(Requirement, itertools.chain(PROJECT["dependencies"], *extras.values())):
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= set(extras)
            continue
        pinned = pins.get(canonicalize_name(requirement.name), "none")
        assert pinned != "none" and requirement.specifier.contains(pinned), f"{requirement} has the pin {pinned}"


def test_constraints_hold_no_address_or_path():
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert not re.search(r"://|--|^\s*/|@", text, re.MULTILINE)
