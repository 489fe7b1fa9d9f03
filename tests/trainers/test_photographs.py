import pytest

from sqz_keras import ModelSpec
from sqz_keras.spec import imagenet_wnids
from trainers.photographs import class_labels, find_photographs

LABELS = ("cat", "dog", "dog_small")


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _found(root):
    return [(path.relative_to(root).as_posix(), index) for path, index in find_photographs(root, LABELS)]


def test_class_folders(tmp_path):
    _touch(tmp_path, "dog/b.JPG", "dog/a.png", "cat/c.jpeg", "cat/notes.txt", "cat/.hidden.png", "README", ".git/x.png")
    assert _found(tmp_path) == [("cat/c.jpeg", 0), ("dog/a.png", 1), ("dog/b.JPG", 1)]


def test_names_with_a_label_in_front(tmp_path):
    _touch(tmp_path, "cat_1.png", "dog_small_1.png", "dog_big_1.png", "list.csv")
    assert _found(tmp_path) == [("cat_1.png", 0), ("dog_big_1.png", 1), ("dog_small_1.png", 2)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/a.png", "horse/a.png"], "such as 'cat'.*'horse/?'"),
        (["cat_1.png", "horse_1.png"], "such as 'cat_'.*'horse_1.png'"),
        (["cat.png"], "'cat.png'"),
        (["cat/notes.txt"], "no photographs"),
        (["notes.txt"], "no photographs"),
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
