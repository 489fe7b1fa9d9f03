"""Shows where the network sees a class in an image: conv10's map of the class, drawn over the image.

A server's answers do not contain that map, so Keras computes it here from the served version's weights, independently
of those answers.
"""

from __future__ import annotations

import io
import os
import threading

from PIL import Image

from sqz_keras.images.files import read_image
from sqz_keras.weights.resolve import resolve_model

_SHOWN = 640  # pixels of the longer side, at most


class Explainer:
    """Draws maps, and keeps the network of the last version used. Threads take turns."""

    def __init__(self):
        self._lock, self._kept, self._spec, self._maps = threading.Lock(), None, None, None

    def draw(self, folder: str | os.PathLike, data: bytes, class_id: int) -> bytes:
        """The image overlaid with the map of a class.

        Args:
            folder: `<base_path>/<version>`, which `sqz-export` wrote.
            data: An image file.
            class_id: Index of the class.

        Returns:
            A JPEG, whose longer side has at most 640 pixels.

        Raises:
            ValueError: There is no such class, or the image or the folder's weights cannot be read.
        """
        from sqz_keras.explain import ClassMaps, overlay  # imports Keras, which the page itself does not need
        from sqz_keras.images.preprocessing import prepare_image
        from sqz_keras.models.squeezenet import build

        with self._lock:  # one image at a time, as a large one takes half a gigabyte
            key = _key(folder)
            if self._kept != key:
                spec, arrays = resolve_model(folder)
                self._maps, self._spec, self._kept = ClassMaps(build(spec, arrays)), spec, key
            image = read_image(data)
            values = self._maps(prepare_image(image, self._spec), class_id)
            shown = Image.fromarray(image)
            shown.thumbnail((_SHOWN, _SHOWN))
            output = io.BytesIO()
            Image.fromarray(overlay(shown, values, self._spec)).save(output, "JPEG", quality=90)
            return output.getvalue()


def _key(folder: str | os.PathLike) -> tuple[str, int, int]:
    """A key that no other folder has, even if a version was exported again with the same number."""
    try:
        found = os.stat(folder)
    except OSError as error:
        raise ValueError(f"{os.fspath(folder)} cannot be read: {error.strerror}.") from error
    return os.fspath(folder), found.st_ino, found.st_ctime_ns
