import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from sqz_keras import ModelSpec, Preprocessing, prepare_images
from trainers.data.batches import BadImages, evaluation_batches, readable_batches, training_batches
from trainers.data.source import Source

SPEC = ModelSpec("1.1", classes=10, input_size=24, preprocessing=Preprocessing(resize_to=30))
SIZE = 355


def _train(source, split="test", **options):
    defaults = {"batch_size": 71, "seed": 3, "shuffle_buffer_size": 500, "augmentation": "authors"}
    defaults["guarded"] = "bad_images" in options  # its graph takes twice as long to build
    return training_batches(source, split, SPEC, **defaults | options)


def _examples(batches, count):
    """(image, label, weight) of each of the first `count` examples."""
    found = []
    for batch in batches:
        found += [
            (image.tobytes(), int(label), float(weight))
            for image, label, weight in zip(*map(np.asarray, batch), strict=True)
        ]
        if len(found) >= count:
            return found[:count]
    raise AssertionError("the batches came to an end")


def _numbered(images):
    """A source of these encoded images, with the labels 0, 1, ... and the ids "0", "1", ..."""
    records = {"image": images, "label": np.arange(len(images)), "id": [str(number) for number in range(len(images))]}
    sizes = {"test": len(images)}
    return Source("numbered", ("any",), sizes, lambda _: tf.data.Dataset.from_tensor_slices(records))


def _jpegs(count):
    random = np.random.default_rng(0)
    return [tf.io.encode_jpeg(random.integers(0, 256, (40, 50, 3), np.uint8)).numpy() for _ in range(count)]


@pytest.mark.parametrize("batch_size", [1, 64, 355, 1000])
def test_evaluation_sees_every_image_once(digits, digits_builder, batch_size):
    batches = list(evaluation_batches(digits, "test", SPEC, batch_size=batch_size))
    images, labels, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert images.shape == (SIZE, 24, 24, 3) and images.dtype == weights.dtype == np.float32 and (weights == 1).all()
    assert len({image.tobytes() for image in images}) == SIZE
    records = list(digits_builder.as_dataset(split="test").as_numpy_iterator())
    np.testing.assert_array_equal(labels, [record["label"] for record in records])
    rgb = np.repeat(records[-1]["image"], 3, axis=-1)
    np.testing.assert_allclose(images[-1], prepare_images(rgb, SPEC), atol=1e-4)


def test_every_epoch_holds_every_image_once_in_its_own_order(digits):
    images = [image for image, _, _ in _examples(_train(digits, augmentation="none"), 2 * SIZE)]
    first, second = images[:SIZE], images[SIZE:]
    assert len(set(first)) == SIZE and sorted(first) == sorted(second)
    assert first != second


def test_batches_run_over_the_ends_of_epochs(digits):
    batches = _train(digits, batch_size=71 * 2, shuffle_buffer_size=50)
    labels = [label for _, labels, _ in itertools.islice(batches, 5) for label in labels.numpy()]  # 2 epochs
    assert len(labels) == 2 * SIZE
    assert set(np.bincount(labels) % 2) == {0}


@pytest.mark.parametrize("augmentation", ["authors", "modern"])
def test_the_stream_follows_from_the_seed_alone(digits, monkeypatch, augmentation):
    keras.utils.set_random_seed(0)
    expected = _examples(_train(digits, augmentation=augmentation), 400)
    keras.utils.set_random_seed(1234)
    monkeypatch.setattr("trainers.data.batches._PARALLEL_CALLS", 1)
    # A buffer for more images than there are changes nothing, and needs no memory.
    options = {"augmentation": augmentation, "batch_size": 16, "shuffle_buffer_size": 10**12}
    assert _examples(_train(digits, **options), 400) == expected
    assert _examples(_train(digits, augmentation=augmentation, seed=4), 400) != expected


@pytest.fixture(scope="module")
def whole(digits):
    """The first examples of the stream."""
    return _examples(_train(digits), SIZE + 60)


@pytest.mark.parametrize("start", [1, SIZE, SIZE + 30])
def test_a_later_start_is_the_rest_of_the_same_stream(digits, whole, start):
    assert _examples(_train(digits, start_example=start, batch_size=7), 30) == whole[start : start + 30]


def test_what_comes_before_the_start_is_not_decoded():
    bad = BadImages()
    source = _numbered([b"no image"] * 8 + _jpegs(40))  # enough for what is read ahead
    batches = _train(source, shuffle_buffer_size=1, batch_size=2, start_example=8, bad_images=bad)
    assert next(iter(batches.take(1)))[2].numpy().tolist() == [1, 1] and not bad.names


def test_shards_share_the_stream_out(digits, whole):
    for index in range(3):
        shard = _train(digits, start_example=10, num_shards=3, shard_index=index, batch_size=20)
        assert _examples(shard, 20) == whole[10:70][index::3]


@pytest.mark.large
def test_a_bad_image_keeps_its_place_and_is_named_once(caplog):
    jpegs = _jpegs(6)
    damaged = [jpegs[0], jpegs[1][:60], b"", b"\x89PNG\r\n\x1a\nrest", jpegs[4], b"<html>"]
    bad = BadImages(limit=3)
    options = {"shuffle_buffer_size": 1, "batch_size": 6, "bad_images": bad}
    for augmentation in ("authors", "modern"):
        good = _examples(_train(_numbered(jpegs), augmentation=augmentation, **options), 12)
        seen = _examples(_train(_numbered(damaged), augmentation=augmentation, **options), 12)
        assert [weight for _, _, weight in seen] == [1, 0, 0, 0, 1, 0] * 2
        assert [label for _, label, _ in seen] == [*range(6)] * 2
        assert [seen[place] == good[place] for place in range(6)] == [True, False, False, False, True, False]
        quick = _train(_numbered(damaged), augmentation=augmentation, guarded=False, **options | {"batch_size": 1})
        assert _examples(quick.take(1), 1) == seen[:1]
        with pytest.raises(tf.errors.InvalidArgumentError):
            list(quick.take(2))
    assert sorted(bad.names) == ["1", "2", "3", "5"]
    assert len([record for record in caplog.records if "cannot be decoded" in record.message]) == 4
    with pytest.raises(ValueError, match="4 of the images cannot be decoded, and at most 3 may be: 1, 2, 3, 5"):
        bad.check()
    BadImages(limit=0).check()


def test_evaluation_names_bad_images_too(caplog):
    batches = list(evaluation_batches(_numbered([*_jpegs(2), b"no"]), "test", SPEC, batch_size=2))
    assert [weights.numpy().tolist() for _, _, weights in batches] == [[1, 1], [0]]
    assert [record.message for record in caplog.records] == ["Left out, since it cannot be decoded: 2"]


def test_a_batch_without_an_image_that_can_be_decoded_is_left_out():
    for images, expected in (([*_jpegs(2), b"no"], [2]), ([b"no", b"no", *_jpegs(1)], [1]), ([b"no"], [])):
        batches = readable_batches(_numbered(images), "test", SPEC, batch_size=2)
        assert [len(inputs) for inputs, _ in batches] == expected


def test_what_is_unknown_is_refused(digits):
    with pytest.raises(ValueError, match=r"'test', 'train', 'validation'.*such as --train_split=train\["):
        evaluation_batches(digits, "dev", SPEC, batch_size=1)
    with pytest.raises(ValueError, match=r"'modern'.*'mixup'"):
        _train(digits, augmentation="mixup")


@pytest.fixture
def data_service():
    """A function that starts a tf.data service in this process with some workers, and returns its address."""
    service = tf.data.experimental.service
    servers = []

    def start(workers):
        servers.append(service.DispatchServer())
        address = servers[0].target
        for _ in range(workers):
            config = service.WorkerConfig(dispatcher_address=address.split("://")[1])
            servers.append(service.WorkerServer(config))
        return address

    yield start
    for server in reversed(servers):
        server._stop()


def test_a_data_service_with_one_worker_gives_the_same_stream(digits, data_service):
    options = {"start_example": 100, "augmentation": "modern"}
    remote = _train(digits, data_service=data_service(1), **options)
    assert _examples(remote, SIZE) == _examples(_train(digits, **options), SIZE)


def test_a_data_service_deals_out_whole_epochs_and_bad_images_are_named_here(data_service):
    source, bad = _numbered([*_jpegs(5), b"no image"]), BadImages()
    remote = _train(source, data_service=data_service(2), batch_size=6, bad_images=bad)
    for _, labels, weights in remote.take(8):
        assert sorted(labels.numpy()) == [*range(6)]
        assert weights.numpy().tolist() == (labels.numpy() != 5).astype(float).tolist()
    assert bad.names == ("5",)
