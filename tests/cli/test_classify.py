import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sqz_keras import ModelSpec
from sqz_keras.cli import classify
from sqz_keras.weights import sqz
from sqz_keras.weights.resolve import resolve_model
from tests.weights.readers.mutations import random_arrays


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "sqz_keras.cli.classify", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | env,
        check=False,
    )


@pytest.mark.large
def test_images_of_every_kind(test_data, cached_weights, tmp_path):
    """One elephant as JPEG, CMYK JPEG, grey PNG and rotated JPEG, with a broken file among them."""
    path = test_data / "images" / "imagenet_sample" / "n02504013_Indian_elephant.JPEG"
    assert path.exists()
    with Image.open(path) as image:
        image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
        image.convert("L").save(tmp_path / "grey.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    (tmp_path / "broken.jpg").write_bytes(path.read_bytes()[:500])
    paths = [path, *(tmp_path / name for name in ("cmyk.jpg", "broken.jpg", "grey.png", "turned.jpg"))]
    result = run(*paths[:2], *(f"--image={path}" for path in paths[2:]), "--top=3")
    assert result.returncode == 1
    assert "broken.jpg: not an image" in result.stderr
    blocks = {}
    for line in result.stdout.splitlines():
        blocks.setdefault(line, []) if not line.startswith(" ") else blocks[list(blocks)[-1]].append(line)
    assert list(blocks) == [str(path) for path in paths if path.name != "broken.jpg"]
    for lines in blocks.values():
        assert len(lines) == 3
        assert any("elephant" in line or "tusker" in line for line in lines)
        shares = [float(line.split("%")[0]) for line in lines]
        assert shares == sorted(shares, reverse=True)


def test_explain_writes_the_image_with_the_map(test_data, cached_weights, tmp_path, run_command, capsys):
    path = test_data / "images" / "imagenet_sample" / "n02391049_zebra.JPEG"
    (tmp_path / "map.png").write_bytes(b"from an earlier run")
    assert not run_command(classify, str(path), f"--explain={tmp_path / 'map.png'}", "--top=1")
    assert capsys.readouterr().out.splitlines()[-1] == f"map of zebra: {tmp_path / 'map.png'}"
    with Image.open(path) as image, Image.open(tmp_path / "map.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", image.size)
        red, _, blue = np.asarray(picture, float).transpose(2, 0, 1)
    heat = np.clip(red - blue, 0, None).mean(axis=0)
    assert heat[: len(heat) * 4 // 5].sum() > 20 * heat[len(heat) * 4 // 5 :].sum()  # the zebra ends there
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "b.png", "--explain=map.png"], "--explain takes one image, got 2 images; run sqz-classify once"),
        ([".", "--explain=map.png"], "got the folder .; run sqz-classify once for each image"),
        (["a.png", "--explain=map.png", "--runtime=onnx"], "works with --runtime=keras only, got --runtime=onnx"),
        (["a.png", "--explain=map.jpg"], "writes a PNG, got map.jpg"),
        (["a.png", "--explain=absent/map.png"], "absent/map.png must be a file in an existing folder"),
        (["a.png", "--explain=./a.png"], "would replace the image itself"),
    ],
)
def test_explain_refuses_before_any_work(arguments, message, tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    before = pathlib.Path("a.png").read_bytes()
    with pytest.raises(ValueError, match=re.escape(message)):
        run_command(classify, *(f"--image={word}" if word[:2] != "--" else word for word in arguments))
    assert os.listdir() == ["a.png"] and pathlib.Path("a.png").read_bytes() == before


@pytest.mark.large
def test_light_runtimes_answer_as_keras_without_it(test_data, tmp_path):
    """The five classes and their order are the same, and the percentages differ by at most 0.02 points."""
    network = test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net"
    (tmp_path / "net.sqz").write_bytes(sqz.encode(*resolve_model(network), profile="paper"))
    paths = sorted((test_data / "images" / "imagenet_sample").iterdir())[:40:4]
    absent = tmp_path / "absent"
    for package in ("keras", "tensorflow") if importlib.util.find_spec("ai_edge_litert") else ("keras",):
        (absent / package).mkdir(parents=True)
        (absent / package / "__init__.py").write_text("raise ModuleNotFoundError(name=__name__)")
    arguments = (*paths, f"--model={tmp_path / 'net.sqz'}")
    by_keras, *light = (
        run(*arguments, f"--runtime={runtime}", **({} if runtime == "keras" else {"PYTHONPATH": str(absent)}))
        for runtime in ("keras", "litert", "onnx")
    )
    expected = by_keras.stdout.splitlines()
    assert len(expected) == 6 * len(paths)
    for result in light:
        assert result.returncode == 0, result.stderr
        for line, other in zip(result.stdout.splitlines(), expected, strict=True):
            assert line.split("%")[1:] == other.split("%")[1:]
            if "%" in line:
                assert float(line.split("%")[0]) == pytest.approx(float(other.split("%")[0]), abs=0.021)


@pytest.mark.large
@pytest.mark.parametrize("settings", [{"image_data_format": "channels_first"}, {"floatx": "float16"}])
def test_settings_of_keras_do_not_matter(test_data, tmp_path, settings):
    network = test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net"
    path = test_data / "images" / "imagenet_sample" / "n02391049_zebra.JPEG"
    expected = run(path, f"--model={network}")
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "tensorflow"} | settings))
    result = run(path, f"--model={network}", KERAS_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout == expected.stdout and "zebra" in result.stdout


def test_help_lists_the_commands_own_flags():
    result = run("--help")
    for part in ("Classifies images", "--image", "--model", "--top", "(default: 'imagenet')", "--bypass"):
        assert part in result.stdout
    assert "--showprefixforinfo" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Which image?"),
        (["--image=a.jpg", "--top=0"], "top"),
        (["--image=a.jpg", "--version=2.0"], "version"),
    ],
)
def test_bad_flags_end_before_any_work(arguments, message):
    result = run(*arguments)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_of_other_channels_is_refused_before_an_image_is_read(tmp_path, run_command):
    spec = ModelSpec("1.1", classes=2, channels=1)
    (tmp_path / "net.sqz").write_bytes(sqz.encode(spec, random_arrays(spec.weight_shapes()), profile="paper"))
    with pytest.raises(ValueError, match="This model takes 1 channels, and images are RGB"):
        run_command(classify, f"--model={tmp_path / 'net.sqz'}", "--image=absent.png")


def test_an_unknown_model_is_one_line(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    result = run(f"--image={tmp_path / 'a.png'}", "--model=nonsense")
    assert result.returncode == 1
    assert "No model 'nonsense'" in result.stderr
    assert "Traceback" not in result.stderr
