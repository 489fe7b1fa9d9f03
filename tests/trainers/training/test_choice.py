import numpy as np
import pytest

from trainers.data.image_folder import open_image_dir
from trainers.training.choice import WEIGHTS, choose_config
from trainers.training.run import class_weights


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder of images: {"train/cat": 3, ...}; nothing but their number counts."""

    def make(counts):
        for name, count in counts.items():
            (tmp_path / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / name / f"{number:03}.jpg").write_bytes(b"")
        return tmp_path

    return make


def test_a_folder_of_classes_gets_transfer_without_a_test_split(folder):
    config, reasons = choose_config(folder({"cat": 50, "dog": 50}))
    assert (config.weights, config.test_split, config.class_weights) == (WEIGHTS, "validation", "none")
    assert config.max_steps == 100 == config.eval_every_steps and config.frozen_steps == 10
    assert "2 classes with 40 to 40 images for training (train 80, validation 20)" in reasons
    assert "--max_steps=100 with 64 images each: 80 epochs, about 2 minutes on 2 cores" in reasons
    assert "chooses nothing" in reasons


def test_more_images_get_more_updates_and_unequal_classes_weights(folder):
    splits = {"train/cat": 600, "train/dog": 300, "val/cat": 1, "test/dog": 1}
    config, reasons = choose_config(folder(splits))
    assert (config.max_steps, config.eval_every_steps, config.frozen_steps) == (282, 57, 28)
    assert (config.test_split, config.class_weights) == ("test", "balanced")
    assert "--class_weights=balanced" in reasons and "best on validation" in reasons
    weights = class_weights(open_image_dir(config.image_dir), config)
    np.testing.assert_allclose(weights, [0.75, 1.5])
    assert weights @ [600, 300] == pytest.approx(900)
