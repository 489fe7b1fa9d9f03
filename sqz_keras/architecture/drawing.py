"""Draws a network as in the paper's Figure 2, as SVG or PNG; a box's width shows its number of channels."""

from __future__ import annotations

import html
import os
import pathlib

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.architecture.summary import Row, table
from sqz_keras.extras import needs

_WIDTH, _MIDDLE = 560, 240  # pixels; the boxes are left of the page's centre, because bypasses run on the right
_BOX, _STEP = 30, 56  # height of a box, and from one box's top to the next one's
_NARROWEST, _WIDEST = 70, 300
_FILL = {"conv": "#cfe3f5", "pool": "#e9e9e9", "fire": "#fbdcc4"}
_INK, _QUIET, _BYPASS = "#1c2128", "#57606a", "#0072b2"
_FONT = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


def draw_svg(spec: ModelSpec) -> str:
    """The drawing as SVG text: one box per layer or fire module from top to bottom, bypasses as arcs on the right.

    Each box shows its output (height x width x channels), and a fire module its squeeze1x1, expand1x1 and expand3x3
    filters. A "+" marks where a bypass is added; a dashed arc is a bypass with a 1x1 convolution.
    """
    rows = table(spec, {})
    layers = {layer.name: layer for layer in spec.layers()}
    # Block -> whether its bypass goes through a convolution of the block.
    bypasses = {
        layer.block: layers[layer.inputs[0]].block == layer.block
        for layer in layers.values()
        if layer.kind == "addition"
    }
    most = max(row.channels for row in rows)
    tops = [64 + _STEP * place for place in range(len(rows) + 1)]
    height = tops[-1] + 24
    size = f"{spec.input_size}x{spec.input_size}x{spec.channels}"
    parts = [
        _text(_WIDTH / 2, 24, _title(spec), 14, _INK, "600"),
        _text(_MIDDLE, 46, f"images {size}", 11, _QUIET),
        f'<path d="M {_MIDDLE} 51 V {tops[-2]}" stroke="{_QUIET}" stroke-width="1.25"/>',
    ]
    for row, top in zip(rows, tops, strict=False):
        parts += _box(row, top, most)
        if row.name in bypasses:
            # From the line that leads into the module to the line that leads out of it.
            parts.append(_arc(top - 5, top + _BOX + 10, bypasses[row.name]))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="{_FONT}" role="img">\n'
        f"<title>{html.escape(_title(spec))}</title>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )


def drawing(spec: ModelSpec, path: str | os.PathLike) -> bytes:
    """The content of a file with the drawing; the suffix of the file's name, .svg or .png, selects the format.

    Raises:
        ValueError: The suffix is neither .svg nor .png.
        MissingExtraError: The package vl-convert-python, which makes the PNG, is not installed.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix == ".svg":
        return draw_svg(spec).encode()
    if suffix == ".png":
        with needs("report"):
            import vl_convert

        return vl_convert.svg_to_png(draw_svg(spec), scale=2)
    raise ValueError(f"A drawing is saved as .svg or .png, not as {suffix or 'a file without an ending'}: {path}")


def _title(spec: ModelSpec) -> str:
    version = f"SqueezeNet v{spec.version}" if spec.version else "SqueezeNet, other metaparameters"
    return f"{version}, {spec.bypass or 'no'} bypass, {spec.count_params():,} parameters"


def _box(row: Row, top: float, most: int) -> list[str]:
    width = _NARROWEST + (_WIDEST - _NARROWEST) * row.channels / most
    kind = "fire" if row.filters else "pool" if row.name.startswith("pool") else "conv"
    inside = f"{row.name} {row.window}" if row.window else row.name
    output = f"{row.size}x{row.size}x{row.channels}"
    return [
        f'<rect x="{_MIDDLE - width / 2:.1f}" y="{top}" width="{width:.1f}" height="{_BOX}" rx="4" '
        f'fill="{_FILL[kind]}" stroke="{_QUIET}" stroke-width="0.75"/>',
        _text(_MIDDLE, top + (13 if row.filters else 19), inside, 12, _INK, "600"),
        *([_text(_MIDDLE, top + 25, row.filters, 9.5, _QUIET)] if row.filters else []),
        _text(78, top + 19, output, 10.5, _QUIET, anchor="end"),
    ]


def _arc(start: float, end: float, convolution: bool) -> str:
    right = _MIDDLE + _WIDEST / 2 + 40
    dashes = ' stroke-dasharray="5 3"' if convolution else ""
    middle = (start + end) / 2
    label = _text(right + 6, middle + 4, "conv 1x1" if convolution else "identity", 9.5, _BYPASS, anchor="start")
    return (
        f'<path d="M {_MIDDLE} {start} H {right - 12} Q {right} {start} {right} {start + 12} V {end - 12} '
        f'Q {right} {end} {right - 12} {end} H {_MIDDLE + 7}" fill="none" stroke="{_BYPASS}" stroke-width="1.5"'
        f"{dashes}/>{label}"
        f'<circle cx="{_MIDDLE}" cy="{end}" r="6.5" fill="white" stroke="{_BYPASS}" stroke-width="1.25"/>'
        + _text(_MIDDLE, end + 4, "+", 12, _BYPASS, "700")
    )


def _text(x: float, y: float, text: str, size: float, colour: str, weight: str = "400", anchor: str = "middle") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{html.escape(text)}</text>'
    )
