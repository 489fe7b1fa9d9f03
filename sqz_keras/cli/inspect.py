"""Shows what a .sqz file holds and where its bytes go.

sqz-inspect FILE.sqz [--base=OLD.sqz]

Prints the sections of the file at once, then a table of its arrays (shape, density, distinct values, bits, bytes by
part, and the bytes of values and positions at their zero-order entropy), and the file's header: the model and its
provenance.
"""

from __future__ import annotations

import json
import math

from absl import flags

from sqz_keras import codec, command
from sqz_keras.weights.arrays import WeightsFileError, read_bytes

_LONGEST_LIST = 10


def define_flags() -> None:
    flags.DEFINE_string("base", None, "If FILE is a delta: the .sqz file that it is a delta against.")


def main(argv) -> None:
    path, base = argv[1], flags.FLAGS.base
    data, base_data = read_bytes(path), None if base is None else read_bytes(base)
    try:
        print("\n".join(_sections(codec.outline(data))), flush=True)  # the arrays take longer
        layout = codec.describe(data, base_data)
    except codec.SqzError as error:
        raise WeightsFileError(f"{path}: {error}.") from error
    print("\n".join(_arrays(layout)))
    for name, value in layout.header.items():
        print(f"{_escaped(name)}: {json.dumps(_shortened(value))}")


def _shortened(value: object) -> object:
    """Cuts long lists in a JSON value, such as a thousand labels."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list) and len(value) > _LONGEST_LIST:
        return [*value[:_LONGEST_LIST], f"... {len(value)} in all"]
    return value


def _escaped(name: str) -> str:
    """Escapes control characters, which a terminal would execute, in a name from the file."""
    return json.dumps(name)[1:-1]


def _sections(outline: codec.Outline) -> list[str]:
    """Returns the lines that describe the file as a whole."""
    lines = [f"profile {outline.profile}, {outline.bytes:,} bytes", "sections, in bytes:"]
    return lines + [f"  {section.name:<5} {section.bytes:>9,} at {section.offset:,}" for section in outline.sections]


def _arrays(layout: codec.Layout) -> list[str]:
    """Returns the lines that describe the arrays."""
    raw = sum(4 * math.prod(array.shape) for array in layout.arrays)
    lines = [f"arrays, {raw / layout.bytes:.1f} times larger as float32:"]
    parts = list(layout.arrays[0].bytes) if layout.arrays else []
    heads = ["shape", "density", "values", "bits", *parts, "bytes", "entropy"]
    rows = [[_escaped(array.name), *_cells(array)] for array in layout.arrays]
    widths = [max(map(len, column)) for column in zip(["array", *heads], *rows, strict=True)]
    for row in [["array", *heads], *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines


def _cells(array: codec.ArrayLayout) -> list[str]:
    """Returns the cells of an array's row, without its name."""
    spent = [*array.bytes.values(), sum(array.bytes.values())]
    entropy = f"{sum(array.entropy.values()):,.0f}" if array.entropy else "-"
    shape = "x".join(map(str, array.shape))
    return [shape, f"{array.density:.1%}", str(array.distinct), str(array.bits), *(f"{n:,.0f}" for n in spent), entropy]


def run() -> None:
    command.run(main, define_flags, __doc__, positional="FILE")


if __name__ == "__main__":
    run()
