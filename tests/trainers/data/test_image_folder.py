import os

import numpy as np
import pytest
from PIL import Image

from sqz_keras import ModelSpec, Preprocessing
from trainers.data.batches import evaluation_batches, training_batches
from trainers.data.image_folder import check_is_no_class, open_image_dir

SPEC = ModelSpec("1.1", classes=2, input_size=16, preprocessing=Preprocessing(resize_to=16))


def _write(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png"):
            Image.new("RGB", (20, 18), (number, 0, 0)).save(path)
        else:
            path.write_text("notes")


def _ids(source, split):
    return {record["id"].decode(): int(record["label"]) for record in source.records(split).as_numpy_iterator()}


def test_split_folders(tmp_path):
    _write(
        tmp_path, "train/dog/1.jpg", "train/cat/2.PNG", "train/cat/a.txt", "val/cat/3.jpg", "train/.x/1.jpg", "list.csv"
    )
    source = open_image_dir(tmp_path)
    assert source.labels == ("cat", "dog") and source.sizes == {"train": 2, "validation": 1}
    assert _ids(source, "train") == {"train/dog/1.jpg": 1, "train/cat/2.PNG": 0}
    assert _ids(source, "validation") == {"val/cat/3.jpg": 0}
    ((images, labels, weights),) = evaluation_batches(source, "train", SPEC, batch_size=5)
    assert images.shape == (2, 16, 16, 3) and sorted(labels.numpy()) == [0, 1] and set(weights.numpy()) == {1}


def test_class_folders_are_split_by_position(tmp_path):
    _write(tmp_path, *(f"cat/{n:02}.jpg" for n in range(11)), *(f"dog/{n:02}.jpg" for n in range(5)))
    source = open_image_dir(tmp_path)
    assert _ids(source, "validation") == {"cat/04.jpg": 0, "cat/09.jpg": 0, "dog/04.jpg": 1}
    assert source.sizes == {"train": 13, "validation": 3} and len(_ids(source, "train")) == 13
    assert not set(_ids(source, "train")) & set(_ids(source, "validation"))


def test_an_accent_may_be_a_character_of_its_own(tmp_path):
    _write(tmp_path, "train/caf\u00e9/1.jpg", "train/cafe\u0301/2.jpg", "train/dog/1.jpg", "val/cafe\u0301/3.jpg")
    source = open_image_dir(tmp_path)
    assert source.labels == ("caf\u00e9", "dog")
    assert source.sizes == {"train": 3, "validation": 1}


def test_every_format_is_trained_on_and_other_files_are_named(tmp_path, capsys):
    for number, suffix in enumerate(("webp", "tiff", "BMP", "gif", "png")):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (20, 18), (10 * number, 0, 0)).save(tmp_path / "cat" / f"{number}.{suffix}")
    _write(tmp_path, *(f"dog/{number}.jpg" for number in range(5)))
    source = open_image_dir(tmp_path)
    assert source.sizes == {"train": 8, "validation": 2} and source.needs_python
    ((images, _, weights),) = evaluation_batches(source, "train", SPEC, batch_size=8)
    assert images.shape == (8, 16, 16, 3) and set(weights.numpy()) == {1}
    assert capsys.readouterr().err == ""
    (tmp_path / "cat" / "raw.cr2").touch()
    assert open_image_dir(tmp_path).sizes == source.sizes
    assert "left out 1 file without the suffix of an image: cat/raw.cr2" in capsys.readouterr().err
    with pytest.raises(ValueError, match="neither JPEG nor PNG"):
        training_batches(
            source, "train", SPEC, batch_size=1, seed=0, shuffle_buffer_size=1, data_service="grpc://127.0.0.1:1"
        )


def test_misplaced_images_are_named(tmp_path, capsys):
    _write(tmp_path, *(f"{label}/{n}.jpg" for n in range(5) for label in ("cat", "dog")))
    open_image_dir(tmp_path)
    assert capsys.readouterr().err == ""
    _write(
        tmp_path, "loose.jpg", "cat/kittens/1.jpg", "cat/.x/1.jpg", ".x/1.jpg", "__MACOSX/cat/._1.jpg", "@eaDir/1.jpg"
    )
    assert open_image_dir(tmp_path).sizes == {"train": 8, "validation": 2}
    message = (
        "left out 2 files outside of the classes' folders, or in folders inside those: cat/kittens/1.jpg, loose.jpg"
    )
    assert message in capsys.readouterr().err
    _write(tmp_path / "split", "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "loose.jpg")
    open_image_dir(tmp_path / "split")
    assert "left out 1 file outside of the classes' folders" in capsys.readouterr().err


@pytest.mark.parametrize("root", ["", "train", "val"])
def test_links_to_nothing_are_named(tmp_path, capsys, root):
    """Such as the link to a class on a disk that is not mounted, or to itself."""
    parts = ("train/", "val/") if root else ("",)
    _write(tmp_path, *(f"{part}{label}/{n}.jpg" for n in range(5) for label in ("cat", "dog") for part in parts))
    sizes = open_image_dir(tmp_path).sizes
    assert capsys.readouterr().err == ""
    for name, links in (("cat/loop", 1), ("fox", 2)):
        (tmp_path / root / name).symlink_to("loop")
        assert open_image_dir(tmp_path).sizes == sizes
        s = "s" * (links > 1)
        assert (
            f"left out {links} file{s} without the suffix of an image, or links to nothing: " in capsys.readouterr().err
        )


def test_names_that_are_no_text(tmp_path):
    """As when an archive with Latin-1 names is unpacked."""
    names = [os.fsdecode(f"{label}/{n} é\n.jpg".encode("latin-1")) for n in range(5) for label in ("cat", "dog")]
    try:
        _write(tmp_path, *names)
    except OSError:
        pytest.skip("this file system takes text alone")
    source = open_image_dir(tmp_path)
    ((images, _, weights),) = evaluation_batches(source, "train", SPEC, batch_size=8)
    assert images.shape == (8, 16, 16, 3) and set(weights.numpy()) == {1}


def test_records_are_mixed_and_in_a_fixed_order(tmp_path):
    _write(tmp_path, *(f"{label}/{n}.jpg" for label in "ab" for n in range(25)))
    orders = [list(_ids(open_image_dir(tmp_path), "train").items()) for _ in range(2)]
    assert orders[0] == orders[1]
    labels = np.array([label for _, label in orders[0]])
    assert 5 < labels[:20].sum() < 15


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg"], "no folders"),
        (["cat/notes.txt"], "cat holds no images .* and 'test'\\.$"),
        (["images/cat/1.jpg"], "images holds no images .* are the classes, give --image_dir=.*images\\.$"),
        (["Train/cat/1.jpg", "Val/cat/1.jpg"], "Train holds no images .* splits must be called 'train', 'val'"),
        (["cat/1.jpg", "cat/2.jpg"], "'cat' is too small, with 2 of the 5 images"),
        ([f"images/{n}.jpg" for n in range(5)], "holds one class, 'images'; expected a folder of images for each"),
        (["train/cat/1.jpg", "test/cat/1.jpg"], "expected 'val' beside it.* or give --image_dir=.*train"),
        (
            ["train/1.jpg", "bus/1.jpg"],
            "train holds no folders; .* If 'train' is a class itself, give its folder another",
        ),
        (["train/cat/1.jpg", "val/cat/1.jpg", "validation/cat/2.jpg"], "holds validation and val; expected one"),
        (["train/cat/1.jpg", "val/dog/1.jpg"], "'dog', a class that the train split lacks"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, names, message):
    _write(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        open_image_dir(tmp_path)


def test_images_of_other_folders_beside_the_splits_are_named(tmp_path, capsys):
    for validation in ("val", "validation", "valid"):
        root = tmp_path / validation
        names = [f"{split}/{label}/1.jpg" for split in ("train", validation, "other") for label in ("cat", "dog")]
        _write(root, *names, "more/1.jpg", ".hidden/1.jpg")
        assert open_image_dir(root).sizes == {"train": 2, "validation": 2}
        assert "left out 3 files outside of the classes' folders" in (error := capsys.readouterr().err)
        assert "more/1.jpg, other/cat/1.jpg" in error


def test_classes_that_a_split_lacks_are_named(tmp_path, capsys):
    _write(
        tmp_path, *(f"train/{label}/1.jpg" for label in "abcdef"), "val/f/1.jpg", *(f"test/{x}/1.jpg" for x in "abcdef")
    )
    assert open_image_dir(tmp_path).class_sizes["validation"].tolist() == [0, 0, 0, 0, 0, 1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "validation split has no images of 5 of 6 classes, whose accuracy is not measured there: a, b, c, ..."
    )


def test_a_folder_to_write_to_is_no_class(tmp_path):
    _write(tmp_path, "flat/cat/1.jpg", "split/train/cat/1.jpg", "split/val/cat/1.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "flat")
    for folder in ("flat/run", "flat/cat/run", "flat", "link/run", "flat/../flat/run"):
        with pytest.raises(ValueError, match=r"is in --image_dir=.*, where it would become a class; give another one"):
            check_is_no_class(tmp_path / folder, tmp_path / "flat")
    with pytest.raises(ValueError, match="would become a class"):
        check_is_no_class(tmp_path / "split/train/run", tmp_path / "split")
    for folder, image_dir in (("run", "flat"), ("flat/.run", "flat"), ("split/run", "split"), ("flat2", "flat")):
        check_is_no_class(tmp_path / folder, tmp_path / image_dir)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        open_image_dir(tmp_path / "nothing")
