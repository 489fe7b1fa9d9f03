"""Whether images are fit for calibration: enough, not too similar, and of the kind that the network was trained for."""

from __future__ import annotations

import numpy as np

ENOUGH = 32
_MOST_ALIKE = 0.8  # share of the images in one class
_MOST_DUPLICATES = 0.25  # share of the images
_THUMBNAIL, _SAME = 8, 0.02  # pixels a side; difference between two thumbnails, as a share of the range of them all


def find_problems(images: np.ndarray, classes: np.ndarray) -> list[str]:
    """What is wrong with images for calibration, one sentence per problem; an empty list if nothing is.

    Calibration with 100 images of noise cost the quantised v1.0 ten points of agreement.

    Args:
        images: Network inputs or images, float32 (N, S, S, 3).
        classes: The class that the network gives each image, int (N,).
    """
    problems = []
    if len(images) < ENOUGH:
        problems.append(f"Only {len(images)} images calibrate; {ENOUGH} or more, as different as in use, are better.")
    duplicates = _count_duplicates(images)
    if duplicates > _MOST_DUPLICATES * len(images):
        problems.append(f"{duplicates} of {len(images)} images that calibrate are nearly the same as others of them.")
    share = np.bincount(classes).max() / len(classes)
    if len(classes) > 1 and share > _MOST_ALIKE:
        problems.append(
            f"{share:.0%} of the images that calibrate are of one class for the network. Are they such as it is used "
            "on? Noise, blank and equal images give a file that errs more."
        )
    return problems


def _count_duplicates(images: np.ndarray) -> int:
    """The number of images that look like an earlier one."""
    size = images.shape[1] // _THUMBNAIL * _THUMBNAIL
    tiles = images[:, :size, :size].reshape(len(images), _THUMBNAIL, size // _THUMBNAIL, _THUMBNAIL, -1)
    thumbnails = tiles.mean((2, 4)).reshape(len(images), -1)
    same = _SAME * max(float(np.ptp(thumbnails)), 1e-6)
    return sum(
        bool((np.abs(thumbnails[:row] - thumbnails[row]).mean(axis=1) < same).any()) for row in range(1, len(images))
    )
