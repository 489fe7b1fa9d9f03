"""sqz-predict --image_dir: a line for every image, whatever happens, and no image is sent twice."""

import io
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from export import contract, predict
from export.client import folder as client_folder
from export.client.answers import AnswersFile
from export.client.client import Client, Prediction
from export.client.folder import predict_folder
from export.client.progress import Progress
from sqz_keras.files import InUseError
from tests.export.samples import encode, random_image


@pytest.fixture
def photos(tmp_path):
    """A folder with 40 images, one of them damaged and one rotated by its EXIF."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    for number in range(38):
        name = f"more/{number:02}.jpg" if number % 3 else f"{number:02}.png"
        (root / name).write_bytes(encode(random_image(20, 24, seed=number), "PNG" if number % 3 == 0 else "JPEG"))
    (root / "more" / "damaged.jpg").write_bytes(encode(random_image(20, 20))[:200])
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "more" / "rotated.jpg").write_bytes(encode(random_image(30, 50), exif=exif))
    return root


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(root):
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.*g")) if path.is_file()]


def test_every_image_gets_a_line_in_order(target, client, photos, tmp_path, run_command, capsys):
    output = tmp_path / "answers.jsonl"
    assert run_command(predict, f"--server={target}", f"--image_dir={photos}", f"--output={output}", "--top=2") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}: 40 answers, 1 of them of images that cannot be read\n"
    assert "40 of 40 images" in printed.err
    lines = lines_of(output)
    assert [line["image"] for line in lines] == names_in(photos)
    for line in lines:
        if line["image"] == "more/damaged.jpg":
            assert line == {"image": "more/damaged.jpg", "status": contract.STATUS_DAMAGED}
            continue
        (expected,) = client.predict(photos / line["image"])
        assert (line["status"], line["classes"]) == ("OK", list(expected.classes[:2]))
        assert line["class_ids"] == list(expected.class_ids[:2])
        assert line["model_version"] == expected.model_version == client.available_versions()[-1]
        np.testing.assert_allclose(line["scores"], expected.scores[:2], atol=1e-5)


class Counting:
    """A client that answers every image at once, and fails after `fails_at` answers."""

    def __init__(self, fails_at=None):
        self.answered, self._fails_at = 0, fails_at

    def predict_stream(self, images):
        for _ in images:
            if self.answered == self._fails_at:
                raise ConnectionError("the server is gone")
            self.answered += 1
            yield Prediction("OK", ("a",), (0,), (1.0,), np.ones(1, np.float32))


def test_a_run_that_was_stopped_is_resumed(photos, tmp_path):
    output = tmp_path / "answers.jsonl"
    with pytest.raises(ConnectionError):
        predict_folder(Counting(fails_at=7), photos, output, 1)
    assert len(lines_of(output)) == 7
    finished = output.read_bytes()
    output.write_bytes(finished + b'{"image": "more/0')  # as a power failure leaves it
    counting = Counting()
    assert predict_folder(counting, photos, output, 1) == f"{output}: 40 answers; 7 are kept from an earlier run"
    assert counting.answered == 33
    assert output.read_bytes().startswith(finished)
    assert [line["image"] for line in lines_of(output)] == names_in(photos)
    again = Counting()
    predict_folder(again, photos, output, 1)
    assert again.answered == 0


def test_answers_to_another_folder_are_not_taken_for_this_ones(photos, tmp_path):
    output = tmp_path / "answers.jsonl"
    predict_folder(Counting(), photos / "more", output, 1)
    before = output.read_bytes()
    with pytest.raises(ValueError, match=r"has answers, and none to an image of .*photos: they are another"):
        predict_folder(Counting(), photos, output, 1)
    assert output.read_bytes() == before
    (photos / "more" / "01.jpg").unlink()
    answers = len(lines_of(output))
    assert predict_folder(Counting(), photos / "more", output, 1).startswith(f"{output}: {answers} answers")


def test_an_error_that_may_pass_is_no_answer(photos, tmp_path, monkeypatch):
    """For example, a network disk that cannot be reached for a while."""
    output = tmp_path / "answers.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            predict_folder(Counting(), photos, output, 1)
    assert output.read_bytes() == b""
    assert predict_folder(Counting(), photos, output, 1) == f"{output}: 40 answers"


def test_a_line_that_lacks_its_end_alone_is_kept(photos, tmp_path):
    output = tmp_path / "answers.jsonl"
    predict_folder(Counting(), photos, output, 1)
    whole = output.read_bytes()
    output.write_bytes(whole[:-1])
    again = Counting()
    predict_folder(again, photos, output, 1)
    assert again.answered == 0
    (photos / "new.jpg").write_bytes((photos / "more" / "01.jpg").read_bytes())
    predict_folder(again, photos, output, 1)
    assert again.answered == 1
    assert output.read_bytes().startswith(whole) and len(lines_of(output)) == 41


def test_a_process_that_is_killed_leaves_whole_lines(target, photos, tmp_path):
    for number in range(300):
        (photos / f"copy{number:03}.jpg").write_bytes(encode(random_image(300, 400, seed=number)))
    output = tmp_path / "answers.jsonl"
    command = ["-m", "export.predict", f"--server={target}", f"--image_dir={photos}", f"--output={output}"]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (output.exists() and output.stat().st_size > 2000):
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = output.read_bytes().count(b"\n")
    assert 0 < before < 340
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    assert [line["image"] for line in lines_of(output)] == names_in(photos)


def test_images_that_cannot_be_sent_stop_no_others(photos, tmp_path, monkeypatch):
    sent = photos / "more" / "01.jpg"
    gone = photos / "gone.jpg"
    huge = photos / "huge.png"
    huge.write_bytes(encode(random_image(60, 60), "PNG"))
    monkeypatch.setattr(contract, "MAX_MESSAGE_BYTES", (1 << 16) + huge.stat().st_size - 1)
    video = photos / "video.gif"
    with open(video, "wb") as file:
        file.truncate(2 << 30)
    monkeypatch.setattr(client_folder, "find_images", lambda _: [gone, huge, sent, video])
    counting = Counting()
    output = tmp_path / "answers.jsonl"
    predict_folder(counting, photos, output, 1)
    lines = lines_of(output)
    assert [line["status"] == "OK" for line in lines] == [False, False, True, False]
    assert "gone.jpg" in lines[0]["status"] and "bytes" in lines[1]["status"]
    assert "an image's file at most" in lines[3]["status"]
    assert counting.answered == 1


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b'{"image": "a.jpg"}\n',
        b"[]\n",
        b"\xff\xfe\n",
        b"3\n{}\n",
        b"notes",
        b'{"image": "a.jpg", "label": 3}',
        b"[" * 100_000 + b"\n",
        b'{"image": "a.jpg", "status": "OK"}\r{"image": "b.jpg", "status": "OK"}\r',
    ],
)
def test_a_file_of_something_else_is_left_alone(photos, tmp_path, content):
    output = tmp_path / "other"
    output.write_bytes(content)
    with pytest.raises(ValueError, match="not written by sqz-predict"):
        predict_folder(Counting(), photos, output, 1)
    assert output.read_bytes() == content


def test_a_device_is_no_file_of_answers():
    """What is written to a device cannot be read again, and reading some devices, such as /dev/full, never ends."""
    with pytest.raises(ValueError, match="must be a regular file"):
        AnswersFile(os.devnull, 1)


def test_two_runs_do_not_write_one_file(tmp_path):
    with AnswersFile(tmp_path / "answers", 1) as first:
        first.write_failure("a.jpg", "damaged")
        with pytest.raises(InUseError, match=r"Another process writes .*answers; wait"):
            AnswersFile(tmp_path / "answers", 1)
    with AnswersFile(tmp_path / "answers", 1) as second:
        assert second.answered == {"a.jpg"}


def test_names_of_any_bytes_are_kept(tmp_path):
    name = b"\xff\xe4 \n.jpg".decode("utf-8", "surrogateescape")
    with AnswersFile(tmp_path / "answers", 1) as answers:
        answers.write_failure(name, "ä")
    with AnswersFile(tmp_path / "answers", 1) as answers:
        assert answers.answered == {name}
        assert answers.unreadable == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_dir=a"], "belong together"),
        (["--output=a"], "belong together"),
        (["--image_dir=a", "--output=b", "--image=c"], "not both"),
        ([], "Which image"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(run_command, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_command(predict, *arguments)


def test_no_server_leaves_what_is_there(photos, tmp_path):
    output = tmp_path / "answers.jsonl"
    with pytest.raises(ConnectionError):
        predict_folder(Counting(fails_at=3), photos, output, 1)
    before = output.read_bytes()
    with Client("127.0.0.1:1", timeout_seconds=0.2) as client, pytest.raises(OSError, match="UNAVAILABLE"):
        predict_folder(client, photos, output, 1)
    assert output.read_bytes() == before


def test_progress_says_how_far_it_is():
    log = io.StringIO()
    with Progress(1000, 500, log) as progress:
        for _ in range(250):
            progress.update()
        text = progress.text(progress._start + 25)
    assert text == "[######################........] 750 of 1,000 images, 10.0 a second, 0:00:25 left"
    assert log.getvalue().count("\n") == 1 and "\r" not in log.getvalue()
    assert Progress(10, 10, log).text(time.monotonic()).endswith("10 of 10 images")
