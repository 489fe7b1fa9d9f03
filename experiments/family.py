"""Which of the paper's findings hold on a dataset that a laptop can train on: Figure 3's sweeps and more, over seeds.

    python experiments/family.py --workdir=DIR [--spaces=squeeze_ratio,pct_3x3,bypass,pool_after] [--seeds=0,1,2]
        [--config=digits] [--input_size=32] [--max_steps=500] ...

For each space and seed, DIR/SPACE/seed-N/ holds what `sqz-sweep --space=SPACE --sampler=grid --seed=N
--objectives=top1,compressed_bytes` makes with the same recipe. Finished nets are read, an unfinished net is resumed,
and the same command in a second shell shares the work. Every field of a recipe except the seed is a flag.

Prints, for each point, the mean test top-1 over the seeds with its 95% interval (Student's), then each finding of the
paper as the difference between two points, taken seed by seed, with the interval of its mean: if the interval includes
0, the difference is not significant. Writes the figure as DIR/family.svg and .png.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from experiments.tuned import mean_and_half_interval
from sqz_keras import command

# For each space, the differences that the paper's findings are about (sections 5.2, 5.3, 6 and 3.1): the net that is
# better according to the paper, the other net, and what the paper says.
FINDINGS = {
    "squeeze_ratio": [
        (1.0, 0.75, "accuracy levels off above 0.75"),
        (0.75, 0.125, "more squeeze filters help up to 0.75"),
    ],
    "pct_3x3": [
        (0.99, 0.5, "more than half of 3x3 filters brings nothing"),
        (0.5, 0.01, "half of 3x3 filters is better than hardly any"),
    ],
    "bypass": [
        ("simple", "none", "simple bypass beats none"),
        ("complex", "none", "complex bypass beats none"),
        ("simple", "complex", "simple bypass beats complex"),
    ],
    "pool_after": [
        ("1:4:8", "1:2:3", "late downsampling beats early"),
        ("4:6:8", "1:4:8", "yet later downsampling beats the paper's"),
    ],
}


def define_flags() -> None:
    from trainers.config_flags import define_config_flags

    flags.DEFINE_string("workdir", None, "Folder of what is made.", required=True)
    flags.DEFINE_list("spaces", list(FINDINGS), f"Of {', '.join(FINDINGS)}.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the training.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    define_config_flags("digits")


def main(argv) -> None:
    del argv
    from trainers.config_flags import config_from_flags, given_flags
    from trainers.reports.page import save_chart
    from trainers.search.config import SweepConfig
    from trainers.search.space import SPACES
    from trainers.search.study import sweep
    from trainers.training.loop import open_source
    from trainers.training.workdir import images_of

    args, rows = flags.FLAGS, []
    unknown = sorted(set(args.spaces) - set(FINDINGS))
    if not args.seeds:
        raise ValueError("--seeds must name a seed.")
    if args["seed"].present:
        raise ValueError("--seed is refused, since --seeds names the seeds of the training.")
    if unknown:
        raise ValueError(f"--spaces: {unknown[0]!r} is none of {', '.join(FINDINGS)}.")
    recipe = config_from_flags(args)
    images = images_of(open_source(recipe, args.data_dir))
    for space in args.spaces:
        tables = []
        for seed in args.seeds:
            config = SweepConfig(
                SPACES[space],
                dataclasses.replace(recipe, seed=int(seed)),
                train_flags=f"{given_flags(args)} --seed={seed}",
                sampler="grid",
                objectives=("top1", "compressed_bytes"),
                images=images,
            )
            records = sweep(config, pathlib.Path(args.workdir, space, f"seed-{seed}"), args.data_dir)
            tables.append({record["point"][space]: record for record in records if record["state"] == "complete"})
            if tables[-1].keys() != tables[0].keys():
                raise ValueError(f"{space}: seeds {args.seeds[0]} and {seed} trained different nets to their end.")
        of_space = summarize(space, tables)
        rows += of_space
        print("\n".join(describe(space, of_space, tables)), flush=True)
    for suffix in (".svg", ".png"):
        save_chart(plot(rows), f"{args.workdir}/family{suffix}")
    print(f"{args.workdir}/family.svg")


def summarize(space: str, tables: Sequence[Mapping]) -> list[dict]:
    """One row per point, in the order of the grid: means over the seeds. A seed's table has records by value."""
    rows = []
    for value, record in sorted(tables[0].items(), key=lambda item: item[1]["number"]):
        of_seeds = [table[value] for table in tables]
        seeds = [record["test_top1"] for record in of_seeds]
        mean, half = mean_and_half_interval(seeds)
        compressed = sum(record["compressed_bytes"] for record in of_seeds) / len(of_seeds)
        rows.append(
            {"space": space, "value": value, "top1": mean, "half": half, "seeds": seeds}
            | {"compressed_bytes": round(compressed)}
            | {name: record[name] for name in ("parameters", "mebibytes")}
        )
    return rows


def describe(space: str, rows: Sequence[Mapping], tables: Sequence[Mapping]):
    """Lines of two Markdown tables, from the rows of one space."""
    yield f"| {space} | parameters | MiB | `.sqz` bytes | test top-1 | interval |\n|---|---|---|---|---|---|"
    for row in rows:
        interval = "one seed" if row["half"] is None else f"+- {100 * row['half']:.1f}"
        yield (
            f"| {row['value']} | {row['parameters']:,} | {row['mebibytes']:.2f} | {row['compressed_bytes']:,} | "
            f"{row['top1']:.1%} | {interval} |"
        )
    yield "\n| finding | difference, points | interval |\n|---|---|---|"
    for better, other, finding in FINDINGS[space]:
        points = [100 * (table[better]["test_top1"] - table[other]["test_top1"]) for table in tables]
        mean, half = mean_and_half_interval(points)
        interval = f"{mean - half:+.1f} to {mean + half:+.1f}" if half is not None else "one seed"
        yield f"| {finding}: {better} less {other} | {mean:+.1f} | {interval} |"
    yield ""


def plot(rows: Sequence[Mapping]):
    """One panel per space: each point's mean with its interval, and a small ring for each seed."""
    import altair as alt

    panels = []
    for space in dict.fromkeys(row["space"] for row in rows):
        of_space = [row for row in rows if row["space"] == space]
        means = [
            {"place": row["value"], "top1": row["top1"]}
            | {"low": max(0.0, row["top1"] - (row["half"] or 0)), "high": min(1.0, row["top1"] + (row["half"] or 0))}
            for row in of_space
        ]
        seeds = [{"place": row["value"], "top1": top1} for row in of_space for top1 in row["seeds"]]
        kind = "Q" if isinstance(means[0]["place"], float) else "N"
        x = alt.X(f"place:{kind}", title=space, sort=None, axis=alt.Axis(labelAngle=0))
        y = alt.Y("top1:Q", title="test top-1", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
        base = alt.Chart(alt.Data(values=means)).encode(x=x, y=y)
        layers = [
            base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title="test top-1"), y2="high:Q"),
            alt.Chart(alt.Data(values=seeds)).mark_point(size=25, opacity=0.6).encode(x=x, y=y),
            base.mark_point(filled=True, size=60),
        ]
        layers += [base.mark_line()] if kind == "Q" else []
        panels.append(alt.layer(*layers).properties(width=300, height=200))
    return alt.concat(*panels, columns=2)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
