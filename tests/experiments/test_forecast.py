"""The comparison of the forecast with the result, on a tiny net."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments import forecast
from sqz_keras.weights import sqz
from tests.compression.tiny_net import SPEC, tiny_arrays


@pytest.mark.large
def test_no_image_that_calibrated_evaluates(tmp_path, run_command, capsys):
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for index in range(12):
        image = random.integers(0, 256, (33, 33, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "net.sqz").write_bytes(sqz.encode(SPEC, tiny_arrays(SPEC)))
    flags = f"--model={tmp_path / 'net.sqz'}", f"--image_dir={tmp_path / 'photos'}", "--calibration_images=4"
    run_command(forecast, *flags)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 images calibrate, 8 others evaluate")
    sizes = [int(line.split("|")[1].replace(",", "")) for line in lines[3:]]
    assert len(sizes) == 4 and sizes == sorted(sizes)
    assert any(re.search(r"\| \d+% \| \d+\.\d% \| \d+\.\d to \d+\.\d \|", line) for line in lines)
