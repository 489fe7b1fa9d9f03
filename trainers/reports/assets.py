"""The style sheet, the script and the chart colours of every report page."""

from __future__ import annotations

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


# Marks after Okabe and Ito, who chose them to be told apart by colour-blind readers too; lighter ones on dark.
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

STYLE = (
    """
:root { color-scheme: light dark; --page: #fff; --box: #f6f8fa; --text: #1c2128; --quiet: #57606a; --line: #d8dee4;
  --link: #0066a1; }
@media (prefers-color-scheme: dark) { :root { --page: #13171c; --box: #1b2129; --text: #e6e9ee; --quiet: #a3acb8;
  --line: #363d47; --link: #62b8f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 """
    + _FONT
    + """; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
nav a { padding: .25rem 0; }
a { color: var(--link); }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; }
section p, footer { color: var(--quiet); margin: .25rem 0 .75rem; }
footer { margin-top: 2rem; font-size: .85rem; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.chart { overflow-x: auto; width: 100%; }
.chart.vega-embed { display: block; }
.rows { overflow: auto; max-height: 36rem; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; overflow-wrap: normal; }
td { padding: .3rem .75rem; border-top: 1px solid var(--line); overflow-wrap: break-word; vertical-align: top; }
tr > .n, tr > .n button { font-variant-numeric: tabular-nums; text-align: right; }
th { padding: 0; position: sticky; top: 0; background: var(--box); text-align: left; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; width: 100%; cursor: pointer;
  padding: .45rem .75rem; text-align: left; white-space: nowrap; }
th button::after { content: " ↕"; color: var(--quiet); opacity: .6; }
th[aria-sort] button::after { opacity: 1; color: var(--link); }
th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
th button:focus-visible, .rows:focus-visible { outline-offset: -2px; }
input { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: 6px;
  padding: .3rem .6rem; max-width: 60vw; }
.filter output { font-size: .85rem; margin-left: .5rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .75rem; }
.images figure { margin: 0; padding: .6rem; background: var(--box); border-radius: 6px; font-size: .85rem; }
.images img { display: block; margin: 0 auto .4rem; width: 96px; height: 96px; object-fit: contain; }
.images img.tiny { image-rendering: pixelated; }
.images figcaption { line-height: 1.35; }
.images span { color: var(--quiet); }
#vg-tooltip-element.vg-tooltip { background: var(--box); border-color: var(--line); color: var(--text); }
#vg-tooltip-element.vg-tooltip td.key { color: var(--quiet); }
#vg-tooltip-element td { border: 0; padding: 1px 4px; }
@media print { .rows { max-height: none; } nav, .filter { display: none; } }
"""
)

# `ast` makes Vega interpret its expressions; it would compile them with eval, which the page's policy forbids.
SCRIPT = """
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];
  // SVG is sharp at any zoom and is read out; with thousands of marks it takes too long.
  const rowsOf = ({data, layer = []}) => layer.reduce((sum, each) => sum + rowsOf(each), data?.values?.length ?? 0);
  const drawOne = (spec, index) => {
    const place = document.getElementById("chart" + index);
    return vegaEmbed(place, spec, {
      mode: "vega-lite", renderer: rowsOf(spec) > 2000 ? "canvas" : "svg", ast: true, actions: false,
      config: data.themes[dark.matches ? "dark" : "light"],
    }).catch(error => { place.textContent = "This chart cannot be drawn: " + error.message; });
  };
  const draw = async () => {
    drawn.forEach(chart => chart && chart.finalize());
    drawn = await Promise.all(data.charts.map(drawOne));
  };
  if (data.charts.length) { draw(); dark.addEventListener("change", draw); }

  const words = new Intl.Collator("en", {numeric: true});
  const compare = (a, b) => {
    const x = a.dataset.v, y = b.dataset.v;
    if (x !== undefined && y !== undefined) return Number(x) - Number(y) || 0;
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;
    return words.compare(a.textContent, b.textContent);
  };
  // A thousand rows take a second to lay out: only the first ones are shown, and more with every scroll to their end.
  for (const table of document.querySelectorAll(".rows > table")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], portion = Number(table.dataset.portion);
    const filter = table.closest("section").querySelector(".filter"), box = table.parentElement;
    let wanted = "", most = portion, found = body.rows.length;
    const show = () => {
      found = 0;
      for (const row of body.rows) {
        const text = wanted && [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
        const fits = !wanted || text.includes(wanted);
        found += fits;
        row.hidden = !fits || found > most;
      }
    };
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((p, q) => {
        const a = p.cells[column], b = q.cells[column];
        if ("none" in a.dataset || "none" in b.dataset) return ("none" in a.dataset) - ("none" in b.dataset);
        return sign * compare(a, b);
      }));
      show();
    }));
    box.addEventListener("scroll", () => {
      if (found <= most || box.scrollTop + 2 * box.clientHeight < box.scrollHeight) return;
      most += portion;
      show();
    });
    addEventListener("beforeprint", () => { most = Infinity; show(); });
    if (filter) filter.firstElementChild.addEventListener("input", event => {
      wanted = event.target.value.trim().toLowerCase();
      most = portion;
      show();
      filter.lastElementChild.textContent =
        found.toLocaleString("en") + " of " + body.rows.length.toLocaleString("en");
    });
  }
})();
"""
