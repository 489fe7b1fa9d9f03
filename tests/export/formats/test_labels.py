"""sqz-export --labels: class names instead of the model's own."""

import pytest

from export import export
from sqz_keras import ModelSpec, codec, resolve_model
from sqz_keras.architecture.spec import imagenet_classes, imagenet_wnids
from sqz_keras.weights import sqz
from sqz_keras.weights.labels import read_labels, with_labels


@pytest.fixture
def flags(spec, arrays, tmp_path):
    (tmp_path / "model.sqz").write_bytes(codec.encode(arrays, sqz.header(spec, arrays, {"stages": []})))
    names = [f"--model={tmp_path / 'model.sqz'}", f"--labels={tmp_path / 'labels.txt'}"]
    return [*names, f"--base_path={tmp_path / 'served'}", "--model_version=1"]


def test_labels_of_a_file_replace_those_of_the_model(flags, spec, tmp_path, run_command, in_this_process):
    labels = tuple(f"Zahl {index} größer" for index in range(10))
    (tmp_path / "labels.txt").write_text("\n".join(labels), "utf-8-sig")  # as an editor on Windows saves it
    run_command(export, *flags)
    assert spec.labels != labels
    assert resolve_model(tmp_path / "served" / "1")[0].labels == labels
    assert tuple((tmp_path / "served/1/assets/labels.txt").read_text("utf-8").splitlines()) == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n", "10 different names"),
        (b"crane\nowl\ncrane\n3\n4\n5\n6\n7\n8\n9\n", "got 10, 9 of them different: 'crane' is there more than once"),
        (None, "No such file"),
        ("größer\n".encode("latin-1") * 10, r"labels\.txt: expected text in UTF-8 .* Save it as UTF-8"),
        ("one\n".encode("utf-16") * 10, "Save it as UTF-8"),
        ("one\n".encode("utf-16-le") * 10, "Save it as UTF-8"),
        (b'{"0": ["n01440764", "tench"]}', "got JSON or Python. Write each name on a line of its own"),
        (b"{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", "got JSON or Python. Write each name"),
        (b'{"0": "tench"}\n{"1": "goldfish"}\n', "got JSON or Python. Write each name"),
        (b"1 tench\n0 goldfish\n", "got numbered lines such as '1 tench'. Write the names alone, in the order of"),
        (b"1. tench\n2. goldfish\n", "got numbered lines such as '1. tench'"),
        (b"tench,0\ngoldfish,1\n", "got numbered lines such as 'tench,0'"),
        (
            b"n02119789 7 kit_fox\nn02100735 3 English_setter\n",
            "got ids of ImageNet beside the names",
        ),
        (b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n", "Write the names alone, or the ids alone"),
        (b"n01440764\ttench\nn01443537\tgoldfish\n", "got ids of ImageNet beside the names"),
        (b"tench,n01440764\ngoldfish,n01443537\n", "got ids of ImageNet beside the names"),
        (b"0: crane\n1: owl\n2: crane\n", "got numbered lines such as '0: crane'"),
        (b"class2,1\nclass1,0\n", "got numbered lines such as 'class2,1'"),
        (b'"1","dog"\n"0","cat"\n', "got numbered lines"),
        (b"dog: 1\ncat: 0\n", "got numbered lines"),
        (b"dog=1\ncat=0\n", "got numbered lines"),
        (b"dog 1\ncat 0\n", "got numbered lines"),
        (b"1|dog\n0|cat\n", "got numbered lines"),
        (b"1\t10 euro\n0\t20 euro\n", "got numbered lines"),
        (b"index,name\n1,dog\n0,cat\n", "got numbered lines"),
        (b"n1,1,dog\nn2,0,cat\n", "got numbered lines"),
        (b"1 dog\n0 007 spy\n", "got numbered lines"),
        (b"1 dog\n2 cat\n3 cow\n", "got numbered lines"),
        (b"dog 3\ncat 1\ncow 2\n", "got numbered lines"),
        (b"#1 dog\n#0 cat\n", "got numbered lines"),
        (b"(1) dog\n(2) cat\n", "got numbered lines"),
        (b"[0] dog\n[1] cat\n", "got numbered lines"),
        (b"02.dog\n01.cat\n", "got numbered lines"),
        (b"01. cat\n02. dog\n", "got numbered lines"),
        (b"dog,\ncat,\n", "got lines such as 'dog,'. Write the names alone"),
        (b"* dog\n* cat\n", r"got lines such as '\* dog'\. Write the names alone"),
        (b"'cat',\n'dog'\n", r"got lines such as .*'cat'.*Write the names alone"),
        (b"- cat\n- dog\n", "got lines such as '- cat'. Write the names alone"),
        (b"a" * ((1 << 20) + 1), "got more than 1048576 bytes"),
        (b"0\n1\n2\n3\n4\n5\n6\n7\n8\n\x1b[2J9\n", "names without control characters"),
        (b"\n \n", "got an empty file"),
        (b"0\n1\n\n3\n4\n5\n6\n7\n8\n9\n", "got a blank line 3. Remove it"),
    ],
)
def test_other_labels_are_refused_before_anything_is_written(flags, tmp_path, run_command, content, message):
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises((ValueError, OSError), match=message):
        run_command(export, *flags)
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize(
    "text",
    [
        "1 euro\n2 euro",
        "1 dollar\n2 dollars",
        "#1 fan\n#2 fan",
        "0\n1\n2",
        "0.5\n1.5",
        "5 cm\n0 cm",
        "[a]\nb",
        "tench, Tinca\nb, c",
        "n02119789 kit\nn02100735",
        "red 0\nred 1\nblue 2\nblue 3",
        "digit 0\ndigit 1",
        "grade: 1\ngrade: 2\ngrade: 3",
        "001.ak47\n002.american-flag\n003.backpack",
        "it's 'a'\n'b'",
        "0\n1\n2\n3\n4\n5\n6\n7\n8\n9",
        "\n".join(name for _, name in imagenet_classes()),
        "\n".join(imagenet_wnids()),
    ],
    ids=lambda text: text[:20],
)
def test_numbers_may_be_names(tmp_path, text):
    (tmp_path / "labels.txt").write_text(text)
    assert read_labels(tmp_path / "labels.txt") == tuple(text.split("\n"))


@pytest.mark.parametrize("text", ["cat\r\ndog\r\n\r\n", " cat \ndog\t\n\n", "cat\ndog", "\ufeff\ufeffcat\n\ufeffdog"])
def test_spaces_and_blank_lines_at_the_end_are_no_part_of_a_name(tmp_path, text):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert read_labels(tmp_path / "labels.txt") == ("cat", "dog")


def test_the_own_names_of_a_model_in_another_order_are_refused(flags, spec, tmp_path, run_command):
    """A program may list them in an order of its own; classes would then get each other's names."""
    (tmp_path / "labels.txt").write_text("\n".join(reversed(spec.labels)))
    with pytest.raises(ValueError, match=f"the model's own names in another order, first {spec.labels[-1]!r} instead"):
        run_command(export, *flags)
    assert not (tmp_path / "served").exists()
    with pytest.raises(ValueError, match="in another order"):
        with_labels(ModelSpec("1.1", labels=imagenet_wnids()), imagenet_wnids()[::-1])
    assert with_labels(spec, spec.labels) == spec
    nameless = ModelSpec("1.1", classes=3)
    assert with_labels(nameless, ("2", "0", "1")).labels == ("2", "0", "1")
