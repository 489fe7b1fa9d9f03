import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

CHECKSUM = "d2846b2eb2dc423d792674fa588cc4cd04f46fe5d47d58766a444bb9d225f1dd"
SIZES = {"train": 1085, "validation": 357, "test": 355}


@pytest.fixture(scope="module")
def splits(digits_builder):
    return {split: list(tfds.as_numpy(digits_builder.as_dataset(split=split))) for split in SIZES}


def test_split_is_60_20_20_within_every_class(splits):
    counts = {s: np.bincount([example["label"] for example in splits[s]], minlength=10) for s in SIZES}
    assert {split: count.sum() for split, count in counts.items()} == SIZES
    per_class = sum(counts.values())
    assert per_class.sum() == 1797 and per_class.min() == 174
    for split, places in {"train": (0, 1, 2), "validation": (3,), "test": (4,)}.items():
        np.testing.assert_array_equal(counts[split], sum((per_class - place + 4) // 5 for place in places))


def test_splits_are_scikit_learns_images_each_once(splits):
    from sklearn.datasets import load_digits

    digits = load_digits()
    expected = sorted(
        (label, np.rint(image * 255 / 16).astype(np.uint8).tobytes())
        for image, label in zip(digits.images, digits.target.tolist(), strict=True)
    )
    actual = [(int(example["label"]), example["image"].tobytes()) for split in SIZES for example in splits[split]]
    assert len(set(actual)) == len(actual)
    assert sorted(actual) == expected


def test_content_is_fixed(splits):
    digest = hashlib.sha256()
    for split in SIZES:
        images = sorted(bytes([example["label"]]) + example["image"].tobytes() for example in splits[split])
        digest.update(b"".join([split.encode(), *images]))
    assert digest.hexdigest() == CHECKSUM


def test_labels_and_images(digits_builder, splits):
    assert digits_builder.info.features["label"].names == [str(digit) for digit in range(10)]
    image = splits["train"][0]["image"]
    assert image.shape == (8, 8, 1) and image.dtype == np.uint8
    assert max(example["image"].max() for example in splits["train"]) == 255
