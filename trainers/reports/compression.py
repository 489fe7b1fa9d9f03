"""The report of a compression: bytes by layer, weights and centroids, accuracy before and after, the paper's row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from sqz_keras.architecture.summary import ALEXNET_BYTES
from trainers.reports.page import Section, Table, write_page
from trainers.reports.thumbnails import gallery

PARTS = ("codebook", "positions", "codes", "raw")
_BINS = 80
_MOST_CENTROIDS = 1024  # a layer with more does not share its weights
_NET = "SqueezeNet"
# Paper, Table 2: net, method, bits, bytes, smaller than AlexNet, top-1, top-5.
_PAPER = (
    ("AlexNet", "none", "32", 240e6, "1x", 0.572, 0.803),
    ("AlexNet", "SVD", "32", 48e6, "5x", 0.560, 0.794),
    ("AlexNet", "pruning", "32", 27e6, "9x", 0.572, 0.803),
    ("AlexNet", "Deep Compression", "5-8", 6.9e6, "35x", 0.572, 0.803),
    (_NET, "none", "32", 4.8e6, "50x", 0.575, 0.803),
    (_NET, "Deep Compression", "8", 0.66e6, "363x", 0.575, 0.803),
    (_NET, "Deep Compression", "6", 0.47e6, "510x", 0.575, 0.803),
)


def write_compression_report(
    path: str | os.PathLike,
    title: str,
    results: Mapping[str, Any],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray] = (),
) -> None:
    """Writes the page of a `.sqz` file, one file that opens offline.

    Args:
        path: Path of the page; an older file is replaced.
        title: Plain text.
        results: Results as `trainers.compression.run.compress` returns them.
        before: The weights before compression, by name.
        after: The weights that the file holds, by name.
        images: The images of `results["changed"]`, in its order; uint8 RGB (height, width, 3) each.

    Raises:
        ValueError: `path` cannot be written.
    """
    sections = [
        Section("Results", table=_overview(results)),
        *([_changed_answers(results, images)] if "changed" in results else []),
        Section("Beside the paper", table=_beside_the_paper(results), note=_paper_note(results)),
        Section("Bytes by layer", chart=_bytes_chart(results["arrays"])),
        Section(
            "Layers",
            table=_layers(results),
            note="Entropy: the bytes of positions and codes at their zero-order entropy, beside those of both in the "
            "file. Values: different ones that are not 0.",
        ),
        Section("Sections of the file", table=Table(("section", "bytes"), _sections(results))),
        Section(
            "Weights and their centroids",
            chart=_histograms(before, after),
            note="Blue: the kernel's non-zero weights, before. Orange: the values that the file holds for them, where "
            "they are shared.",
        ),
        Section("Made of", table=Table(("name", "value"), [(name, str(v)) for name, v in _facts(results)])),
    ]
    write_page(path, title, sections)


def _overview(results: Mapping[str, Any]) -> Table:
    rows = [
        ("bytes of the file", results["bytes"]),
        ("bytes in float32", results["float32_bytes"]),
        ("a delta on", results["base"]) if "base" in results else ("times less", results["compression_ratio"]),
        ("profile", results["profile"]),
        ("the same weights, bit for bit", results["lossless"]),
    ]
    for label, when, name, interval in (
        ("top-1, before", "before", "top1_accuracy", "top1_interval"),
        ("agreement with the model before, after", "after", "agreement", "agreement_interval"),
        ("top-1, after", "after", "top1_accuracy", "top1_interval"),
    ):
        if name in results.get(when, {}):
            low, high = results[when][interval]
            rows.append((label, f"{results[when][name]:.1%} ({low:.1%} to {high:.1%})"))
    if "after" in results:
        rows.append(("images of the evaluation", results["after"]["num_images"]))
    return Table(("what", "value"), rows)


def _changed_answers(results: Mapping[str, Any], images: Sequence[np.ndarray]) -> Section:
    evaluated, shown = results["after"]["num_images"], len(results["changed"])
    count = evaluated - round(results["after"]["agreement"] * evaluated)
    if not shown:
        return Section(
            "Answers that changed", html=f"<p>None: all {evaluated:,} images have the same answer as before.</p>"
        )
    figures = []
    for answer, image in zip(results["changed"], images, strict=True):
        caption = []
        for when in ("before", "after"):
            caption += [(when, answer[when]), ("at", f"{answer[f'probability_{when}']:.1%}")]
        figures.append((image, f"{answer['before']} before, {answer['after']} after", caption))
    note = f"{count:,} of {evaluated:,} images have a different answer than before."
    note += f" The {shown} with the highest probability before are shown." if shown < count else ""
    return Section("Answers that changed", html=gallery(figures), note=note)


def _beside_the_paper(results: Mapping[str, Any]) -> Table:
    rows = [
        (net, method, bits, f"{size:,.0f}", times, f"{top1:.1%}", f"{top5:.1%}", "paper")
        for net, method, bits, size, times, top1, top5 in _PAPER
    ]
    kernels = [array for array in results["arrays"] if array["name"].endswith("/kernel")]
    bits = sorted({32 if array["kind"] == "planes" else array["bits"] for array in kernels})
    ours = f"{bits[0]}-{bits[-1]}" if len(bits) > 1 else str(*bits)
    top1 = f"{results['after']['top1_accuracy']:.1%}" if "top1_accuracy" in results.get("after", {}) else "not measured"
    size = results["bytes"]
    stages = results["provenance"]["stages"]
    names = [stage.get("stage", "") if isinstance(stage, dict) else stage for stage in stages]
    method = ", ".join(map(str, names)) or "lossless"
    smaller = "a delta" if "base" in results else f"{ALEXNET_BYTES / size:.0f}x"
    row = (_NET, method, ours, f"{size:,}", smaller, top1, "not measured", "this file")
    columns = ("net", "method", "bits", "bytes", "smaller than AlexNet", "top-1", "top-5", "whose")
    return Table(columns, [*rows, row])


def _paper_note(results: Mapping[str, Any]) -> str:
    note = "The paper's accuracies are on ILSVRC2012's validation set (arXiv 1602.07360, Table 2)"
    if "top1_accuracy" not in results.get("after", {}):
        return f"{note}."
    return f"{note}; this file's on {results['after']['num_images']} other images, so the two cannot be compared."


def _layers(results: Mapping[str, Any]) -> Table:
    rows = []
    for array in results["arrays"]:
        layer, _, kind = array["name"].partition("/")
        before = results["density_before"].get(layer) if kind == "kernel" else None
        shape = "x".join(map(str, array["shape"]))
        entropy = round(sum(array["entropy"].values())) if array["entropy"] else None
        spent = [round(array["bytes"][part]) for part in PARTS]
        densities = (None if before is None else round(before, 4), round(array["density"], 4))
        rows.append((array["name"], shape, *densities, array["distinct"], array["bits"], *spent, sum(spent), entropy))
    columns = ("array", "shape", "density before", "density", "values", "bits", *PARTS, "bytes", "entropy")
    return Table(columns, rows)


def _sections(results: Mapping[str, Any]) -> list[tuple[str, int]]:
    named = [(section["name"], section["bytes"]) for section in results["sections"]]
    return [("fixed header", results["bytes"] - sum(size for _, size in named)), *named]


def _bytes_chart(arrays: Sequence[Mapping[str, Any]]) -> alt.Chart:
    rows = [
        {"array": array["name"], "part": part, "bytes": round(array["bytes"][part]), "order": PARTS.index(part)}
        for array in arrays
        for part in PARTS
        if array["bytes"][part] >= 0.5 and array["name"].endswith("/kernel")
    ]
    biases = sum(sum(array["bytes"].values()) for array in arrays if array["name"].endswith("/bias"))
    rows.append({"array": "all biases", "part": "raw", "bytes": round(biases), "order": PARTS.index("raw")})
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            alt.Y("array:N", sort=None, title=None, axis=alt.Axis(labelLimit=180, ticks=False)),
            alt.X("bytes:Q", title="bytes", axis=alt.Axis(format="~s")),
            alt.Color("part:N", title=None, sort=list(PARTS), legend=alt.Legend(orient="top")),
            alt.Order("order:Q"),
            tooltip=["array:N", "part:N", alt.Tooltip("bytes:Q", format=",")],
        )
        .properties(width="container", height=alt.Step(18))
    )


def _histograms(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> alt.FacetChart:
    rows = []
    for name in before:
        if name.endswith("/kernel"):
            rows += _histogram(name.removesuffix("/kernel"), before[name], after[name])
    base = alt.Chart()
    x = alt.X("from:Q", bin="binned", title=None, axis=alt.Axis(tickCount=3, grid=False))
    bars = (
        base.mark_bar()
        .encode(x, alt.X2("to:Q"), alt.Y("weights:Q", title=None, axis=alt.Axis(tickCount=2, format="~s")))
        .transform_filter("isValid(datum.weights)")
    )
    # Short rules at the foot: long ones would hide the bars.
    centroids = (
        base.mark_tick(thickness=1, height=8, yOffset=-4, color="#d55e00", orient="vertical")
        .encode(alt.X("centroid:Q", title=None), y=alt.YDatum(0), tooltip=[alt.Tooltip("centroid:Q", format=".4~g")])
        .transform_filter("isValid(datum.centroid)")
    )
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    return (
        alt.layer(bars, centroids, data=alt.Data(values=rows))
        .properties(width=190, height=90)
        .facet(alt.Facet("layer:N", sort=layers, title=None), columns=4)
        .resolve_scale(x="independent", y="independent")
    )


def _histogram(layer: str, before: np.ndarray, after: np.ndarray) -> list[dict[str, Any]]:
    weights = before[before != 0]
    if not weights.size:
        return []
    counts, edges = np.histogram(weights.astype(np.float64), _BINS)
    rows = [
        {"layer": layer, "from": float(f"{low:.4g}"), "to": float(f"{high:.4g}"), "weights": int(count)}
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
        if count
    ]
    values = np.unique(after[after != 0])
    if len(values) <= _MOST_CENTROIDS and len(values) < weights.size:
        rows += [{"layer": layer, "centroid": float(f"{value:.5g}")} for value in values]
    return rows


def _facts(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    spec = dict(results["model_spec"])
    spec.pop("labels", None)
    return [*results["provenance"].items(), *spec.items()]
