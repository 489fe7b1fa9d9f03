"""Shows what a network is made of and what it costs: the paper's Table 1 for any network of the family.

sqz-summary [--version=1.0|1.1] [--bypass=simple|complex] [--metaparameters=squeeze_ratio=0.25,pool_after=1:3:5]
sqz-summary --model=RECORD_OR_FILE

A table of output sizes, filters, parameters before and after pruning to --densities, multiply-accumulates and receptive
fields; then the bytes of the weights as float32, as int8 and as codes into codebooks, with the activations that must be
held at once: --on_chip_bytes=N says whether they fit a chip's own memory (the third motive in the paper's section 1).
--drawing=FILE.svg or FILE.png draws it.
"""

from __future__ import annotations

import dataclasses

from absl import flags

from sqz_keras import command
from sqz_keras.architecture import summary
from sqz_keras.architecture.metaparameters import parse_metaparameters
from sqz_keras.architecture.spec import MOST_PIXELS, ModelSpec
from sqz_keras.compression.densities import layer_names, parse_densities
from sqz_keras.files import check_writable, write_file

_HEADS = ("layer", "output", "window", "s1x1/e1x1/e3x3", "kept %", "parameters", "kept", "MACs", "field")


def define_flags() -> None:
    command.define_model_flags("")
    flags.DEFINE_string("metaparameters", "", "Metaparameters that differ from the version's: NAME=VALUE,NAME=VALUE.")
    flags.DEFINE_integer("classes", 1000, "Number of classes, without --model.", lower_bound=1)
    flags.DEFINE_integer(
        "input_size", None, "Height and width of the input, in pixels.", lower_bound=1, upper_bound=MOST_PIXELS
    )
    flags.DEFINE_string(
        "densities",
        "table1",
        "Densities after pruning: table1, 0.4, LAYER=0.3, or a list with commas; 1 prunes nothing.",
    )
    flags.DEFINE_integer("bits", 6, "Bits of a code into a layer's codebook.", lower_bound=1, upper_bound=16)
    flags.DEFINE_integer("on_chip_bytes", None, "Memory of a chip: prints whether the network fits.", lower_bound=1)
    flags.DEFINE_string("drawing", None, "FILE.svg or FILE.png to write: a drawing like the paper's Figure 2.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    spec = _spec(args)
    if args.drawing:
        from sqz_keras.architecture.drawing import drawing

        check_writable(args.drawing)
        image = drawing(spec, args.drawing)
    densities = parse_densities(args.densities, layer_names(spec.weight_shapes()))
    rows = summary.table(spec, densities)
    print("\n".join(_table(rows)))
    print("\n".join(_memory(spec, args.bits, args.on_chip_bytes)))
    if args.drawing:
        write_file(args.drawing, image)
        print(f"drawing: {args.drawing}")


def _spec(args) -> ModelSpec:
    metaparameters = parse_metaparameters(args.metaparameters)
    if args.model:
        for name in ("metaparameters", "classes"):
            if args[name].present:
                raise ValueError(f"--model has {name} of its own; leave out --{name}.")
        from sqz_keras.weights.resolve import resolve_model

        spec, _ = resolve_model(args.model, version=args.version, bypass=args.bypass)
    else:
        spec = ModelSpec(classes=args.classes).with_net(args.version, args.bypass, metaparameters)
    if args.input_size:
        preprocessing = dataclasses.replace(
            spec.preprocessing, resize_to=max(args.input_size, spec.preprocessing.resize_to)
        )
        spec = dataclasses.replace(spec, input_size=args.input_size, preprocessing=preprocessing)
    return spec


def _table(rows: list[summary.Row]) -> list[str]:
    cells = [
        (
            row.name,
            f"{row.size}x{row.size}x{row.channels}",
            row.window,
            row.filters,
            row.densities,
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.kept:,}" if row.kept else "",
            f"{row.multiply_accumulates / 1e6:.1f}M" if row.multiply_accumulates else "",
            str(row.receptive_field),
        )
        for row in rows
    ]
    parameters, kept, products = (
        sum(getattr(row, name) for row in rows) for name in ("parameters", "kept", "multiply_accumulates")
    )
    cells.append(("total", "", "", "", "", f"{parameters:,}", f"{kept:,}", f"{products / 1e6:.1f}M", ""))
    widths = [max(map(len, column)) for column in zip(_HEADS, *cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 5 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (_HEADS, *cells)
    ]


def _memory(spec: ModelSpec, bits: int, on_chip_bytes: int | None) -> list[str]:
    """Lines with the bytes of the weights in three forms and of the activations, and whether both fit the chip."""
    parameters, peak = spec.count_params(), summary.peak_activations(spec)
    lines = [f"weights, and the activations that must be held at once ({peak:,} values):"]
    for form, weights, itemsize in (
        ("float32", 4 * parameters, 4),
        ("int8", parameters, 1),
        (f"codebooks of {bits} bits", summary.codebook_bytes(spec, bits), 4),
    ):
        total = weights + peak * itemsize
        line = f"  {form:<20} {weights:>12,} + {peak * itemsize:>12,} = {total:>12,} bytes"
        line += f"; weights {weights / 2**20:.2f} MiB, {summary.ALEXNET_BYTES / weights:.0f} times smaller than AlexNet"
        if on_chip_bytes:
            line += f"; {'fits' if total <= on_chip_bytes else 'does not fit'} {on_chip_bytes:,}"
        lines.append(line)
    return lines


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
