import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sqz_keras.weights import download, records, sqz
from sqz_keras.weights.resolve import resolve_model


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "sqz_keras.cli.classify", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | env,
        check=False,
    )


@pytest.fixture(scope="module")
def cached_weights(test_data):
    """The record behind "imagenet" in the cache, as after its first use."""
    record = records.get_record("squeezenet1.0_deep_compression")
    path = download.cache_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((test_data / "weights" / "deep_compression" / record.filename).read_bytes())


def test_images_of_every_kind(test_data, cached_weights, tmp_path):
    """One elephant as JPEG, CMYK JPEG, grey PNG and turned JPEG; among them a file that is broken."""
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


@pytest.mark.large
def test_light_runtimes_answer_as_keras_without_it(test_data, tmp_path):
    """The same five classes in the same order, their shares to 0.02 points."""
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


def test_help_lists_the_commands_own_flags():
    result = run("--help")
    for part in ("Names what images show", "--image", "--model", "--top", "(default: 'imagenet')", "--bypass"):
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


def test_an_unknown_model_is_one_line(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    result = run(f"--image={tmp_path / 'a.png'}", "--model=nonsense")
    assert result.returncode == 1
    assert "No model 'nonsense'" in result.stderr
    assert "Traceback" not in result.stderr
