"""All reports are made here, with Altair: HTML pages that hold everything they need, and charts for papers.

A page never uses the network, and its own Content-Security-Policy enforces this: only the scripts that `write_page` put
into it run, whatever a label or a file name contains.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from sqz_keras.files import check_writable, write_file
from sqz_keras.version import __version__
from trainers.reports.assets import SCRIPT, STYLE, THEMES

_FILTER_FROM_ROWS = 12  # a shorter table is seen at a glance
_PORTION = 100  # rows of a table that are shown at first, and more with every scroll to their end
_LONGEST_TEXT = 400  # characters of a cell
# Altair's charts are written for one release of Vega-Lite, which vl-convert names by its first two numbers.
_VEGALITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@dataclass(frozen=True)
class Table:
    """Rows that the reader can filter and sort by a column; numbers are sorted as numbers.

    Raises:
        ValueError: A row does not have one value for each column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __post_init__(self):
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"Row {index} must have {len(self.columns)} values, one a column, not {len(row)}.")


@dataclass(frozen=True)
class Section:
    """A heading with a note under it and one chart, one table or one piece of markup.

    Attributes:
        title: Plain text.
        chart: An Altair chart; `width="container"` makes it as wide as the page. Leave colours to the page, which
            has its own for light and dark.
        table: A `Table`.
        html: Markup that is written as it is; the caller escapes its content.
        note: Plain text.

    Raises:
        ValueError: Not exactly one of chart, table and html is given.
    """

    title: str
    chart: alt.TopLevelMixin | None = None
    table: Table | None = None
    html: str | None = None
    note: str = ""

    def __post_init__(self):
        given = [name for name in ("chart", "table", "html") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"The section {self.title!r} needs one of chart, table and html; it has {given or 'none'}."
            )


def write_page(path: str | os.PathLike, title: str, sections: Sequence[Section]) -> None:
    """Writes one HTML file that opens offline, whole or not at all.

    Args:
        path: Path of the file; an older file is replaced.
        title: Plain text.
        sections: Sections in the order of the page.

    Raises:
        ValueError: `path` cannot be written.
    """
    check_writable(path)
    parts, specs = [], []
    for index, section in enumerate(sections):
        parts.append(f'<section id="s{index}"><h2>{html.escape(section.title)}</h2>')
        parts.append(f"<p>{html.escape(section.note)}</p>" if section.note else "")
        if section.chart is not None:
            parts.append(f'<div class="chart" id="chart{len(specs)}"></div>')
            specs.append({"description": section.title} | _spec(section.chart))
        elif section.table is not None:
            parts.append(_table(section.table, section.title))
        else:
            parts.append(section.html)
        parts.append("</section>")
    links = "".join(f'<a href="#s{index}">{html.escape(section.title)}</a>' for index, section in enumerate(sections))
    scripts = [SCRIPT]
    if specs:
        scripts.insert(0, _library())
    data = json.dumps({"charts": specs, "themes": THEMES}, allow_nan=False).replace("<", "\\u003c")
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><header><h1>{html.escape(title)}</h1><nav aria-label="Sections">{links}</nav></header>
<main>{"".join(parts)}</main>
<footer>sqz-keras {html.escape(__version__)}</footer>
<script type="application/json" id="data">{data}</script>
{"".join(f"<script>{script}</script>" for script in scripts)}
</body></html>
"""
    write_file(path, page.encode("utf-8", "replace"))  # a file's name may hold what UTF-8 cannot


def save_chart(chart: alt.TopLevelMixin, path: str | os.PathLike) -> None:
    """Writes a chart for a paper: .svg, or .png at 200 pixels per inch, with the light colours on white.

    Raises:
        ValueError: `path` has another suffix, or cannot be written.
    """
    check_writable(path)
    config = THEMES["light"] | {"background": "white"}
    suffix = pathlib.Path(path).suffix.lower()
    if suffix == ".svg":
        data = vl_convert.vegalite_to_svg(_spec(chart), _VEGALITE, config=config).encode()
    elif suffix == ".png":
        data = vl_convert.vegalite_to_png(_spec(chart), _VEGALITE, ppi=200, scale=1, config=config)
    else:
        raise ValueError(f"A chart is saved as .svg or .png, not as {suffix or 'a file without an ending'}: {path}")
    write_file(path, data)


@functools.cache  # it takes a second
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which gives the page only the name `vegaEmbed`."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", _VEGALITE)
    notice = "Vega, Vega-Lite, Vega-Embed: Copyright University of Washington Interactive Data Lab, BSD-3-Clause"
    return f"/* {notice} */(() => {{{bundle}}})();"


def _spec(chart: alt.TopLevelMixin) -> dict:
    """The chart as JSON that a browser can read: values that are not finite become null, which Vega-Lite leaves out."""
    return _plain(chart.to_dict())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _policy(scripts: Sequence[str]) -> str:
    """The policy that the page loads nothing and runs only `scripts`."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def _table(table: Table, title: str) -> str:
    label = html.escape(title)
    rows = [[item.item() if isinstance(item, np.generic) else item for item in row] for row in table.rows]
    # A column that holds only numbers is set flush right, so that their sizes can be compared.
    classes = [
        ' class="n"' if rows and all(_is_number(row[column]) or row[column] is None for row in rows) else ""
        for column in range(len(table.columns))
    ]
    heads = "".join(
        f'<th scope="col"{style}><button type="button">{html.escape(name)}</button></th>'
        for name, style in zip(table.columns, classes, strict=True)
    )
    body = "".join(
        f"<tr{' hidden' if index >= _PORTION else ''}>{''.join(map(_cell, row, classes))}</tr>"
        for index, row in enumerate(rows)
    )
    search = (
        f'<p class="filter"><input type="search" placeholder="Filter" aria-label="Filter {label}"> '
        f'<output aria-live="polite">{len(rows):,} of {len(rows):,}</output></p>'
    )
    return (
        f'{search if len(rows) >= _FILTER_FROM_ROWS else ""}<div class="rows" tabindex="0" role="region" '
        f'aria-label="{label}"><table data-portion="{_PORTION}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, style: str) -> str:
    """A table cell; `data-v` is the number to sort by, and values without an order (`data-none`) are sorted last."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f"<td{style} data-none>{'-' if value is None else 'nan'}</td>"
    if isinstance(value, bool):
        return f"<td{style}>{'yes' if value else 'no'}</td>"
    if _is_number(value):
        order = str(value).replace("inf", "Infinity")
        return f'<td{style} data-v="{order}">{f"{value:,}" if isinstance(value, int) else f"{value:.6g}"}</td>'
    text = str(value)
    return f"<td{style}>{html.escape(text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + '…')}</td>"
