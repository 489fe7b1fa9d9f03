"""The client and sqz-predict: answers in order, limits respected, misuse reported before anything is sent."""

import io
import itertools
import math
import socket
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from PIL import Image

from export import contract, predict
from export.client import images as client_images
from export.client.client import Client, Prediction, ServingError
from export.server.errors import RequestError
from export.server.model import ServedVersion
from export.server.serving import ServerConfig, serve
from sqz_keras import prepare_images
from sqz_keras.images.files import read_image
from tests.export.samples import encode, random_image
from tests.images.png_files import write_png
from tests.images.tiff_files import write_tiff


@pytest.fixture(scope="module")
def dead_target():
    """An address on which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(random_image(45, 61), "PNG"))
    return path


def test_every_kind_of_image_gets_the_models_answer(client, model, spec, photo):
    image = np.asarray(random_image(45, 61))
    expected = model.predict_on_batch(prepare_images(image[None], spec))[0]
    best = np.argsort(-expected, kind="stable")[:5]
    kinds = [photo, str(photo), photo.read_bytes(), Image.open(photo), image, image.astype(np.float64)]
    alone = [client.predict(kind) for kind in kinds]
    assert [len(predictions) for predictions in alone] == [1] * len(kinds)
    for prediction in [*client.predict(kinds), *client.predict(image[None]), *itertools.chain(*alone)]:
        assert isinstance(prediction, Prediction)
        assert prediction.status == contract.STATUS_OK
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
        assert prediction.class_ids == tuple(best)
        assert prediction.classes == tuple(spec.labels[index] for index in best)
        np.testing.assert_allclose(prediction.scores, expected[best], atol=1e-5)


def test_features_and_classify(client, model, spec, photo):
    image = np.asarray(random_image(45, 61))
    features = client.features([photo, image])
    assert features.shape == (2, model.get_layer("conv10").kernel.shape[2])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)
    (expected,) = client.predict(photo)
    for classes in client.classify([photo, image]):
        assert [name for name, _ in classes] == list(expected.classes)
        np.testing.assert_allclose([score for _, score in classes], expected.scores, atol=1e-5)


def test_more_images_than_a_call_takes(client):
    count = 2 * contract.MAX_BATCH_SIZE + 3
    files = [encode(random_image(20, 20 + index % 7)) for index in range(count)]
    files[contract.MAX_BATCH_SIZE] = b"broken"
    predictions = client.predict(files)
    assert [index for index, prediction in enumerate(predictions) if prediction.status != "OK"] == [
        contract.MAX_BATCH_SIZE
    ]
    for index in (0, 40, count - 1):
        expected = client.predict(files[index])[0].probabilities
        np.testing.assert_allclose(predictions[index].probabilities, expected, atol=1e-6)
    images = np.stack([np.asarray(random_image(20, 20, seed=index)) for index in range(count)])
    assert len({prediction.scores for prediction in client.predict(images)}) == count
    assert len(client.classify(files)) == count


def test_arrays_of_many_sizes(client):
    images = [np.asarray(random_image(20, 20 + index // 3, seed=index)) for index in range(9)]
    together = client.predict(images)
    for image, prediction in zip(images, together, strict=True):
        np.testing.assert_allclose(prediction.probabilities, client.predict(image)[0].probabilities, atol=1e-6)


def test_more_bytes_than_a_message_takes(client, monkeypatch):
    data = encode(random_image(64, 64))
    monkeypatch.setattr(contract, "MAX_MESSAGE_BYTES", (1 << 16) + 2 * len(data))
    assert [prediction.status for prediction in client.predict([data] * 5)] == ["OK"] * 5
    with pytest.raises(ValueError, match="at most"):
        client.predict(data + bytes(2 * len(data)))


GREY = np.zeros((8, 8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "at least one"),
        (np.zeros((0, 8, 8, 3)), "at least one"),
        (GREY, "H, W, 3"),
        (np.zeros((8, 8, 4)), "H, W, 3"),
        (np.zeros((3, 8, 8)), "H, W, 3"),
        (np.zeros((1, 1, 8, 8, 3)), "H, W, 3"),
        (np.zeros((0, 8, 3)), "H, W, 3"),
        (np.array([[["a", "b", "c"]]]), "H, W, 3"),
        (np.full((1, 8, 8, 3), -1.0), "0..255"),
        (np.full((8, 8, 3), 256), "0..255"),
        (np.full((8, 8, 3), np.nan), "0..255"),
        (np.full((8, 8, 3), 0.5), "multiply by 255"),
        (GREY.tolist(), r"numpy\.asarray"),
        ([7], "got int"),
        (None, "got NoneType"),
        (Image.fromarray(GREY.astype(np.int32)), "32-bit integers of an unknown range"),
        (Image.open(io.BytesIO(encode(random_image(50, 50))[:700])), "PIL image cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(dead_target, wrong, message):
    with Client(dead_target) as client, pytest.raises(ValueError, match=message):
        client.predict(wrong)


def test_a_missing_file_is_named(client, tmp_path):
    with pytest.raises(OSError, match=r"nothing\.jpg"):
        client.predict(tmp_path / "nothing.jpg")


def test_no_server_is_a_clear_error(dead_target):
    with Client(dead_target, timeout_seconds=0.5) as client:
        start = time.monotonic()
        with pytest.raises(ServingError, match=r"UNAVAILABLE.*sqz-serve") as caught:
            client.predict(b"x")
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - start < 2
        with pytest.raises(ServingError) as caught:
            client.wait_until_ready(0.3)
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    for timeout_seconds in (0, math.inf, math.nan):  # gRPC would take inf and nan for the past, or for no limit
        with pytest.raises(ValueError, match="above 0"):
            Client(dead_target, timeout_seconds=timeout_seconds)


@pytest.mark.parametrize(
    "wrong", ["", "127.0.0.1", "localhost:", ":8500", "http://127.0.0.1:8500", "127.0.0.1:99999", "::1:8500", "a b:1"]
)
def test_what_is_no_address_is_refused(wrong):
    """Without the check, gRPC used port 443 if none was given, and 34463 instead of 99999."""
    with pytest.raises(ValueError, match=r"HOST:PORT without http://, such as 127\.0\.0\.1:8500"):
        Client(wrong)


@pytest.mark.parametrize("target", ["localhost:8500", "[::1]:8500", "unix:/tmp/socket", "dns:///localhost:8500"])
def test_all_addresses_of_grpc_are_taken(target):
    Client(target).close()


def test_a_name_for_tls_without_tls_is_refused(run_command, photo):
    with pytest.raises(ValueError, match="server_name is for TLS: give credentials too"):
        Client("localhost:8500", server_name="squeezenet.internal")
    with pytest.raises(ValueError, match="--ssl_server_name is for TLS: give --ssl_ca too"):
        run_command(predict, f"--image={photo}", "--ssl_server_name=squeezenet.internal")


def test_certificates_that_are_none_are_refused(tmp_path, run_command, photo):
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for path in (photo, damaged):
        with pytest.raises(ValueError, match=r"must hold certificates as PEM"):
            run_command(predict, f"--image={photo}", f"--ssl_ca={path}")
    with pytest.raises(FileNotFoundError, match="missing"):
        run_command(predict, f"--image={photo}", f"--ssl_ca={tmp_path / 'missing'}")


def test_unknown_model_and_version_are_clear_errors(target):
    for options in ({"model_name": "resnet"}, {"model_version": 4}):
        with Client(target, **options) as client:
            for call in (client.wait_until_ready, lambda client=client: client.predict(b"x")):
                with pytest.raises(ServingError, match="not found") as caught:
                    call()
                assert caught.value.code == grpc.StatusCode.NOT_FOUND


class RefusingVersion(ServedVersion):
    """Refuses its first calls with the codes in `errors`, one each, and counts its calls."""

    errors, runs, metadata_calls = (), 0, 0

    def predict(self, request, timeout_ms=0):
        self.runs += 1
        if self.runs <= len(self.errors):
            raise RequestError(self.errors[self.runs - 1], "not now")
        return super().predict(request, timeout_ms)

    def metadata(self):
        self.metadata_calls += 1
        return super().metadata()


@pytest.fixture
def refusing(base_path):
    """A version, and the port of its server."""
    version = RefusingVersion(base_path / "3", "squeezenet", 3)
    with serve(base_path, ServerConfig(port=0), load=lambda *_: version) as port:
        yield version, port


def test_unavailable_is_retried_and_nothing_else(refusing):
    version, port = refusing
    with Client(f"127.0.0.1:{port}") as client:
        version.errors = [grpc.StatusCode.UNAVAILABLE] * 3
        assert client.predict(encode(random_image(20, 20)))[0].status == "OK"
        assert version.runs == 4
        for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL):
            version.runs, version.errors = 0, [code]
            with pytest.raises(ServingError) as caught:
                client.predict(b"x")
            assert (caught.value.code, version.runs) == (code, 1)
    with Client(f"127.0.0.1:{port}", timeout_seconds=0.7) as client:
        version.runs, version.errors = 0, [grpc.StatusCode.UNAVAILABLE] * 1000
        with pytest.raises(ServingError, match="UNAVAILABLE"):
            client.predict(b"x")
        assert 2 <= version.runs < 12, "the pauses grow"


def test_signatures_are_read_once_and_compared_with_the_contract(refusing):
    version, port = refusing
    with Client(f"127.0.0.1:{port}") as client:
        client.predict([encode(random_image(20, 20)), np.asarray(random_image(20, 20))])
        client.classify(encode(random_image(20, 20)))
        assert version.metadata_calls == 1
        assert set(client.signatures()) == {signature.name for signature in contract.EXPORTED}
    version.signature_defs["serving_default"].inputs["images"].dtype = 2  # a double
    del version.signature_defs["features"]
    version.runs = 0
    with Client(f"127.0.0.1:{port}") as client:
        for call in (client.predict, client.features):
            with pytest.raises(ServingError, match=r"lacks the signature.*sqz-export"):
                call(np.asarray(random_image(20, 20)))
    assert version.runs == 0


@pytest.mark.large
def test_a_server_that_is_started_again_is_reached_again(base_path):
    data = encode(random_image(20, 20))
    with serve(base_path, ServerConfig(port=0)) as port, Client(f"127.0.0.1:{port}") as client:
        (expected,) = client.predict(data)
    predictions = []
    with Client(f"127.0.0.1:{port}") as client:
        call = threading.Thread(target=lambda: predictions.extend(client.predict(data)))
        call.start()
        with serve(base_path, ServerConfig(port=port)):
            call.join()
    assert predictions == [expected]


def test_command_prints_a_table_and_reports_what_cannot_be_read(target, client, tmp_path, run_command, capsys):
    good, broken, missing = tmp_path / "good.jpg", tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    good.write_bytes(encode(random_image(50, 50)))
    broken.write_bytes(good.read_bytes()[:200])
    (expected,) = client.predict(good)
    assert run_command(predict, f"--server={target}", f"--image={good}", "--top=2") == 0
    rows = [f"  {score:7.2%}  {name}" for name, score in zip(expected.classes, expected.scores, strict=True)]
    assert capsys.readouterr().out.splitlines() == [str(good), *rows[:2]]

    huge = tmp_path / "huge.png"
    with open(huge, "wb") as file:
        file.truncate(contract.MAX_MESSAGE_BYTES)
    images = [f"--image={path}" for path in (broken, missing, tmp_path, huge, good)]
    assert run_command(predict, f"--server={target}", *images) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(good), *rows]
    assert f"{broken}: {contract.STATUS_DAMAGED}" in printed.err
    assert f"sqz-predict: {missing}: No such file" in printed.err
    assert f"sqz-predict: {tmp_path}: a folder, not an image" in printed.err
    assert f"sqz-predict: {huge}: An image has {contract.MAX_MESSAGE_BYTES} bytes" in printed.err
    assert run_command(predict, f"--server={target}", f"--image={missing}") == 1


def test_the_command_says_what_it_waits_for(tmp_path, run_command, monkeypatch, capsys):
    monkeypatch.setattr("export.client.run._SECONDS_OF_SILENCE", 0.05)
    (tmp_path / "photo.png").write_bytes(encode(random_image(5, 5), "PNG"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServingError, match=r"UNAVAILABLE: .*[a-z]\. Is a server running there"):
        run_command(predict, f"--server={target}", f"--image={tmp_path / 'photo.png'}", "--timeout_seconds=0.3")
    line = f"sqz-predict: no answer from {target} yet; trying for 0.3 s in all (--timeout_seconds)\n"
    assert capsys.readouterr().err == line


def test_files_that_are_open_are_read(client, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(random_image(30, 50)))
    with open(path, "rb") as file:
        assert client.predict(file) == client.predict(path)
    with open(path, "rb") as file:
        assert client.predict([file, path]) == client.predict([path, path])
    with open(path, encoding="latin-1") as file, pytest.raises(ValueError, match="binary mode"):
        client.predict(file)
    written = io.BytesIO()
    random_image(30, 50).save(written, "PNG")
    with pytest.raises(ValueError, match=r"nothing left to read; file\.seek\(0\)"):
        client.predict(written)


@pytest.mark.parametrize("format", ["AVIF", "BMP", "GIF", "TIFF", "WEBP"])
def test_other_formats_are_sent_as_png(client, tmp_path, format):
    path = tmp_path / "photo"
    path.write_bytes(encode(random_image(30, 50), format))
    (sent,) = client_images.as_list(path)
    assert sent.startswith(b"\x89PNG")
    np.testing.assert_array_equal(read_image(sent), read_image(path))
    assert client.predict(path)[0].status == "OK"


def test_images_of_pillow_are_sent_as_their_files(tmp_path):
    """Pillow shows a 16-bit grey TIFF in which 0 is white as a negative."""
    path = tmp_path / "scan.tif"
    path.write_bytes(write_tiff(65535 - (np.arange(256).reshape(16, 16) << 8), 16, colours=0))
    with Image.open(path) as image:
        assert client_images.as_list(image) == client_images.as_list(path)


@pytest.mark.parametrize("depth", [4, 16])
def test_a_transparent_colour_of_a_pillow_image(tmp_path, depth):
    """Pillow compares the transparent colour with samples that it has already scaled to 8 bits."""
    samples = np.arange(16).reshape(4, 4, 1) << (depth - 4)
    path = tmp_path / "clear.png"
    path.write_bytes(write_png(samples, 0, depth, {b"tRNS": samples[1, 2].astype(">u2").tobytes()}))
    with Image.open(path) as image:
        (sent,) = client_images.as_list(image)
    assert (read_image(sent)[1, 2] == 255).all()
    np.testing.assert_array_equal(read_image(sent), read_image(path))


def test_bytes_of_every_kind(photo):
    data = photo.read_bytes()
    assert client_images.as_list(bytearray(data)) == client_images.as_list(memoryview(data)) == [data]


def test_a_large_rotated_image_is_sent_as_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(random_image(2100, 3000), exif=exif, quality=95))
    (sent,) = client_images.as_list(path)
    assert len(sent) < 2 * path.stat().st_size
    difference = np.abs(read_image(sent).astype(int) - read_image(path))
    assert difference.mean() < 1 and difference.max() < 12


def test_an_image_too_long_for_jpeg_is_turned_as_png(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "scan.png"
    path.write_bytes(encode(Image.new("RGB", (65_501, 700), "red"), "PNG", exif=exif, compress_level=1))
    (sent,) = client_images.as_list(path)
    with Image.open(io.BytesIO(sent)) as image:
        assert (image.format, image.size) == ("PNG", (700, 65_501))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(60), "a HEIC image"),
        (write_tiff(np.zeros((16, 16), np.uint16), 16, numbers=2), "signed numbers of an unknown range"),
    ],
)
def test_another_format_that_cannot_be_read_has_its_own_reason(monkeypatch, data, message):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=f"An image cannot be read: .*{message}"):
        client_images.as_list(data)


def test_no_memory_is_no_damage(monkeypatch, photo):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(client_images, "is_upright", fail)
    with pytest.raises(MemoryError):
        client_images.as_list(photo)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_images_are_sent_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(random_image(30, 50), exif=exif))
    (sent,), (same,) = client_images.as_list(path), client_images.as_list(path.read_bytes())
    assert sent == same
    assert (sent == path.read_bytes()) == (orientation == 1)
    with Image.open(path) as stored:
        assert stored.size == (50, 30)
        (from_pil,) = client_images.as_list(stored)
    np.testing.assert_array_equal(read_image(sent), read_image(path))
    np.testing.assert_array_equal(read_image(from_pil), read_image(path))
