"""Classifies every image of a folder into a file of answers."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator

from export.client import images as client_images
from export.client.answers import AnswersFile
from export.client.client import Client
from export.client.in_order import in_order
from export.client.progress import Progress
from sqz_keras.images.files import find_images

_READERS, _READ_AHEAD = 4, 32  # threads, and images that are read or wait to be sent


def predict_folder(client: Client, image_dir: str | os.PathLike, output: str | os.PathLike, top: int) -> str:
    """Classifies a folder's images that the file has no answers for yet, and appends an answer for each, by path.

    An image that cannot be read gets a line with the reason as its status, and does not stop the others.

    Args:
        client: Asks the server.
        image_dir: The folder; images at any depth are named relative to it.
        output: The file of answers.
        top: How many classes an answer holds.

    Returns:
        What the file holds, in one line.

    Raises:
        ValueError: There are no images, `output` holds anything but answers, its answers are for another folder, or
            another process writes it.
        OSError: A file cannot be read or written, or, as a ServingError, the server does not answer. Finished answers
            are kept.
    """
    root = pathlib.Path(image_dir)
    names = [path.relative_to(root).as_posix() for path in find_images(root)]
    with AnswersFile(output, top) as answers:
        if answers.answered and answers.answered.isdisjoint(names):
            raise ValueError(
                f"{os.fspath(output)} has answers, and none to an image of {root}: they are another folder's. Give a "
                "new file as --output."
            )
        earlier = len(answers.answered)
        rest = [name for name in names if name not in answers.answered]
        with Progress(len(names), len(names) - len(rest)) as progress:
            for _ in _ask(client, root, rest, answers):
                progress.update()
        failed = f", {answers.unreadable:,} of them of images that cannot be read" if answers.unreadable else ""
        kept = f"; {earlier:,} are kept from an earlier run" if earlier else ""
        return f"{os.fspath(output)}: {len(answers.answered):,} answers{failed}{kept}"


def _ask(client: Client, root: pathlib.Path, names: Iterable[str], answers: AnswersFile) -> Iterator[None]:
    """Sends images and writes the answers in order; yields after each answer."""
    taken: collections.deque[tuple[str, str | None]] = collections.deque()  # (name, why it is not sent, if so)

    def sent() -> Iterator[bytes]:
        for name, image, reason in _read(root, names):
            taken.append((name, reason))
            if image is not None:
                yield image

    def failures() -> Iterator[None]:
        while taken and taken[0][1] is not None:
            answers.write_failure(*taken.popleft())
            yield

    for prediction in client.predict_stream(sent()):
        yield from failures()
        answers.write(taken.popleft()[0], prediction)
        answers.flush()
        yield
    yield from failures()


def _read(root: pathlib.Path, names: Iterable[str]) -> Iterator[tuple[str, bytes | None, str | None]]:
    """For each name, in order: (name, the image as it is sent, None), or (name, None, why it cannot be sent).

    Several images are read at once: an image that its EXIF rotates is encoded again, which takes longer than the
    server's answer.
    """

    def read(name: str) -> tuple[str, bytes | None, str | None]:
        try:
            data = client_images.read_file(root / name)
        except (FileNotFoundError, PermissionError, ValueError) as error:
            return name, None, str(error)  # other errors, as from a network disk, may be temporary: they end the run
        try:
            (image,) = client_images.as_list(data)
            client_images.check_fits(image)
            return name, image, None
        except (OSError, ValueError) as error:
            return name, None, str(error)

    return in_order(read, names, threads=_READERS, most=_READ_AHEAD)
