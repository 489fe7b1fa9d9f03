import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from trainers.data.source import Source, check_labels, open_dataset


def test_the_source_says_what_it_holds(digits):
    assert digits.labels == tuple("0123456789")
    assert digits.sizes == {"train": 1085, "validation": 357, "test": 355}
    ids = [record["id"] for record in digits.records("test").as_numpy_iterator()]
    assert len(set(ids)) == 355 and ids == [r["id"] for r in digits.records("test").as_numpy_iterator()]


def test_a_split_may_be_a_part_of_one(tfds_dir, digits):
    parts = ("train[:80%]", "train[80%:]")
    source = open_dataset("digits", tfds_dir, [*parts, "train[", "dev[:5]"])
    assert source.sizes == digits.sizes | {"train[:80%]": 868, "train[80%:]": 217}
    first, last = ({record["id"] for record in source.records(part).as_numpy_iterator()} for part in parts)
    assert len(first) == 868 and len(last) == 217 and not first & last
    assert not source.overlap(*parts) and source.overlap("train", parts[1]) and not source.overlap("train", "test")


def test_what_is_unknown_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no_such_dataset"):
        open_dataset("no_such_dataset", tmp_path)
    for name, message in (("digits:2.0.0", "version 2.0.0, only: 1.0.0"), ("digits/x=1", "argument 'x'")):
        with pytest.raises(ValueError, match=f"^Dataset '{name}' cannot be opened: .*{message}"):
            open_dataset(name, tmp_path)
    with pytest.raises(ValueError, match="sqz-prepare-imagenet"):
        open_dataset("imagenet2012", tmp_path)


def test_a_split_without_labels_is_refused(digits):
    check_labels(digits, "test")
    unlabelled = Source("numbered", ("any",), {"test": 1}, lambda _: tf.data.Dataset.from_tensors({"label": -1}))
    with pytest.raises(ValueError, match=r"'test' of numbered has no labels: its first one is -1.*--test_split"):
        check_labels(unlabelled, "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Such as depths.
        ({"image": tfds.features.Image(shape=(8, 8, 1), dtype=np.float32)}, "'image': Image.*float32"),
        ({"image": tfds.features.Tensor(shape=(8, 8, 3), dtype=np.uint8)}, "'image': Tensor"),
        ({"label": tfds.features.Scalar(np.int64)}, "'label': Scalar"),
        ({"label": tfds.features.Text()}, "'label': Text"),
    ],
)
def test_a_dataset_with_other_features_is_refused(tmp_path, monkeypatch, changes, message):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])} | changes
    info = types.SimpleNamespace(features=tfds.features.FeaturesDict(features))
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: types.SimpleNamespace(info=info))
    with pytest.raises(ValueError, match=f"^Dataset 'x' is not for image classification: .*{message}"):
        open_dataset("x", tmp_path)


def test_a_dataset_that_is_looked_up_in_vain_is_refused(tmp_path, monkeypatch):
    """As one of Hugging Face without a network."""
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: raised(RuntimeError("Name or\nservice not known")))
    with pytest.raises(ValueError, match=r"^Dataset 'huggingface:x' cannot be opened: Name or service not known$"):
        open_dataset("huggingface:x", tmp_path)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (AssertionError("Manual directory m does not exist"), ValueError, "cannot be prepared: Manual directory m"),
        (ModuleNotFoundError("No module\nx", name="x"), ValueError, "cannot be prepared: No module x"),
        (tfds.download.DownloadError("code 404"), OSError, "cannot be downloaded: code 404"),
        (
            NonMatchingChecksumError("wrong checksum:\n* Expected: a\n* Got: b"),
            OSError,
            r"cannot be downloaded: wrong checksum: \* Expected: a \* Got: b$",
        ),
    ],
)
def test_a_dataset_that_is_not_to_be_had(tmp_path, monkeypatch, error, kind, message):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda *_, **__: raised(error))
    with pytest.raises(kind, match=f"Dataset 'digits' {message}"):
        open_dataset("digits", tmp_path)


def test_a_dataset_that_tf_data_does_not_read_is_refused(tfds_dir, digits, monkeypatch):
    """Such as one that was prepared for Grain, as array_record; here tfrecord stands for it."""
    monkeypatch.setattr(tfds.core.FileFormat, "with_tf_data", set)
    with pytest.raises(ValueError, match=r"as tfrecord, which tf\.data does not read. Give another --data_dir"):
        open_dataset("digits", tfds_dir)


def raised(error):
    raise error
