"""Scikit-learn's handwritten digits as a TensorFlow Datasets builder: 1,797 images, no download."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

# An image's place in its class (in order of appearance), modulo 5, decides its split: 60/20/20, stratified.
_SPLITS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}


class Digits(tfds.core.GeneratorBasedBuilder):
    """`tfds.builder("digits")`: images of 8x8 grey pixels, labels "0" to "9", fixed splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Optical recognition of handwritten digits: the 1,797 images that scikit-learn ships.",
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # the images are in the scikit-learn package
        return {split: self._generate_examples(places) for split, places in _SPLITS.items()}

    def _generate_examples(self, places: tuple[int, ...]) -> Iterator[tuple[int, dict]]:
        """Yields (index in scikit-learn's order, example) of each image whose place modulo 5 is in `places`."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        seen = collections.Counter()
        for index, (image, label) in enumerate(zip(digits.images, digits.target.tolist(), strict=True)):
            place = seen[label] % 5
            seen[label] += 1
            if place in places:
                pixels = np.rint(image * (255 / 16)).astype(np.uint8)
                yield index, {"image": pixels[..., None], "label": label}
