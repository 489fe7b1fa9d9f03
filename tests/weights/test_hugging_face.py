"""hf:// handles, against a local server that answers as the Hugging Face Hub does."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from sqz_keras.weights import hugging_face, sqz
from sqz_keras.weights.resolve import resolve_model
from tests.compression.tiny_net import SPEC, tiny_arrays

COMMIT = "1" * 40
FILE = "/someone/net/resolve/main/folder/net.sqz"
LOAD = "import sys, sqz_keras; print(sqz_keras.resolve_model(sys.argv[1])[0].weights_sha256)"


@pytest.fixture(scope="module")
def content():
    return sqz.encode(SPEC, tiny_arrays(SPEC))


@pytest.fixture(scope="module")
def endpoint(content):
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            if found := self.path == FILE:
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(content)))
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return found

        def do_GET(self):
            if self.do_HEAD():
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def load(handle, endpoint, home, **variables):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **variables}
    return subprocess.run([sys.executable, "-c", LOAD, handle], env=environment, capture_output=True, text=True)


def test_a_file_is_downloaded_checked_and_kept(content, endpoint, tmp_path):
    digest = hashlib.sha256(content).hexdigest()
    expected = resolve_model_of(content, tmp_path / "net.sqz").weights_sha256
    handle = f"hf://someone/net/folder/net.sqz#sha256={digest}"
    assert load(handle, endpoint, tmp_path).stdout.strip() == expected
    nobody = "http://127.0.0.1:9"  # no server: the cache has the file
    assert load(handle, nobody, tmp_path).stdout.strip() == expected
    other = load(handle[:-64] + "0" * 64, nobody, tmp_path).stderr
    assert f"the file's sha256 is {digest}" in other


def resolve_model_of(content, path):
    path.write_bytes(content)
    return resolve_model(path)[0]


def test_errors_say_what_to_do(endpoint, tmp_path):
    missing = load("hf://someone/net/other.sqz", endpoint, tmp_path).stderr.splitlines()[-1]
    assert missing.startswith("ValueError: hf://someone/net/other.sqz cannot be downloaded") and "file" in missing
    offline = load("hf://someone/net/folder/net.sqz", endpoint, tmp_path / "empty", HF_HUB_OFFLINE="1")
    offline = offline.stderr.splitlines()[-1]
    assert offline.startswith("OSError: hf://someone/net/folder/net.sqz is not in the cache")


def test_a_failed_download_is_one_of_the_system(monkeypatch):
    import huggingface_hub

    class ProxyError(Exception):
        """Stands in for httpx's."""

    def fail(*_, **__):
        raise ProxyError("407")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(OSError, match=r"hf://someone/net/net\.sqz could not be downloaded: 407"):
        hugging_face.fetch("hf://someone/net/net.sqz")


@pytest.mark.parametrize("handle", ["hf://net.sqz", "hf://a/b", "hf://a/b/c#sha256=12", "hf://a/b@/c", "hf://a b/c/d"])
def test_other_forms_are_refused(handle):
    with pytest.raises(ValueError, match="expected hf://owner/name/file"):
        hugging_face.fetch(handle)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"sqz-keras\[huggingface\]"):
        hugging_face.fetch("hf://someone/net/net.sqz")


def test_a_builder_takes_a_handle(monkeypatch, content, tmp_path):
    from sqz_keras import squeezenet_from_metaparameters
    from sqz_keras.models.squeezenet import named_arrays

    path = tmp_path / "net.sqz"
    path.write_bytes(content)
    monkeypatch.setattr(hugging_face, "fetch", {"hf://a/b/net.sqz": path}.__getitem__)
    model = squeezenet_from_metaparameters(
        SPEC.metaparameters,
        (SPEC.input_size, SPEC.input_size, SPEC.channels),
        weights="hf://a/b/net.sqz",
        classes=SPEC.classes,
        bypass=SPEC.bypass,
    )
    for name, array in named_arrays(model).items():
        np.testing.assert_array_equal(array, tiny_arrays(SPEC)[name])
