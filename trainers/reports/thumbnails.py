"""Small images with captions, as the pages of the reports show them."""

from __future__ import annotations

import base64
import collections
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

_SIDE = 96  # in pixels, the greatest length of a thumbnail's longer side

Caption = Sequence[tuple[str, str]]


def distinct_names(labels: Sequence[str]) -> list[str]:
    """The names of the classes; classes that share a name, such as ImageNet's cranes, also get their number."""
    count = collections.Counter(labels)
    return [label if count[label] == 1 else f"{label} (class {index})" for index, label in enumerate(labels)]


def gallery(figures: Iterable[tuple[np.ndarray, str, Caption]]) -> str:
    """Markup of a `Section` that shows images beside each other, each above its caption.

    Args:
        figures: For each image: uint8 of shape (height, width, 3) or (height, width, 1), the text for readers who
            cannot see it, and the lines of its caption, each a label in quiet type and its value. All plain text.
    """
    return f'<div class="images">{"".join(_figure(*figure) for figure in figures)}</div>'


def _figure(image: np.ndarray, description: str, caption: Caption) -> str:
    source, tiny = _thumbnail(image)
    lines = "<br>".join(f"<span>{html.escape(word)}</span> {html.escape(text)}" for word, text in caption)
    return (
        f'<figure><img{tiny} src="{source}" alt="{html.escape(description)}"><figcaption>{lines}</figcaption></figure>'
    )


def reduce_image(image: np.ndarray) -> np.ndarray:
    """An image reduced to the size at which a gallery shows it, so that it takes little memory until then.

    Args:
        image: uint8 of shape (height, width, 3).
    """
    return np.asarray(_reduced(image))


def _reduced(image: np.ndarray) -> Image.Image:
    thumbnail = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    thumbnail.thumbnail((_SIDE, _SIDE))
    return thumbnail


def _thumbnail(image: np.ndarray) -> tuple[str, str]:
    """A data: URL of the image as PNG, and the class that shows the pixels of a small image as squares."""
    thumbnail = _reduced(image)
    tiny = ' class="tiny"' if max(thumbnail.size) < _SIDE // 2 else ""
    data = io.BytesIO()
    thumbnail.save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}", tiny
