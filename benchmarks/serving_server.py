"""For the other scripts: exports and serves a model in processes of their own, and computes its right answers."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from absl import flags

from export import contract

START_SECONDS = 120


def define_server_flags() -> None:
    """Defines the flags of which model is served, and which images it is asked about."""
    flags.DEFINE_string("image_dir", None, "Folder of JPEG files, at any depth.", required=True)
    flags.DEFINE_string("model", "imagenet", "Name of pretrained weights, or any file or folder of weights.")


class Server:
    """sqz-serve --embedded in a process of its own, which can be killed and restarted on the same port."""

    def __init__(self, base_path: str | os.PathLike, folder: str | os.PathLike):
        self._base_path, self._port_file, self.port = base_path, pathlib.Path(folder, "port"), 0
        self.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the process, and returns once the server answers."""
        arguments = [f"--base_path={self._base_path}", f"--port={self.port}", f"--port_file={self._port_file}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "export.serve", "--embedded", *arguments], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._port_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise OSError("sqz-serve did not start; its messages say why.")
            time.sleep(0.02)
        self.port = int(self._port_file.read_text())

    def kill(self) -> None:
        """Ends the process at once, by SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._port_file.unlink()

    def stop(self) -> None:
        """Ends the process by SIGTERM.

        Raises:
            OSError: The process ended with an error.
        """
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60):
            raise OSError(f"sqz-serve ended with status {self.process.returncode}.")

    def resident_bytes(self) -> int:
        """The process's resident memory; works on Linux only."""
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def serving(model: str) -> Iterator[tuple[Server, pathlib.Path]]:
    """Exports a model as version 1 and serves it; yields the server and the folder of versions."""
    with tempfile.TemporaryDirectory() as folder:
        base_path = pathlib.Path(folder, contract.MODEL_NAME)
        export = [sys.executable, "-m", "export.export", f"--model={model}", f"--base_path={base_path}"]
        subprocess.run([*export, "--model_version=1"], check=True)
        server = Server(base_path, folder)
        try:
            yield server, base_path
            server.stop()
        finally:
            server.process.kill()
            server.process.wait()


def jpeg_files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The JPEG files under a folder, sorted.

    Raises:
        ValueError: There are no JPEG files.
    """
    files = sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise ValueError(f"{os.fspath(folder)} holds no JPEG files.")
    return files


def read_images(folder: str | os.PathLike) -> list[bytes]:
    """The bytes of the JPEG files under a folder."""
    return [path.read_bytes() for path in jpeg_files(folder)]


def right_answers(version: pathlib.Path, images: list[bytes]) -> np.ndarray:
    """The probabilities for all images (N, classes), from the SavedModel itself, without a server.

    Raises:
        ValueError: Two images have the same answer, so mixing them up would go unnoticed.
    """
    import tensorflow as tf

    signature = tf.saved_model.load(os.fspath(version)).signatures[contract.SERVE_BYTES.name]
    answers = np.stack([signature(image_bytes=tf.constant([data]))["probabilities"][0] for data in images])
    if any(np.abs(answers[:row] - answers[row]).max(1).min(initial=1) < 1e-4 for row in range(len(answers))):
        raise ValueError("Two of the images have the same answer: use others.")
    return answers


def ask(client, images: list[bytes], answers: np.ndarray, number: int) -> str:
    """Sends an image; returns "right" or "wrong". Numbers beyond the last image begin again at the first."""
    row = number % len(images)
    (prediction,) = client.predict(images[row])
    return "right" if np.allclose(prediction.probabilities, answers[row], atol=1e-5) else "wrong"
