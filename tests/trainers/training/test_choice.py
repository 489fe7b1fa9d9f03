import numpy as np
import pytest

from trainers.data.image_folder import open_image_dir
from trainers.training.choice import WEIGHTS, choose_config
from trainers.training.run import class_weights


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder of images: {"train/cat": 3, ...}; only their number matters."""

    def make(counts):
        for name, count in counts.items():
            (tmp_path / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / name / f"{number:03}.jpg").write_bytes(b"")
        return str(tmp_path)

    return make


def test_few_images_a_class_get_a_fitted_head_and_no_updates(folder):
    config, reasons = choose_config({"image_dir": folder({"cat": 50, "dog": 50})})
    assert (config.weights, config.test_split, config.class_weights) == (WEIGHTS, "validation", "none")
    assert (config.head_images, config.max_steps, config.frozen_steps) == (160, 0, 0)
    assert "2 classes with 40 training images each (train 80, validation 20)" in reasons
    assert "--head_images=160: conv10 is fitted" in reasons and "2.0 passes over the images" in reasons
    assert "--max_steps=0: all other layers stay as they are" in reasons
    assert "about 1 minute on 2 cores" in reasons and "chooses nothing" in reasons


def test_more_images_get_updates_and_unequal_classes_weights(folder):
    splits = {"train/cat": 600, "train/dog": 300, "val/cat": 1, "test/dog": 1}
    config, reasons = choose_config({"image_dir": folder(splits)})
    assert (config.head_images, config.max_steps, config.eval_every_steps) == (1800, 282, 57)
    assert (config.test_split, config.class_weights) == ("test", "balanced")
    assert "--max_steps=282: 20 epochs of updates of 64 images each" in reasons
    assert "--class_weights=balanced" in reasons and "best on validation" in reasons
    weights = class_weights(open_image_dir(config.image_dir), config)
    np.testing.assert_allclose(weights, [0.75, 1.5])
    assert weights @ [600, 300] == pytest.approx(900)


@pytest.mark.parametrize("given", [{"weights": ""}, {"head_images": 0}, {"strategy": "multiworker"}])
def test_without_a_fitted_head_even_few_images_get_updates(folder, given):
    config, reasons = choose_config({"image_dir": folder({"cat": 50, "dog": 50}), **given})
    assert (config.head_images, config.max_steps, config.frozen_steps) == (0, 100, 10)
    assert "--head_images" not in reasons and "conv10 alone in the first 10" in reasons


def test_the_reasons_leave_out_what_the_user_gave_and_hold_for_the_rest(folder):
    image_dir = folder({"train/cat": 60, "train/dog": 20, "val/cat": 1, "test/dog": 1})
    given = {"weights": "net.sqz", "class_weights": "none", "max_steps": 30, "test_split": "validation"}
    config, reasons = choose_config({"image_dir": image_dir, "global_batch_size": 16, **given})
    assert all(getattr(config, name) == value for name, value in given.items())
    flags = [line.split("=")[0].strip() for line in reasons.splitlines() if line.strip().startswith("--")]
    assert flags == ["--head_images"] and "frozen layers of net.sqz" in reasons
    assert not any(word in reasons for word in ("squeezenet1.1_authors", "64", "minute", "test split", "equally"))


def test_the_time_and_the_preprocessing_are_not_predicted_for_another_network(folder):
    given = {"image_dir": folder({"cat": 50, "dog": 50})}
    assert "prepared as for these weights" in choose_config(given)[1] and "minute" in choose_config(given)[1]
    _, reasons = choose_config(given, ["preprocessing_mode"])
    assert "prepared" not in reasons and "minute" not in reasons
