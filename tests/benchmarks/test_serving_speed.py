"""The benchmark does not measure with too few images for a batch, or with the exports of another model."""

import argparse

import numpy as np
import pytest
from PIL import Image

from benchmarks import serving_rewrites, serving_speed
from sqz_keras import Metaparameters, ModelSpec, Preprocessing
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights import sqz

NET = Metaparameters(num_fire_modules=1, base_e=8, stem_filters=4, stem_kernel=3, pool_after=(1,))
SPEC = ModelSpec(None, metaparameters=NET, classes=3, input_size=24, preprocessing=Preprocessing(resize_to=24))


@pytest.fixture
def args(tmp_path):
    """Flags for a model, and for as many images as the largest batch holds."""
    (tmp_path / "net.sqz").write_bytes(sqz.encode(SPEC, named_arrays(build(SPEC))))
    (tmp_path / "images").mkdir()
    for number in range(max(serving_speed.BATCHES)):
        Image.fromarray(np.full((24, 24, 3), number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return argparse.Namespace(
        model=str(tmp_path / "net.sqz"), version=None, bypass=None, image_dir=str(tmp_path / "images"), images=200
    )


def test_too_few_images_are_refused(args, tmp_path, run_command):
    (tmp_path / "images" / "0.png").unlink()
    with pytest.raises(ValueError, match="must hold at least 32 images, got 31"):
        serving_speed.write_inputs(args, tmp_path / "exports")
    with pytest.raises(ValueError, match="must hold at least 32 images, got 31"):
        run_command(serving_rewrites, f"--model={args.model}", f"--image_dir={args.image_dir}")


def test_the_exports_of_another_model_are_not_measured(args, tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(
        "export.formats.saved_model.export_saved_model", lambda *_, precision: exported.append(precision)
    )
    for _ in range(2):  # the same model again
        assert serving_speed.write_inputs(args, tmp_path / "exports") == 32
    kept = (tmp_path / "exports" / serving_speed.MODEL).read_bytes()
    exported.clear()
    other = {name: array + 1 for name, array in named_arrays(build(SPEC)).items()}
    (tmp_path / "net.sqz").write_bytes(sqz.encode(SPEC, other))
    with pytest.raises(ValueError, match="holds the exports of another model"):
        serving_speed.write_inputs(args, tmp_path / "exports")
    assert not exported and (tmp_path / "exports" / serving_speed.MODEL).read_bytes() == kept
