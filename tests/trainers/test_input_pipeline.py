import dataclasses
import itertools

import keras
import numpy as np
import pytest

from sqz_keras import ModelSpec, Preprocessing, prepare_images
from trainers.input_pipeline import evaluation_batches, open_dataset, training_batches

SPEC = ModelSpec("1.1", classes=10, input_size=24, preprocessing=Preprocessing(resize_to=24))


CROPPED = dataclasses.replace(SPEC, preprocessing=Preprocessing(resize_to=30))


def _epochs(digits, seed, count=2, buffer=5_000):
    """The images of the first epochs, as bytes."""
    batches = training_batches(digits, "test", SPEC, batch_size=71, shuffle_buffer_size=buffer, seed=seed)
    images = [images.numpy() for images, _ in batches.take(5 * count)]  # 355 images are 5 batches of 71
    return [[image.tobytes() for image in np.concatenate(images[5 * n : 5 * n + 5])] for n in range(count)]


@pytest.mark.parametrize("batch_size", [1, 64, 355, 1000])
def test_evaluation_sees_every_picture_once(digits, batch_size):
    batches = list(evaluation_batches(digits, "test", SPEC, batch_size=batch_size))
    images = np.concatenate([images for images, _ in batches])
    assert images.shape == (355, 24, 24, 3) and images.dtype == np.float32
    assert len({image.tobytes() for image in images}) == 355
    labels = np.concatenate([labels for _, labels in batches])
    records = list(digits.as_dataset(split="test").as_numpy_iterator())
    np.testing.assert_array_equal(labels, [record["label"] for record in records])
    rgb = np.repeat(records[-1]["image"], 3, axis=-1)
    np.testing.assert_allclose(images[-1], prepare_images(rgb, SPEC), atol=1e-4)


def test_every_epoch_holds_every_picture_once_in_its_own_order(digits):
    first, second = _epochs(digits, seed=3)
    assert len(set(first)) == 355 and sorted(first) == sorted(second)
    assert first != second


def test_order_follows_from_the_seed_alone(digits):
    keras.utils.set_random_seed(0)
    expected = _epochs(digits, seed=3)
    keras.utils.set_random_seed(1234)
    assert _epochs(digits, seed=3) == expected
    assert _epochs(digits, seed=4) != expected


def test_batches_run_over_the_ends_of_epochs(digits):
    batches = training_batches(digits, "test", SPEC, batch_size=200, shuffle_buffer_size=50, seed=0)
    labels = [label for _, labels in itertools.islice(batches, 71) for label in labels.numpy()]  # 40 epochs
    assert len(labels) == 40 * 355
    assert set(np.bincount(labels) % 40) == {0}


def test_training_cuts_random_squares_that_follow_from_the_seed(digits):
    def batch(seed, number):
        batches = training_batches(digits, "test", CROPPED, batch_size=355, shuffle_buffer_size=1, seed=seed)
        return next(itertools.islice(batches, number, None))[0].numpy()

    whole_spec = dataclasses.replace(CROPPED, input_size=30)
    whole = np.concatenate([images for images, _ in evaluation_batches(digits, "test", whole_spec, batch_size=355)])
    windows = np.lib.stride_tricks.sliding_window_view(whole, (24, 24, 3), axis=(1, 2, 3))[:, :, :, 0]
    first = batch(0, 0)
    found = [np.argwhere(np.isclose(windows[n], first[n], atol=1e-3).all((2, 3, 4))) for n in range(40)]
    assert all(len(places) for places in found), "each is a window of its own picture"
    places = {tuple(place) for each in found if len(each) == 1 for place in each}
    assert {row for row, _ in places} == {column for _, column in places} == set(range(7))
    np.testing.assert_array_equal(batch(0, 0), first)
    assert not np.array_equal(batch(0, 1), first)
    assert not np.array_equal(batch(1, 0), first)


def test_tuning_thread_that_delays_the_end_of_iterators_is_off(digits):
    training = training_batches(digits, "test", SPEC, batch_size=1, shuffle_buffer_size=1, seed=0)
    for batches in (training, evaluation_batches(digits, "test", SPEC, batch_size=1)):
        assert batches.options().autotune.enabled is False


def test_an_unknown_dataset_or_split_is_refused(digits, tmp_path):
    with pytest.raises(ValueError, match="no_such_dataset"):
        open_dataset("no_such_dataset", tmp_path)
    with pytest.raises(ValueError, match="'test', 'train', 'validation'"):
        evaluation_batches(digits, "dev", SPEC, batch_size=1)
