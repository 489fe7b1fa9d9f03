import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sqz_keras import ModelSpec
from sqz_keras.architecture.spec import imagenet_wnids
from sqz_keras.files import locked
from sqz_keras.images.files import read_image
from trainers.data import imagenet
from trainers.data.batches import evaluation_batches
from trainers.data.source import open_dataset

# Two of the odd images of the real training set, under their own names: CMYK, and PNG called .JPEG.
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"
TRUE_LABELS = pathlib.Path(tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")).read_text().split()


def _tar(path, files):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _tar_bytes(files, tmp_path):
    _tar(tmp_path / "inner.tar", files)
    data = (tmp_path / "inner.tar").read_bytes()
    (tmp_path / "inner.tar").unlink()
    return data


def _saved(image, kind):
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def _validation_tar(folder, images, ids):
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in ids]
    _tar(folder / "ILSVRC2012_img_val.tar", dict(zip(names, images, strict=False)))


@pytest.fixture(scope="module")
def images(test_data):
    return [path.read_bytes() for path in sorted((test_data / "images" / "imagenet_sample").iterdir())[:8]]


@pytest.fixture(scope="module")
def manual_dir(images, tmp_path_factory):
    """The two tars in the official layout, with three classes and six validation images."""
    folder = tmp_path_factory.mktemp("tars")
    image = Image.fromarray(read_image(images[0]))
    classes = {
        "n01440764": {f"n01440764_{n}.JPEG": data for n, data in enumerate(images[:3])},
        "n01739381": {CMYK: _saved(image.convert("CMYK"), "JPEG"), "n01739381_2.JPEG": images[3]},
        "n02105855": {PNG: _saved(image, "PNG")},
    }
    inner = {f"{wnid}.tar": _tar_bytes(files, folder) for wnid, files in classes.items()}
    _tar(folder / "ILSVRC2012_img_train.tar", inner)
    _validation_tar(folder, images, range(1, 7))
    return folder


@pytest.fixture(scope="module")
def data_dir(manual_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    assert imagenet.prepare_imagenet(manual_dir, folder, allow_partial=True) == {"train": 6, "validation": 6}
    return folder


def test_the_prepared_dataset_is_what_training_reads(data_dir, images):
    source = open_dataset("imagenet2012", data_dir)
    assert source.labels == imagenet_wnids() and source.sizes == {"train": 6, "validation": 6}
    for record in source.records("train").as_numpy_iterator():
        assert source.labels[record["label"]] == record["id"].decode().split("_")[0]
    for record in source.records("validation").as_numpy_iterator():
        number = int(record["id"].decode().removesuffix(".JPEG").rsplit("_", 1)[1])
        assert source.labels[record["label"]] == TRUE_LABELS[number - 1]
        assert record["image"] == images[number - 1]


def test_cmyk_and_png_images_are_seen_in_their_colours(data_dir, images):
    source, spec = open_dataset("imagenet2012", data_dir), ModelSpec()
    ids = [record["id"].decode() for record in source.records("train").as_numpy_iterator()]
    ((images, _, weights),) = evaluation_batches(source, "train", spec, batch_size=6)
    assert (weights.numpy() == 1).all()
    by_id = dict(zip(ids, images.numpy(), strict=True))
    original = by_id["n01440764_0.JPEG"]
    for name in (CMYK, PNG):
        assert np.abs(by_id[name] - original).mean() < 4, name


def test_a_second_call_verifies_only(data_dir):
    assert imagenet.prepare_imagenet(None, data_dir, allow_partial=True) == {"train": 6, "validation": 6}
    with pytest.raises(ValueError, match=r"6 train records.*expected 1,281,167"):
        imagenet.prepare_imagenet(None, data_dir)


def _copied(manual_dir, tmp_path):
    return pathlib.Path(shutil.copytree(manual_dir, tmp_path / "tars"))


def _refused(manual_dir, tmp_path, message, **options):
    with pytest.raises(ValueError, match=message):
        imagenet.prepare_imagenet(manual_dir, tmp_path / "data", **options)
    assert not list((tmp_path / "data").rglob("*.json")), "nothing is left that training could read"


def test_validation_images_with_gaps_are_refused(manual_dir, images, tmp_path):
    """TensorFlow Datasets would label the images 7 and 30 as 2 and 3."""
    tars = _copied(manual_dir, tmp_path)
    _validation_tar(tars, images, [1, 7, 30])
    _refused(
        tars, tmp_path, r"images 1 to 3, each once, and holds 3 up to 30, missing 2, 3, 4, \.\.\.", allow_partial=True
    )


def test_wrong_labels_in_a_prepared_dataset_are_found(manual_dir, images, tmp_path):
    """TensorFlow Datasets alone has made the dataset, from the tar with gaps."""
    tars = _copied(manual_dir, tmp_path)
    _validation_tar(tars, images, [1, 7, 30])
    builder = tfds.builder("imagenet2012", data_dir=tmp_path / "data", try_gcs=False)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))
    with pytest.raises(ValueError, match=r"2 validation records have a wrong label, such as .*000000(07|30)\.JPEG"):
        imagenet.prepare_imagenet(None, tmp_path / "data", allow_partial=True)


def test_a_training_image_in_another_class_is_found(manual_dir, images, tmp_path):
    tars = _copied(manual_dir, tmp_path)
    inner = _tar_bytes({"n01440764_5.JPEG": images[0], "n02105855_6.JPEG": images[1]}, tmp_path)
    _tar(tars / "ILSVRC2012_img_train.tar", {"n01440764.tar": inner})
    _refused(tars, tmp_path, "1 train records have a wrong label, such as n02105855_6.JPEG", allow_partial=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tar: tar[:1500], r"damaged, empty or .*unexpected end of data\. Download it again"),
        (lambda tar: b"<html>" * 1000, "damaged, empty or .*invalid header"),
        (lambda tar: bytes(10240), "damaged, empty or .*No examples were yielded"),
    ],
)
def test_a_broken_tar_of_a_class_is_refused(manual_dir, images, tmp_path, change, message):
    tars = _copied(manual_dir, tmp_path)
    inner = change(_tar_bytes({"n01440764_5.JPEG": images[0]}, tmp_path))
    _tar(tars / "ILSVRC2012_img_train.tar", {"n01440764.tar": inner})
    _refused(tars, tmp_path, message, allow_partial=True)


def test_partial_tars_are_refused_unless_allowed(manual_dir, tmp_path):
    _refused(manual_dir, tmp_path, r"bytes, and the official one 147,897,477,120.*--allow_partial")


@pytest.mark.parametrize("name", imagenet.TARS.values())
def test_a_missing_or_broken_tar_is_refused(manual_dir, tmp_path, name):
    tars = _copied(manual_dir, tmp_path)
    (tars / name).write_bytes(b"<html>" * 1000)
    _refused(tars, tmp_path, f"{name} is not a readable tar", allow_partial=True)
    (tars / name).unlink()
    _refused(tars, tmp_path, f"{name} is missing", allow_partial=True)
    _refused(None, tmp_path, "give --manual_dir")


def test_what_would_be_in_the_way_of_the_dataset_is_refused_before_the_work(manual_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda *_, **__: pytest.fail("prepared"))
    final = pathlib.Path(tfds.builder("imagenet2012", data_dir=tmp_path / "data", try_gcs=False).data_dir)
    final.mkdir(parents=True)
    with locked(final.parent):
        _refused(manual_dir, tmp_path, "Another process works in", allow_partial=True)
    (final / "imagenet2012-train.tfrecord-00000-of-00001").touch()
    _refused(manual_dir, tmp_path, f"{final} holds files that are in the way", allow_partial=True)


def test_other_names_are_refused(manual_dir, images, tmp_path):
    tars = _copied(manual_dir, tmp_path)
    _tar(tars / "ILSVRC2012_img_val.tar", {"./ILSVRC2012_val_00000001.JPEG": images[0]})
    _refused(tars, tmp_path, r"such as ILSVRC2012_val_00000001.JPEG; \./ILSVRC", allow_partial=True)
    _tar(tars / "ILSVRC2012_img_train.tar", {"n00000000.tar": b""})
    _refused(tars, tmp_path, "one tar per class.*n00000000.tar", allow_partial=True)
