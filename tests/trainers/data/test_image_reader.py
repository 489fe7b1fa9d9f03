import numpy as np
import pytest
from PIL import Image

from sqz_keras import ModelSpec, prepare_images
from sqz_keras.architecture.spec import imagenet_wnids
from sqz_keras.images.files import find_images
from trainers.data.image_reader import class_labels, find_labelled_images, read_inputs

LABELS = ("cat", "dog", "dog_small")


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _found(root):
    return [(path.relative_to(root).as_posix(), index) for path, index in find_labelled_images(root, LABELS)]


def test_class_folders(tmp_path):
    _touch(tmp_path, "dog/b.JPG", "dog/a.png", "cat/c.jpeg", "cat/notes.txt", "cat/.hidden.png", "README", ".git/x.png")
    _touch(tmp_path, "__MACOSX/cat/._c.jpeg", "@eaDir/c.jpeg", "cat/@eaDir/c.jpeg/thumbnail.jpg")
    assert _found(tmp_path) == [("cat/c.jpeg", 0), ("dog/a.png", 1), ("dog/b.JPG", 1)]


def test_misplaced_images_are_named(tmp_path, capsys):
    _touch(tmp_path, "dog/a.png", "cat/b.png", "cat/images/c.png", "cat_1.png", ".x/d.png", "dog/.x/e.png")
    assert _found(tmp_path) == [("cat/b.png", 0), ("dog/a.png", 1)]
    assert "left out 2 files outside of the classes' folders" in (message := capsys.readouterr().err)
    assert "cat/images/c.png, cat_1.png" in message


def test_class_folders_without_images_are_named(tmp_path, capsys):
    _touch(tmp_path, "dog/a.png", "cat/notes.txt")
    assert _found(tmp_path) == [("dog/a.png", 1)]
    assert "not measured, since there are no images in the folders of these classes: cat\n" in capsys.readouterr().err


def test_names_with_a_label_in_front(tmp_path):
    _touch(tmp_path, "cat_1.png", "dog_small_1.png", "dog_big_1.png", "list.csv")
    assert _found(tmp_path) == [("cat_1.png", 0), ("dog_big_1.png", 1), ("dog_small_1.png", 2)]


@pytest.mark.parametrize("image", ["caf\u00e9/a.png", "cafe\u0301/a.png", "caf\u00e9_a.png", "cafe\u0301_a.png"])
@pytest.mark.parametrize("label", ["caf\u00e9", "cafe\u0301"])
def test_an_accent_may_be_a_character_of_its_own(tmp_path, image, label):
    _touch(tmp_path, image)
    assert [index for _, index in find_labelled_images(tmp_path, ("cat", label))] == [1]


def test_links_to_nothing_are_counted(tmp_path, capsys):
    _touch(tmp_path, "cat/a.png", "cat/notes.txt")
    (tmp_path / "cat/b.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "cat/again").symlink_to(tmp_path / "cat/again")
    (tmp_path / "dog").symlink_to(tmp_path / "nothing")
    assert _found(tmp_path) == [("cat/a.png", 0)]
    message = "left out 4 files without the suffix of an image, or links to nothing: dog, cat/again, cat/b.png, ..."
    assert message in capsys.readouterr().err
    assert len(find_images(tmp_path)) == 1
    assert "left out 4 files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/a.png", "horse/a.png"], "such as 'cat'.*'horse/?'"),
        (["cat_1.png", "horse_1.png"], "such as 'cat_'.*'horse_1.png'"),
        (["cat.png"], "'cat.png'"),
        (
            ["train/cat/a.png", "val/cat/a.png"],
            r"Such folders are in \S+/train, \S+/val: give one of these as --image_dir",
        ),
        (["cat/notes.txt"], "no images"),
        (["notes.txt"], "no images"),
    ],
)
def test_what_matches_no_label_is_refused(tmp_path, names, message):
    _touch(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        _found(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        _found(tmp_path / "nothing")


def test_a_thousand_nameless_classes_are_imagenets():
    assert class_labels(ModelSpec()) == imagenet_wnids()
    with pytest.raises(ValueError, match="7 classes without labels"):
        class_labels(ModelSpec(classes=7))


def test_unlabelled_images_at_any_depth(tmp_path):
    _touch(tmp_path, "b.png", "2024/summer/a.JPG", "2024/notes.txt", "2024/.hidden.png")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["2024/summer/a.JPG", "b.png"]
    _touch(tmp_path, "c.png", "d.png", "e.png")
    assert [path.name for path in find_images(tmp_path, 3)] == ["a.JPG", "c.png", "e.png"]
    for folder in (tmp_path / "none", tmp_path / "b.png"):
        with pytest.raises(ValueError, match="not a folder"):
            find_images(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        find_images(tmp_path / "empty")


def test_hidden_folders_are_skipped_and_links_followed(tmp_path):
    """Notebooks keep copies of the images that they show, in .ipynb_checkpoints."""
    root = tmp_path / "images"
    _touch(root, "a/b.png", "a/.ipynb_checkpoints/b-checkpoint.png", ".trash/c.png")
    _touch(tmp_path, "elsewhere/d.png")
    for name, target in (("link", tmp_path / "elsewhere"), ("again", tmp_path / "elsewhere"), ("own", root / "a")):
        (root / name).symlink_to(target)
    (root / "a" / "loop").symlink_to(root)
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    assert [path.relative_to(root).as_posix() for path in find_images(root)] == ["a/b.png", "again/d.png"]


def test_inputs_without_those_that_cannot_be_read(tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "b.png")
    _touch(tmp_path, "a.png")
    spec = ModelSpec()
    inputs = read_inputs(find_images(tmp_path), spec)
    np.testing.assert_array_equal(inputs, prepare_images(image[None], spec))
    assert "a.png" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"None of the 1 .*a\.png"):
        read_inputs([tmp_path / "a.png"], spec)
