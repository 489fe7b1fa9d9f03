"""Ways of making one net smaller, side by side: bytes, agreement with the original net, top-1.

    python experiments/compression.py --image_dir=DIR [--model=imagenet] [--rows=lossless,shared] [--output=FILE]

DIR holds images, with or without labels in their names as for sqz-evaluate. Methods that need images (label-free,
LiteRT int8) run twice: one half of the images calibrates and the other half evaluates, then the other way round; the
larger file gives the bytes. With --calibration_dir they run once: its images calibrate, and all images of --image_dir
evaluate. Prints a table with what is required, and writes FILE.json, row by row, and the plot FILE.svg and FILE.png.
--earlier=OTHER.json adds the rows of an earlier run, so that the work can be split or continued. The divergence is
KL(uncompressed || compressed) of the answers, in nats, averaged over the images.

--files=FILE.sqz,... adds files that sqz-compress made of this net, under the names of their methods.
--peers=PYTHON adds NNCodec, run by that interpreter: it needs NumPy 1, so it has an environment of its own;
`pip install nncodec` is enough for that environment if compilers are available.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command
from sqz_keras.files import check_writable, write_json

ROWS = ("zipped", "svd", "pruning", "shared", "lossless", "litert", "label_free")
CALIBRATED = ("litert", "label_free")
# Figures that others report for a thousand images of imagenet-sample-images: method, bytes, agreement.
PUBLISHED = (
    ("the authors' .net", 675_763, 1.0),
    ("NNCodec 2.1.3", 478_100, 0.957),
    ("NNCodec 2.1.3", 399_900, 0.881),
    ("NNCodec 2.1.3", 345_100, 0.789),
    ("6-bit k-means, entropy-coded", 365_000, 0.791),
    ("uniform grid, second order", 360_200, 0.880),
    ("uniform grid, second order", 320_300, 0.824),
)
# Sizes that others state for the accuracy of AlexNet on ImageNet, in bytes.
CLAIMED = (("the paper, 6 bits", 470_000), ("coresets, arXiv 1807.09810", 293_000))
# (version, method, setting) -> most bytes, least agreement. 1.0 is as the authors pruned it, 1.1 dense.
REQUIRED = {
    ("1.0", "lossless, max", ""): (533_000, 1.0),
    ("1.0", "lossless, paper", ""): (547_000, 1.0),
    ("1.0", "+ Huffman (profile paper)", "6 bits"): (372_000, 0.79),
    ("1.0", "label-free", "for 390,000 bytes"): (390_000, 0.955),
    ("1.0", "label-free", "for 322,000 bytes"): (322_000, 0.9),
    ("1.1", "label-free", "for 430,000 bytes"): (430_000, 0.87),
    ("1.1", "label-free", "for 600,000 bytes"): (600_000, 0.94),
}


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images.", required=True)
    flags.DEFINE_list("rows", list(ROWS), f"Of {', '.join(ROWS)}.")
    flags.DEFINE_list("targets", ["322000", "360000", "390000", "430000", "480000"], "Sizes for label_free, in bytes.")
    flags.DEFINE_string("calibration_dir", None, "Folder of other images, which calibrate instead of halves.")
    flags.DEFINE_integer("calibration_images", 100, "At most so many of them, or of each half.", lower_bound=1)
    flags.DEFINE_list("files", [], "Files of this net that sqz-compress made.")
    flags.DEFINE_string("peers", None, "Python interpreter that has the package nncodec.")
    flags.DEFINE_string("earlier", None, "JSON file of an earlier run on the same net and images.")
    flags.DEFINE_string("output", "compression", "FILE, without a suffix, of the JSON and the plot.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    unknown = sorted(set(args.rows) - set(ROWS))
    if unknown:
        raise ValueError(f"--rows: {unknown[0]!r} is none of {', '.join(ROWS)}.")
    check_writable(f"{args.output}.json")
    targets = [int(target) for target in args.targets]

    from sqz_keras.images.files import find_images
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.image_reader import read_inputs
    from trainers.evaluation.agreement import find_evaluation_images
    from trainers.reports.page import save_chart

    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    images = find_evaluation_images(args.image_dir, spec)
    names = ("model", "version", "bypass", "image_dir", "calibration_dir", "calibration_images")
    subject = {name: getattr(args, name) for name in names}
    earlier = []
    if args.earlier:
        earlier_subject = json.loads(pathlib.Path(args.earlier).read_text("utf-8"))
        earlier = earlier_subject.pop("rows")
        if earlier_subject != subject:
            raise ValueError(f"--earlier={args.earlier} is of {earlier_subject}, and this run of {subject}.")
    calibration = None
    if args.calibration_dir:
        calibration = read_inputs(find_images(args.calibration_dir, args.calibration_images), spec)

    def save(rows):
        write_json(f"{args.output}.json", subject | {"rows": earlier + rows})

    rows = earlier + measure(
        spec, arrays, images, args.rows, targets, args.calibration_images, calibration, args.files, args.peers, save
    )
    chart = plot(rows, PUBLISHED if spec.version == "1.0" else ())
    for suffix in (".svg", ".png"):
        save_chart(chart, f"{args.output}{suffix}")
    print(f"{args.output}.json, .svg and .png")


def measure(
    spec,
    arrays,
    labelled_images,
    kinds,
    targets,
    calibration_images,
    calibration=None,
    files=(),
    peers=None,
    save=lambda rows: None,
) -> list[dict]:
    """One dict per row: method, setting, bytes and the `agreement_fields`.

    Args:
        spec: The model.
        arrays: Its weights by name.
        labelled_images: Paths of the images that evaluate, with their class indices.
        kinds: Some of `ROWS`.
        targets: Sizes for label-free rows, in bytes.
        calibration_images: How many images of each half calibrate, at most.
        calibration: Network inputs that calibrate instead of the halves.
        files: Paths of `.sqz` files of this net.
        peers: Python interpreter that has NNCodec, which then adds rows.
        save: Called after each row with the rows so far.
    """
    from experiments import compression_rows as ways
    from sqz_keras.compression.divergence import mean_divergence
    from sqz_keras.models.squeezenet import assign, build
    from sqz_keras.runtimes.run import run_litert
    from trainers.data.image_reader import read_inputs
    from trainers.evaluation.agreement import agreement_fields

    images = read_inputs([path for path, _ in labelled_images], spec)
    if len(images) != len(labelled_images):
        raise ValueError("Remove the images that cannot be read: they would shift the others.")
    indices = [index for _, index in labelled_images]
    labels = None if None in indices else np.array(indices)
    everything, model = np.arange(len(images)), build(spec, arrays)
    reference = model.predict(images, batch_size=32, verbose=0)
    rows = []

    def answers(candidate, places):
        if candidate.litert is not None:
            return run_litert(candidate.litert, images[places])
        assign(model, candidate.arrays)
        return model.predict(images[places], batch_size=32, verbose=0)

    def add(candidates, unseen):
        """Adds a row, from one candidate for each half of the images, or for all, given by their places."""
        probabilities, first = np.empty_like(reference), candidates[0]
        for candidate, places in zip(candidates, unseen, strict=True):
            probabilities[places] = answers(candidate, places)
        row = {"method": first.method, "setting": first.setting, "bytes": max(one.bytes for one in candidates)}
        row["divergence"] = mean_divergence(reference, probabilities)
        rows.append(row | agreement_fields(reference.argmax(axis=1), probabilities.argmax(axis=1), labels))
        print(describe(rows[-1], spec.version), flush=True)
        save(rows)

    for kind in kinds:
        make, options = getattr(ways, kind), (targets,) if kind == "label_free" else ()
        if kind in CALIBRATED:
            seen, unseen = folds(images, calibration, calibration_images)
            for candidates in zip(*(make(spec, arrays, inputs, *options) for inputs in seen), strict=True):
                add(candidates, unseen)
        else:
            for candidate in make(spec, arrays):
                add([candidate], [everything])
    for candidate in (*ways.files(files), *(ways.nncodec(arrays, peers) if peers else ())):
        add([candidate], [everything])
    return rows


def folds(images, calibration, at_most: int) -> tuple[list, list]:
    """The network inputs that calibrate, once or twice, and the places of the images that then evaluate."""
    everything = np.arange(len(images))
    if calibration is not None:
        return [calibration], [everything]
    halves = [everything[0::2], everything[1::2]]
    spread = (np.linspace(0, len(half) - 1, min(len(half), at_most)).round().astype(int) for half in halves)
    return [images[half[places]] for half, places in zip(halves, spread, strict=True)], halves[::-1]


def describe(row: dict, version: str | None) -> str:
    """A line of the table, with the requirement for this version if there is one."""
    low, high = row["agreement_interval"]
    line = f"{row['method']:<28}{row['setting']:<24}{row['bytes']:>10,} bytes  agreement {row['agreement']:6.1%}"
    line += f" ({low:.1%} to {high:.1%})  divergence {row['divergence']:.4f}"
    if "top1_accuracy" in row:
        line += f"  top-1 {row['top1_accuracy']:.1%}"
    required = REQUIRED.get((version, row["method"], row["setting"]))
    if required:
        size, agreement = required
        holds = row["bytes"] <= size and row["agreement"] >= agreement
        line += f"  required: {agreement:.0%} in {size:,} bytes{'' if holds else ', which this is not'}"
    return line


def plot(rows: list[dict], published: Sequence[tuple[str, int, float]]):
    """Agreement over bytes, with intervals, above top-1 if it is known; the figures of others are in black."""
    import altair as alt

    points = [row | dict(zip(("low", "high"), row["agreement_interval"], strict=True)) for row in rows]
    scale = alt.Scale(type="log", nice=False, padding=12)
    ticks = [2e5, 2.5e5, 3e5, 3.5e5, 4e5, 5e5, 7e5, 1e6, 2e6, 5e6]
    x = alt.X("bytes:Q", title="bytes of the file", scale=scale, axis=alt.Axis(format="~s", values=ticks))
    y = alt.Y("agreement:Q", title="same answer as uncompressed", axis=alt.Axis(format="%"))
    scheme = "category10" if len({row["method"] for row in rows}) <= 10 else "tableau20"
    legend = alt.Legend(orient="top", columns=3, columnPadding=40)
    colour = alt.Color("method:N", title=None, scale=alt.Scale(scheme=scheme), legend=legend)
    ours = alt.Chart(alt.Data(values=points)).encode(x=x, color=colour)
    spread = ours.mark_rule(opacity=0.5).encode(alt.Y("low:Q", title=""), alt.Y2("high:Q"))
    lines = ours.mark_line(strokeWidth=1.5).encode(y=y) + ours.mark_point(filled=True, size=45).encode(y=y)
    others = [{"method": method, "bytes": size, "agreement": share} for method, size, share in published]
    legend = alt.Legend(orient="bottom", columns=3, columnPadding=40, symbolStrokeColor="black")
    shape = alt.Shape("method:N", title="reported by others", legend=legend)
    base = alt.Chart(alt.Data(values=others)).encode(x=x, y=y, detail="method:N")
    theirs = base.mark_line(strokeWidth=1, strokeDash=[3, 3], color="black") + base.mark_point(
        size=60, color="black"
    ).encode(shape=shape)
    agreement = (spread + lines + theirs).resolve_scale(shape="independent").properties(width=560, height=380)
    if not any("top1_accuracy" in row for row in rows):
        return agreement
    top1 = alt.Y("top1_accuracy:Q", title="top-1", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    ours = ours.mark_line(strokeWidth=1.5).encode(y=top1) + ours.mark_point(filled=True, size=45).encode(y=top1)
    claims = alt.Chart(alt.Data(values=[{"method": method, "bytes": size} for method, size in CLAIMED])).encode(x=x)
    words = claims.mark_text(align="left", dx=4, y=180).encode(text="method:N")
    top1 = (ours + claims.mark_rule(strokeDash=[2, 4]) + words).properties(width=560, height=190)
    return (agreement & top1).resolve_scale(x="shared")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
