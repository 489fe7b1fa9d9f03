"""The client and sqz-predict: answers in order, limits kept, errors that say what to do."""

import socket

import grpc
import numpy as np
import pytest
from PIL import Image
from samples import encode, picture

from export import contract, predict
from export.client import Client, Prediction, ServingError
from sqz_keras import prepare_images
from sqz_keras.images import read_image


@pytest.fixture(scope="module")
def dead_target():
    """An address on which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_predictions_are_the_models(client, model, spec):
    image = np.asarray(picture(45, 61))
    want = model.predict_on_batch(prepare_images(image[None], spec))[0]
    best = np.argsort(-want, kind="stable")[:5]
    for (prediction,) in (client.predict_images(image[None]), client.predict_bytes([encode(picture(45, 61), "PNG")])):
        assert isinstance(prediction, Prediction)
        assert prediction.status == contract.STATUS_OK
        np.testing.assert_allclose(prediction.probabilities, want, atol=1e-5)
        assert prediction.class_ids == tuple(best)
        assert prediction.classes == tuple(spec.labels[index] for index in best)
        np.testing.assert_allclose(prediction.scores, want[best], atol=1e-5)


def test_more_pictures_than_a_call_takes(client):
    count = 2 * contract.MAX_BATCH_SIZE + 3
    pictures = [encode(picture(20, 20 + index % 7)) for index in range(count)]
    pictures[contract.MAX_BATCH_SIZE] = b"broken"
    predictions = client.predict_bytes(pictures)
    assert [index for index, each in enumerate(predictions) if each.status != "OK"] == [contract.MAX_BATCH_SIZE]
    for index in (0, 40, count - 1):
        want = client.predict_bytes([pictures[index]])[0].probabilities
        np.testing.assert_allclose(predictions[index].probabilities, want, atol=1e-6)
    images = np.stack([np.asarray(picture(20, 20, seed=index)) for index in range(count)])
    assert len({each.scores for each in client.predict_images(images)}) == count


def test_more_bytes_than_a_message_takes(client, monkeypatch):
    data = encode(picture(64, 64))
    monkeypatch.setattr(contract, "MAX_MESSAGE_BYTES", (1 << 16) + 2 * len(data))
    assert [each.status for each in client.predict_bytes([data] * 5)] == ["OK"] * 5
    with pytest.raises(ValueError, match="at most"):
        client.predict_bytes([data + bytes(2 * len(data))])


@pytest.mark.parametrize("wrong", [b"one picture", "path.jpg", ["path.jpg"], [np.zeros((8, 8, 3))]])
def test_wrong_bytes_are_refused(client, wrong):
    with pytest.raises(ValueError, match="list of bytes"):
        client.predict_bytes(wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.zeros((8, 8, 3)), "N, H, W, 3"),
        (np.zeros((1, 8, 8, 4)), "N, H, W, 3"),
        (np.zeros((0, 8, 8, 3)), "N, H, W, 3"),
        (np.array([[[["a", "b", "c"]]]]), "N, H, W, 3"),
        (np.full((1, 8, 8, 3), -1.0), "0..255"),
        (np.full((1, 8, 8, 3), 256), "0..255"),
        (np.full((1, 8, 8, 3), np.nan), "0..255"),
    ],
)
def test_wrong_images_are_refused(client, wrong, told):
    with pytest.raises(ValueError, match=told):
        client.predict_images(wrong)


def test_no_pictures_are_refused(client):
    with pytest.raises(ValueError, match="at least one"):
        client.predict_bytes([])


def test_no_server_is_a_clear_error(dead_target):
    with Client(dead_target, timeout_seconds=5) as client:
        with pytest.raises(ServingError, match=r"UNAVAILABLE.*sqz-serve") as caught:
            client.predict_bytes([b"x"])
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ServingError) as caught:
            client.wait_until_ready(0.3)
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_unknown_model_and_version_are_clear_errors(target):
    for options in ({"model_name": "resnet"}, {"model_version": 4}):
        with Client(target, **options) as client:
            for call in (client.wait_until_ready, lambda asked=client: asked.predict_bytes([b"x"])):
                with pytest.raises(ServingError, match="not found") as caught:
                    call()
                assert caught.value.code == grpc.StatusCode.NOT_FOUND


def test_command_prints_a_table_and_reports_what_cannot_be_read(target, client, tmp_path, run_command, capsys):
    good, broken, missing = tmp_path / "good.jpg", tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    good.write_bytes(encode(picture(50, 50)))
    broken.write_bytes(good.read_bytes()[:200])
    (want,) = client.predict_bytes([good.read_bytes()])
    assert run_command(predict, f"--server={target}", f"--image={good}", "--top=2") == 0
    rows = [f"  {score:7.2%}  {name}" for name, score in zip(want.classes, want.scores, strict=True)]
    assert capsys.readouterr().out.splitlines() == [str(good), *rows[:2]]

    images = [f"--image={path}" for path in (broken, missing, good)]
    assert run_command(predict, f"--server={target}", *images) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(good), *rows]
    assert f"{broken}: {contract.STATUS_DAMAGED}" in printed.err
    assert str(missing) in printed.err
    assert run_command(predict, f"--server={target}", f"--image={missing}") == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photographs_are_sent_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(picture(30, 50), exif=exif))
    sent = predict.read_picture(str(path))
    assert (sent == path.read_bytes()) == (orientation == 1)
    with Image.open(path) as stored:
        assert stored.size == (50, 30)
    np.testing.assert_array_equal(read_image(sent), read_image(path))
