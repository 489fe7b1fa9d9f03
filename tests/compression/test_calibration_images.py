"""Images that are unfit to calibrate with are named."""

import numpy as np

from sqz_keras.compression.calibration_images import find_problems

GENERATOR = np.random.default_rng(0)
# Smooth images that differ, and a class for each.
IMAGES = GENERATOR.normal(0, 60, (40, 4, 4, 3)).repeat(6, 1).repeat(6, 2).astype(np.float32)
CLASSES = np.arange(40) % 10


def test_many_different_images_are_fit():
    assert find_problems(IMAGES, CLASSES) == []


def test_few_images():
    (problem,) = find_problems(IMAGES[:31], CLASSES[:31])
    assert problem.startswith("Only 31 images calibrate; 32 or more")


def test_nearly_equal_images():
    images = np.concatenate([IMAGES[:20], IMAGES[:20] + GENERATOR.normal(0, 3, (20, 24, 24, 3))])
    (problem,) = find_problems(images.astype(np.float32), CLASSES)
    assert problem.startswith("20 of 40 images that calibrate are nearly the same")


def test_answers_that_are_nearly_all_alike():
    (problem,) = find_problems(IMAGES, np.where(np.arange(40) < 36, 7, CLASSES % 7))
    assert problem.startswith("90% of the images that calibrate are of one class")
