"""Compares nets of two kinds at equal bytes, over seeds: the paper's family, and nets that a search has found.

    python experiments/equal_bytes.py --workdir=DIR --bytes=100000 --family=RUNS,... --searched=RUNS,...

RUNS is a folder with runs of sqz-train and sqz-sweep on a dataset, at any depth; runs that differ only in their seed
are one net, and a net needs two seeds or more. Each run is compressed below `--bytes`: by k-means with 6 bits if that
is enough, else in two ways, and the result that is more accurate on the validation split is taken. One way quantises
without labels, as `sqz-compress --method=quantize` does; the other prunes, clusters to 4 bits and fine-tunes towards
the net's own answers, as `sqz-compress --method=finetune --densities=sensitivity=D --bits=4 --teacher` does, with as
many weights kept as fit.

The net of each kind that is best on the validation split, on average over its seeds, is then evaluated on the test
split: the last line is the difference in points, over the seeds that both have, with its 95% interval (Student's).
DIR/results.json keeps the measurements; the same command resumes from there.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from experiments.tuned import mean_and_half_interval
from sqz_keras import command

KINDS = ("family", "searched")
CALIBRATION_IMAGES = 100
BITS_A_WEIGHT = 8.0  # per kept weight: what pruning to a tenth and clustering to 4 bits takes here
ATTEMPTS = 3


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of what is measured.", required=True)
    flags.DEFINE_integer("bytes", None, "Of each `.sqz` file, at most.", lower_bound=1, required=True)
    flags.DEFINE_list("family", None, "Folders with runs of the paper's nets.", required=True)
    flags.DEFINE_list("searched", None, "Folders with runs of the others.", required=True)
    flags.DEFINE_integer("steps", 500, "Updates of pruning, and of clustering.", lower_bound=1)
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")


def main(argv) -> None:
    del argv
    from sqz_keras.files import write_json
    from trainers.progress import say

    args = flags.FLAGS
    nets = {kind: find_nets(getattr(args, kind)) for kind in KINDS}
    pathlib.Path(args.workdir).mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(args.workdir, "results.json")
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for kind, of_kind in nets.items():
        for runs in of_kind.values():
            for folder in runs.values():
                key = result_key(folder, args)
                if key not in results:
                    say(f"{kind}: {folder}")
                    results[key] = measure(folder, args)
                    write_json(path, results)
    best = {}
    print("| kind | net | parameters | by | bytes | validation | test | interval | by seed |\n" + 9 * "|---" + "|")
    for kind, of_kind in nets.items():
        rows = [
            summarize(name, {seed: results[result_key(folder, args)] for seed, folder in runs.items()})
            for (name, _), runs in of_kind.items()
        ]
        rows.sort(key=lambda row: -row["validation"])
        best[kind] = rows[0]
        print("\n".join(describe(kind, row) for row in rows))
    if not all(row["validation"] for row in best.values()):
        print(f"no difference: of one kind no net fits into {args.bytes:,} bytes with every seed")
        return
    family, searched = (best[kind]["test"] for kind in KINDS)
    seeds = sorted(set(family) & set(searched))
    if not seeds:
        print("no difference: the best nets of the two kinds have no seed in common")
        return
    mean, half = mean_and_half_interval([100 * (searched[seed] - family[seed]) for seed in seeds])
    interval = f" ({mean - half:+.1f} to {mean + half:+.1f})" if half is not None else ""
    print(f"the best searched net less the family's, seeds {', '.join(map(str, seeds))}: {mean:+.1f} points{interval}")


def find_nets(folders: Sequence[str]) -> dict[tuple[str, str], dict[int, pathlib.Path]]:
    """The finished runs in these folders, by net (recipe and flags) and then by seed; a net has two seeds or more.

    Raises:
        ValueError: There are no such nets.
    """
    from sqz_keras.architecture.spec import ModelSpec
    from trainers.search.space import point_flags

    nets = {}
    for folder in folders:
        for done in sorted(pathlib.Path(folder).rglob("evaluation.json")):
            config = json.loads((done.parent / "config.json").read_text("utf-8"))
            seed = config.pop("seed")
            recipe = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
            name = point_flags(ModelSpec.from_json(config["model"]))
            nets.setdefault((name, recipe), {})[seed] = done.parent
    repeated = {key: runs for key, runs in nets.items() if len(runs) > 1}
    if not repeated:
        raise ValueError(f"{', '.join(folders)}: no net there was trained with two seeds or more.")
    return repeated


def result_key(folder: pathlib.Path, args) -> str:
    """The key of a run in results.json."""
    return f"{folder}, {args.bytes} bytes, {args.steps} steps"


def measure(folder: pathlib.Path, args) -> dict | None:
    """The `way`, `parameters`, `bytes`, and top-1 on the `validation` and `test` split; None if nothing fits."""
    from sqz_keras.compression.kmeans import kmeans
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.batches import readable_batches
    from trainers.data.source import open_dataset
    from trainers.evaluation.agreement import compare_models
    from trainers.search.point import COMPRESSED_BITS

    config = json.loads((folder / "config.json").read_text("utf-8"))
    source = open_dataset(config["dataset"], args.data_dir)
    spec, arrays = resolve_model(folder)
    ways = {"k-means": kmeans(arrays, COMPRESSED_BITS)}
    if len(sqz.encode(spec, ways["k-means"])) > args.bytes:
        images, _ = next(readable_batches(source, config["train_split"], spec, batch_size=CALIBRATION_IMAGES))
        ways = {
            "label-free": quantized(spec, arrays, images, args.bytes),
            "fine-tuned": fine_tuned(folder, spec, config["dataset"], args),
        }
        ways = {way: result for way, result in ways.items() if result is not None}
    if not ways:
        return None
    rows = [
        {"way": way, "parameters": spec.count_params(), "bytes": len(sqz.encode(spec, result))}
        for way, result in ways.items()
    ]
    for split in ("validation", "test"):
        batches = readable_batches(source, config[f"{split}_split"], spec, batch_size=32)
        for row, fields in zip(rows, compare_models(spec, list(ways.values()), batches), strict=True):
            row[split] = fields["top1_accuracy"]
    return max(rows, key=lambda row: row["validation"])


def quantized(spec, arrays, images, most: int):
    """The weights quantised without labels, or None if nothing useful fits."""
    from sqz_keras.compression.quantize import quantize
    from sqz_keras.compression.size_search import TooFewBytesError
    from sqz_keras.weights import sqz

    try:
        return quantize(spec, arrays, images, target_bytes=most - sqz.header_bytes(spec, arrays, {}))
    except TooFewBytesError:
        return None


def fine_tuned(folder: pathlib.Path, spec, dataset: str, args):
    """The weights after pruning and clustering, or None if their file is still too large."""
    from sqz_keras.compression.densities import SCANNED
    from sqz_keras.weights.resolve import resolve_model
    from trainers.compression.config import FinetuneConfig
    from trainers.compression.run import compress

    output = pathlib.Path(args.workdir, f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.sqz")
    least = min(SCANNED)
    density = max(8 * args.bytes / (BITS_A_WEIGHT * spec.count_params()), least)
    for _ in range(ATTEMPTS):
        config = FinetuneConfig(
            model=str(folder),
            output=str(output),
            bits="4",
            densities=f"sensitivity={density:.4f}",
            teacher=True,
            dataset=dataset,
            data_dir=args.data_dir,
            steps=args.steps,
        )
        reached = compress(config)["bytes"]
        if reached <= args.bytes:
            return resolve_model(output)[1]
        if density == least:
            break
        density = max(0.98 * density * args.bytes / reached, least)
    return None


def summarize(name: str, by_seed: Mapping[int, dict | None]) -> dict:
    """A net's row: means over its seeds; `validation` is 0 if one of them does not fit."""
    if None in by_seed.values():
        return {"net": name, "validation": 0.0}
    mean, half = mean_and_half_interval([result["test"] for result in by_seed.values()])
    count = len(by_seed)
    return {
        "net": name,
        "parameters": by_seed[min(by_seed)]["parameters"],
        "way": ", ".join(sorted({result["way"] for result in by_seed.values()})),
        "bytes": round(sum(result["bytes"] for result in by_seed.values()) / count),
        "validation": sum(result["validation"] for result in by_seed.values()) / count,
        "mean": mean,
        "half": half or 0.0,
        "test": {seed: result["test"] for seed, result in sorted(by_seed.items())},
    }


def describe(kind: str, row: Mapping) -> str:
    """The row in Markdown."""
    if not row["validation"]:
        return f"| {kind} | {row['net']} | | | does not fit | | | | |"
    seeds = ", ".join(f"{100 * top1:.1f}" for top1 in row["test"].values())
    return (
        f"| {kind} | {row['net']} | {row['parameters']:,} | {row['way']} | {row['bytes']:,} | "
        f"{row['validation']:.1%} | {row['mean']:.1%} | +- {100 * row['half']:.1f} | {seeds} |"
    )


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
