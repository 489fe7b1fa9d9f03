"""The page in front of a server: what it answers, what it refuses, and what a person sees and does in a browser."""

import contextlib
import http.client
import io
import json
import os
import re
import socket
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
from PIL import Image

from export import contract, serve
from export.client.client import Client, Prediction, ServingError
from export.page import app as page_app
from export.page import explanation
from export.page import server as page_server
from export.server import run as server_run
from export.server.run import ServeConfig, run_server
from sqz_keras import class_map, overlay, prepare_images
from sqz_keras.architecture.spec import imagenet_classes
from tests.export.samples import encode, random_arrays, random_image
from tests.images.tiff_files import write_tiff

EVIL = "</script><img src=x onerror=document.title='taken'>&\"'"


class FakeClient:
    """Stands in for the client; tests set its answers."""

    model_name = "net"

    def __init__(self, names=("first", "second"), version=1, error=None):
        self.names, self.version, self.error, self.calls = names, version, error, []

    def available_versions(self):
        if self.error:
            raise self.error
        return [self.version] if self.version else []

    def signatures(self):
        return {"serve_bytes": None, "features": None}

    def predict(self, images):
        self.calls.append(images)
        if self.error:
            raise self.error
        scores = tuple(0.6 / 2**index for index in range(len(self.names)))
        ids = tuple(range(len(self.names)))
        return [Prediction("OK", tuple(self.names), ids, scores, np.zeros(len(self.names)))]


@contextlib.contextmanager
def page_of(client, *arguments, **options):
    with page_server.serve_page(client, *arguments, **options) as port:
        yield port


@pytest.fixture(scope="module")
def port(client, base_path):
    with page_of(client, base_path) as port:
        yield port


@pytest.fixture(scope="module")
def fake_page():
    """A fake client, and the port of the page in front of it."""
    client = FakeClient()
    with page_of(client) as port:
        yield client, port


@pytest.fixture
def fake(fake_page):
    client, _ = fake_page
    client.__init__()
    return client


@pytest.fixture
def fake_port(fake, fake_page):
    return fake_page[1]


def ask(port, method, path, body=None, **headers):
    """(status, headers, body) of one request; a header given as None is not sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in headers)
    if body is not None and "Content-Length" not in headers:
        headers["Content-Length"] = str(len(body))
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    with contextlib.closing(connection):
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def error_of(answer):
    return answer[0], json.loads(answer[2])["error"]


class TestRequests:
    def test_the_page_loads_nothing_and_runs_only_its_own_script(self, fake_port):
        status, headers, body = ask(fake_port, "GET", "/")
        text = body.decode()
        assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
        assert (policy["script-src"], policy["style-src"]) == ("'self'", "'self'")
        assert re.findall(r"<script\b.*?</script>", text, re.DOTALL) == ['<script src="page.js" defer></script>']
        assert re.findall(r"<(?:link|style)\b.*?>", text) == [
            '<link rel="icon" href="data:,">',
            '<link rel="stylesheet" href="page.css">',
        ]
        assert not re.search(r"\s(on\w+|style)=", text)
        for path, kind in (("/page.css", "text/css"), ("/page.js", "text/javascript")):
            status, headers, body = ask(fake_port, "GET", path)
            assert status == 200 and headers["Content-Type"] == f"{kind}; charset=utf-8"
            assert headers["X-Content-Type-Options"] == "nosniff"
            text += body.decode()
        assert "//" not in re.sub(r"(?m)  // .*$", "", text) and "@import" not in text and "url(" not in text

    def test_an_image_gets_the_servers_answer(self, port, client):
        data = encode(random_image(50, 60))
        status, _, body = ask(port, "POST", "/predict", data)
        answer, (expected,) = json.loads(body), client.predict(data)
        assert status == 200
        assert answer["top"] == [
            {"id": number, "name": name, "score": score}
            for number, name, score in zip(expected.class_ids, expected.classes, expected.scores, strict=True)
        ]
        assert 0 < answer["milliseconds"] < 10_000

    def test_a_rotated_image_is_turned_upright(self, port, client):
        exif = Image.Exif()
        exif[0x0112] = 6
        upright = random_image(60, 40)
        stored = encode(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
        answers = [
            json.loads(ask(port, "POST", "/predict", data)[2])["top"] for data in (stored, encode(upright, "PNG"))
        ]
        assert answers[0] == answers[1]

    def test_imagenet_classes_have_their_wnids(self):
        client = FakeClient([name for _, name in imagenet_classes()])
        with page_of(client) as port:
            answer = json.loads(ask(port, "POST", "/predict", b"x")[2])
        assert (answer["top"][0]["name"], answer["top"][0]["wnid"]) == ("tench", "n01440764")
        assert answer["top"][2]["name"] == "great white shark"

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"GIF89a and more", contract.STATUS_UNKNOWN_FORMAT),
            (encode(random_image(50, 60))[:300], contract.STATUS_DAMAGED),
            (encode(random_image(2, 400)), contract.STATUS_TOO_LARGE),
        ],
    )
    def test_what_cannot_be_read_is_reported(self, port, data, status):
        assert error_of(ask(port, "POST", "/predict", data)) == (422, f"This cannot be read: {status}.")

    def test_another_format_that_cannot_be_read_has_its_own_reason(self, port):
        scan = write_tiff(np.zeros((16, 16), np.uint16), 16, numbers=2)
        status, message = error_of(ask(port, "POST", "/predict", scan))
        assert status == 422 and "signed numbers" in message

    def test_the_map_of_a_class_lies_over_the_image(self, port, model, spec):
        image = random_image(500, 800)
        status, headers, body = ask(port, "POST", "/map/4", encode(image, "PNG"))
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        seen = np.asarray(Image.open(io.BytesIO(body)), float)
        values = class_map(model, prepare_images(np.asarray(image), spec), 4)
        small = np.asarray(image.resize((640, 400)))
        assert seen.shape == small.shape
        assert np.abs(seen - overlay(small, values, spec)).mean() < 20
        other = np.asarray(Image.open(io.BytesIO(ask(port, "POST", "/map/5", encode(image, "PNG"))[2])), float)
        assert np.abs(seen - other).mean() > 1

    def test_maps_follow_a_version_that_was_exported_again(self, spec, tmp_path, monkeypatch):
        folder = tmp_path / "1"
        folder.mkdir()
        exported = []  # the last element is the weights in the folder
        monkeypatch.setattr(explanation, "resolve_model", lambda _: (spec, exported[-1]))
        explainer, data = explanation.Explainer(), encode(random_image(40, 40), "PNG")
        exported.append(random_arrays(spec))
        first = explainer.draw(folder, data, 4)
        assert explainer.draw(folder, data, 4) == first
        exported.append({name: -array for name, array in random_arrays(spec).items()})
        folder.rename(tmp_path / ".old-1")
        folder.mkdir()
        assert explainer.draw(folder, data, 4) != first

    def test_maps_that_cannot_be_drawn_are_refused(self, port, fake_port):
        data = encode(random_image(50, 60))
        status, message = error_of(ask(port, "POST", "/map/10", data))
        assert status == 422 and "class_id must be an integer of at least 0 and at most 9" in message
        assert error_of(ask(port, "POST", "/map/1", b"GIF89a and more"))[0] == 422
        assert error_of(ask(fake_port, "POST", "/map/1", data)) == (
            404,
            "The folder of the served model is not on this machine, so there are no maps.",
        )

    def test_the_card_describes_the_served_version(self, port, spec):
        rows = dict(json.loads(ask(port, "GET", "/card")[2])["rows"])
        assert (rows["Name"], rows["Version served"]) == ("squeezenet", "3")
        assert rows["Parameters"] == f"{spec.count_params():,}"
        assert rows["Preprocessing"] == "stretched to 36 x 36, centre 32 x 32, BGR minus (104, 117, 123)"
        assert (rows["Classes"], rows["Labels"]) == ("10", "those it was trained with")
        assert re.fullmatch("[0-9a-f]{64}", rows["Weights, sha256"])

    @pytest.mark.parametrize("has_folder", [False, True])
    def test_a_version_without_description_has_a_short_card(self, fake, tmp_path, has_folder):
        (tmp_path / "1").mkdir()
        with page_of(fake, tmp_path if has_folder else None) as port:
            rows = dict(json.loads(ask(port, "GET", "/card")[2])["rows"])
        assert rows == {"Name": "net", "Version served": "1", "Signatures": "features, serve_bytes"}

    def test_a_server_that_is_not_ready_is_reported(self, fake, fake_port):
        fake.version = None
        assert error_of(ask(fake_port, "GET", "/card")) == (503, "The model server has no version ready yet.")
        fake.error = ServingError(grpc.StatusCode.UNAVAILABLE, "127.0.0.1:1: UNAVAILABLE: nobody there")
        for method, path, body in (("GET", "/card", None), ("POST", "/predict", b"x")):
            status, message = error_of(ask(fake_port, method, path, body))
            assert status == 503 and "nobody there" in message

    def test_a_defect_is_reported_and_the_page_stays_up(self, fake, fake_port):
        fake.error = RuntimeError("secret")
        status, message = error_of(ask(fake_port, "POST", "/predict", b"x"))
        assert status == 500 and "secret" not in message
        fake.error = None
        assert ask(fake_port, "POST", "/predict", b"x")[0] == 200

    def test_an_ipv6_address(self, fake, ipv6):
        with page_of(fake, host="::1") as port, socket.create_connection(("::1", port)) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: [::1]:{port}\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")

    def test_a_taken_port_is_a_clear_error(self, fake, fake_port):
        with pytest.raises(OSError, match=r"Cannot listen on .*--web_port=0"), page_of(fake, port=fake_port):
            pass


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/index.html", 404),
            ("GET", "/../export/page/app.py", 404),
            ("GET", "/app.py", 404),
            ("GET", "/card/", 404),
            ("GET", "/card?x", 404),
            ("GET", "/predict", 404),
            ("POST", "/card", 404),
            ("GET", "/map/0", 404),
            ("POST", "/map", 404),
            ("POST", "/map/", 404),
            ("POST", "/map/../0", 404),
            ("POST", "/map/-1", 404),
            ("PUT", "/predict", 501),
            ("GET", "/" + "x" * 70_000, 414),
        ],
    )
    def test_other_paths_and_methods(self, fake_port, method, path, status):
        answer = ask(fake_port, method, path, b"" if method != "GET" else None)
        assert answer[0] == status and answer[1]["X-Content-Type-Options"] == "nosniff" and error_of(answer)[1]

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("127.0.0.1:{port}", 200),
            ("localhost:{port}", 200),
            ("LOCALHOST", 200),
            ("[::1]:{port}", 200),
            ("192.168.1.20:{port}", 200),
            ("evil.example:{port}", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example:{port}", 403),
            ("127.0.0.1@evil.example", 403),
            ("", 403),
            (None, 403),
        ],
    )
    def test_only_its_own_names(self, fake_port, host, status):
        """If the owner of another name points it at this machine, that owner's page could read the answers."""
        host = host and host.format(port=fake_port)
        assert ask(fake_port, "GET", "/", Host=host)[0] == status
        assert ask(fake_port, "POST", "/predict", b"x", Host=host)[0] == status

    def test_the_name_that_it_listens_on(self, fake, monkeypatch):
        monkeypatch.setattr(socket, "getfqdn", lambda name: name)
        with page_of(fake, host="localhost") as port:
            assert ask(port, "GET", "/", Host="localhost")[0] == 200

    def test_only_its_own_page_may_ask(self, fake, fake_port):
        own = f"127.0.0.1:{fake_port}"
        for origin, status in (
            (f"http://{own}", 200),
            (None, 200),
            ("http://evil.example", 403),
            (f"https://{own}", 403),
            ("http://127.0.0.1:1", 403),
            ("null", 403),
            ("", 403),
        ):
            assert ask(fake_port, "POST", "/predict", b"x", Host=own, Origin=origin)[0] == status, origin
        assert len(fake.calls) == 2

    @pytest.mark.parametrize(
        ("length", "status"), [(None, 411), ("-1", 411), ("1e3", 411), ("9" * 30, 411), ("0", 400), ("5", 400)]
    )
    def test_lengths_that_are_wrong(self, fake, fake_port, length, status):
        with socket.create_connection(("127.0.0.1", fake_port), 10) as raw:
            line = f"Content-Length: {length}\r\n" if length else ""
            raw.sendall(f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\nabc".encode())
            raw.shutdown(socket.SHUT_WR)
            assert raw.makefile("rb").readline().split()[1] == str(status).encode()
        assert not fake.calls

    def test_too_large_a_file_is_refused_after_all_of_it_was_read(self, fake, fake_port, monkeypatch):
        monkeypatch.setattr(page_app, "MAX_IMAGE_BYTES", 1 << 20)
        assert ask(fake_port, "POST", "/predict", bytes(1 << 20))[0] == 200
        status, message = error_of(ask(fake_port, "POST", "/predict", bytes(5 << 20)))
        assert status == 413 and "5 MB" in message
        assert len(fake.calls) == 1

    @pytest.mark.parametrize("start", ["", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", "POST /predict HTTP/1.1\r\n"])
    def test_a_client_that_trickles_is_cut_off(self, fake_port, monkeypatch, start):
        monkeypatch.setattr(page_server, "REQUEST_SECONDS", 0.5)
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", fake_port), 10) as raw, contextlib.suppress(ConnectionError):
            raw.sendall(start.encode())
            raw.settimeout(0.1)
            while time.monotonic() < begin + 9:
                raw.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    if not raw.recv(100):
                        break
        assert 0.4 < time.monotonic() - begin < 5

    def test_connections_beyond_the_limit_get_a_503(self, fake, monkeypatch):
        monkeypatch.setattr(page_server, "MAX_CONNECTIONS", 2)
        with page_of(fake) as port:
            held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(2)]
            with socket.create_connection(("127.0.0.1", port), 10) as third:
                head, body = third.makefile("rb").read().split(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.0 503 Service Unavailable\r\n")
                assert "Try again" in json.loads(body)["error"]
            for connection in held:
                connection.close()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(ConnectionError, http.client.HTTPException):
                    if ask(port, "GET", "/")[0] == 200:
                        return
            pytest.fail("the places were not given back")

    @pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n"])
    def test_what_is_no_http(self, fake_port, junk):
        with socket.create_connection(("127.0.0.1", fake_port), 10) as raw, contextlib.suppress(ConnectionError):
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            raw.makefile("rb").read()
        assert ask(fake_port, "GET", "/")[0] == 200


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    path.write_bytes(encode(random_image(300, 400)))
    return path


ANSWERED = "!document.getElementById('top').hidden"
FAILED = "!document.getElementById('error').hidden"
SEEN = "!document.getElementById('seen').hidden && document.getElementById('map').naturalWidth > 0"
DESCRIBED = "!document.getElementById('card').hidden"


class TestInABrowser:
    @pytest.fixture
    def fake_port(self, fake):
        """A page of the test's own, since a browser keeps connections open."""
        with page_of(fake) as port:
            yield port

    def test_a_dropped_image(self, browser, port, client, photo):
        tab = browser.open(f"http://127.0.0.1:{port}/")
        tab.wait(DESCRIBED)
        tab.drop(photo, *tab.centre("#drop"))
        tab.wait(ANSWERED)
        (expected,) = client.predict(photo)
        lines = tab.run("[...document.querySelectorAll('#top li')].map(row => row.innerText.split('\\n'))")
        assert [line[0] for line in lines] == list(expected.classes)
        assert [line[1] for line in lines] == [
            f"{score:.1%}" if score >= 0.0005 else "<0.1%" for score in expected.scores
        ]
        tracks = tab.run("[...document.querySelectorAll('.track')].map(track => track.clientWidth)")
        bars = tab.run("[...document.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect().width)")
        np.testing.assert_allclose(np.divide(bars, tracks), expected.scores, atol=0.02)
        assert re.search(r"within [\d.]+ ms; [\d.]+ ms", tab.text("#latency"))
        tab.wait("document.getElementById('preview').naturalWidth === 400")
        assert "squeezenet" in tab.text("#card") and "BGR minus" in tab.text("#card")
        tab.wait(SEEN)
        assert tab.text("#seen-title") == f"Where it looked: {expected.classes[0]}"
        tab.run("document.querySelectorAll('#top .name')[1].click()")
        tab.wait(f"document.getElementById('seen-title').innerText.endsWith({json.dumps(expected.classes[1])})")
        tab.wait("document.getElementById('map').naturalWidth === 400")
        pressed = "[...document.querySelectorAll('#top .name')].map(name => name.getAttribute('aria-pressed'))"
        assert tab.run(pressed) == ["false", "true", *["false"] * (len(expected.classes) - 2)]
        urls = [event["request"]["url"] for event in tab.events("Network.requestWillBeSent")]
        assert {url.split(":")[0] for url in urls} <= {"http", "blob", "data"}
        assert {url.split("/")[2] for url in urls if url.startswith("http")} == {f"127.0.0.1:{port}"}
        assert tab.complaints() == []

    def test_with_the_keyboard_alone(self, browser, fake_port, photo):
        tab = browser.open(f"http://127.0.0.1:{fake_port}/")
        tab.call("Page.setInterceptFileChooserDialog", enabled=True)
        tab.press("Tab")
        assert tab.run("document.activeElement.labels[0].innerText").startswith("Choose an image")
        assert tab.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
        for key in ("Enter", " "):
            tab.press(key)
            tab.wait_for_event("Page.fileChooserOpened")
            tab.choose(photo)
            tab.wait(ANSWERED)
            tab.run("document.getElementById('top').hidden = true")
        assert tab.run("document.activeElement.id") == "file"
        assert tab.run("document.getElementById('answer').getAttribute('aria-live')") == "polite"

    def test_what_cannot_be_read_is_shown_and_the_next_one_answered(self, browser, port, photo, tmp_path):
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(photo.read_bytes()[:500])
        tab = browser.open(f"http://127.0.0.1:{port}/")
        tab.choose(bad)
        tab.wait(FAILED)
        assert tab.text("#error") == f"This cannot be read: {contract.STATUS_DAMAGED}."
        tab.choose(photo)
        tab.wait(ANSWERED)
        assert not tab.run(FAILED)

    def test_names_with_markup_stay_text(self, browser, fake, fake_port, tmp_path):
        fake.names, fake.model_name = (EVIL, "b"), EVIL
        path = tmp_path / "<img src=x onerror=alert(1)>.jpg"
        path.write_bytes(encode(random_image(20, 20)))
        tab = browser.open(f"http://127.0.0.1:{fake_port}/")
        tab.wait(DESCRIBED)
        tab.choose(path)
        tab.wait(ANSWERED)
        assert tab.text("#top .name") == EVIL and EVIL in tab.text("#card")
        assert tab.run("document.querySelectorAll('img').length") == 2
        assert tab.complaints() == []

    def test_the_card_comes_when_the_server_does_and_follows_its_version(self, browser, fake, fake_port, photo):
        fake.version = None
        tab = browser.open(f"http://127.0.0.1:{fake_port}/")
        tab.wait("document.getElementById('card-note').innerText.includes('no version ready')")
        fake.version = 1
        tab.wait(DESCRIBED)
        fake.version = 2
        tab.choose(photo)
        tab.wait("document.getElementById('card').innerText.includes('2')")

    def test_a_page_whose_server_has_gone_says_so(self, browser, photo):
        with page_of(FakeClient()) as port:
            tab = browser.open(f"http://127.0.0.1:{port}/")
            tab.wait(DESCRIBED)
        tab.choose(photo)
        tab.wait(FAILED)
        assert "Is sqz-serve still running?" in tab.text("#error")

    def test_small_and_dark(self, browser, fake, fake_port, photo):
        fake.names = ("a_name_without_any_space_that_is_longer_than_a_small_screen_is_wide", "b")
        colours = set()
        for dark in (False, True):
            tab = browser.open(f"http://127.0.0.1:{fake_port}/", 320, 640, dark)
            tab.wait(DESCRIBED)
            tab.choose(photo)
            tab.wait(ANSWERED)
            assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            colours.add(tab.run("getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2


def test_no_model_server_at_all():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        dead_target = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(dead_target, timeout_seconds=0.5) as client, page_of(client) as port:
            status, message = error_of(ask(port, "GET", "/card"))
    assert status == 503 and "The model server gives no answer" in message


def test_sqz_serve_has_a_page(base_path, tmp_path, capsys):
    port_file, stopped = tmp_path / "port", threading.Event()
    config = ServeConfig(os.fspath(base_path), embedded=True, port=0, port_file=port_file, web=True, web_port=0)
    with futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_server, config, stopped)
        try:
            while not port_file.exists() and not running.done():
                time.sleep(0.01)
            port = int(re.match(r"Page at http://127\.0\.0\.1:(\d+)/\n", capsys.readouterr().out)[1])
            assert dict(json.loads(ask(port, "GET", "/card")[2])["rows"])["Version served"] == "3"
            assert ask(port, "POST", "/predict", encode(random_image(50, 60)))[0] == 200
        finally:
            stopped.set()
    running.result()
    assert not port_file.exists()


def test_a_page_beside_tls_is_refused(base_path, run_command, tmp_path, monkeypatch):
    monkeypatch.setattr(server_run, "read_key_and_cert", lambda *_: (b"key", b"cert"))
    with pytest.raises(ValueError, match="no TLS"):
        run_command(serve, f"--base_path={base_path}", "--web", "--ssl_key=key.pem", "--ssl_cert=cert.pem")
