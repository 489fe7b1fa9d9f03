"""What a type checker sees of the public names: it accepts a user's script, and finds each mistake in a wrong one."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.large
ROOT = pathlib.Path(__file__).parents[1]

GOOD = """
import pathlib

import numpy as np

import sqz_keras
from sqz_keras import Metaparameters, SqueezeNet, SqueezeNetComplexBypass, squeezenet_from_metaparameters
from sqz_keras import class_map, decode_predictions, load, overlay, prepare_images, preprocess_input, resolve_model
from sqz_keras.applications import SqueezeNetV1_1
from sqz_keras.applications.squeezenet import SqueezeNetSimpleBypass

SqueezeNet((64, None, 3), weights=None, classes=np.int64(10), dropout_rate=np.float32(0.2), version="1.1")
SqueezeNetV1_1(input_shape=[64, 64, 3], weights=pathlib.Path("model.sqz"), include_top=False, pooling="avg")
SqueezeNetSimpleBypass(weights="squeezenet1.0_simple_bypass", classifier_activation=None, name=None)
SqueezeNetComplexBypass(conv10_padding=1, classifier_activation=lambda x: x)
squeezenet_from_metaparameters(Metaparameters(squeeze_ratio=0.5, pool_after=(1, 3)), bypass="complex")
sqz_keras.applications.squeezenet.SqueezeNet(weights="imagenet")
spec, arrays = resolve_model("imagenet", version="1.1")
x = preprocess_input(prepare_images(arrays["conv1/kernel"], spec), mode="caffe")
overlay(np.zeros((9, 9, 3)), class_map(load("imagenet"), x, class_id=3), spec)
names: list[str] = [name for _, name, _ in decode_predictions(load("imagenet").predict(x))[0]]
"""
# Each line after the first has a mistake.
BAD = """import sqz_keras
from sqz_keras import SqueezNet
sqz_keras.SqueezeNet(weihgts=None)
sqz_keras.SqueezeNet(weights=3)
sqz_keras.SqueezeNet(pooling="average")
sqz_keras.SqueezeNet(version="2.0")
sqz_keras.SqueezeNet(input_shape=64)
sqz_keras.SqueezeNetV1_1(version="1.0")
sqz_keras.squeezenet_from_metaparameters({"base_e": 128})
sqz_keras.preprocess_input(None, mode="bgr")
sqz_keras.applications.SqueezNet()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """For each script, the lines in which mypy finds an error; and what mypy prints about both scripts."""
    folder = tmp_path_factory.mktemp("scripts")
    for name, code in {"good.py": GOOD, "bad.py": BAD}.items():
        (folder / name).write_text(code, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file="]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    result = subprocess.run(
        [*command, "good.py", "bad.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    lines = {"good": set(), "bad": set()}
    for script, line in re.findall(r"^(good|bad)\.py:(\d+): error", result.stdout, re.MULTILINE):
        lines[script].add(int(line))
    assert result.returncode == 1, result.stdout + result.stderr
    return lines, result.stdout


def test_a_type_checker_accepts_a_good_script(found):
    lines, printed = found
    assert not lines["good"], printed


def test_a_type_checker_finds_each_mistake(found):
    lines, printed = found
    assert lines["bad"] == set(range(2, BAD.count("\n") + 1)), printed
    assert 'Unexpected keyword argument "weihgts" for "SqueezeNet"' in printed
