"""The style sheet, the script and the chart colours of every report page."""

from __future__ import annotations

import pathlib
from typing import Any

# System fonts: a page that loads nothing has no others.
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


def _theme(text: str, quiet: str, line: str, marks: list[str], ramp: list[str], on_ramp: tuple[str, str]) -> dict:
    """Vega-Lite's `config` for one set of colours; `on_ramp` is the text on the weak and the strong end of `ramp`."""
    titles: dict[str, Any] = {"labelColor": quiet, "titleColor": text, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": "transparent",
        "font": _FONT,
        "view": {"stroke": None},
        "axis": titles | {"titleFontWeight": "normal", "domainColor": line, "tickColor": line, "gridColor": line},
        "legend": titles | {"titleFontWeight": "normal"},
        "header": titles,
        "title": {"color": text, "subtitleColor": quiet},
        "mark": {"color": marks[0]},
        "line": {"strokeWidth": 2},
        "rule": {"color": quiet},
        "text": {"color": text},
        "range": {"category": marks, "ramp": ramp, "heatmap": ramp},
        "style": {"on-weak": {"color": on_ramp[0]}, "on-strong": {"color": on_ramp[1]}},
    }


# Mark colours after Okabe and Ito, who chose them so that colour-blind readers can tell them apart; lighter on dark.
THEMES = {
    "light": _theme(
        "#1c2128",
        "#57606a",
        "#d8dee4",
        ["#0072b2", "#d55e00", "#008a64", "#b3568a", "#a87400", "#4a4a4a"],
        ["#f1f5fa", "#9cc3e6", "#08498f"],
        ("#1c2128", "#ffffff"),
    ),
    "dark": _theme(
        "#e6e9ee",
        "#a3acb8",
        "#363d47",
        ["#62b8f0", "#f0904e", "#35c79c", "#e39ac5", "#e8b84a", "#c4c9d1"],
        ["#1d242d", "#2f6da3", "#a9d8ff"],
        ("#e6e9ee", "#0c1116"),
    ),
}

_FOLDER = pathlib.Path(__file__).parent
STYLE = (_FOLDER / "page.css").read_text("utf-8")
# Its option `ast` makes Vega interpret expressions, because the page's policy forbids compiling them with eval.
SCRIPT = (_FOLDER / "page.js").read_text("utf-8")
