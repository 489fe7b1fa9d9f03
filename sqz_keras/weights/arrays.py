"""What every reader shares: names, layouts, limits and checks of the arrays that a weights file holds."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sqz_keras.architecture.layers import FIRE_PARTS
from sqz_keras.files import LFS_POINTER

MAX_BYTES = 256 << 20  # in a file, and in all its arrays as float32; the paper's largest net needs 24 MiB

_LAYER = re.compile(rf"conv1|conv10|fire([1-9][0-9]{{0,3}})_({'|'.join(FIRE_PARTS)})")
_WEIGHT = re.compile(f"({_LAYER.pattern})/(kernel|bias)")
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
_ALIASES = {"conv1x1_1": "squeeze1x1", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3"}


class WeightsFileError(ValueError):
    """A weights file that is damaged, of another kind than it claims, or for another net."""


@contextlib.contextmanager
def refuse(path: str | os.PathLike, *errors: type[Exception]) -> Iterator[None]:
    """Turns the errors that a parser raises on a damaged file into a `WeightsFileError` that names the file."""
    try:
        yield
    except WeightsFileError:
        raise
    except errors as error:
        raise WeightsFileError(
            f"{path}: the file is damaged, or not of the kind that its name says "
            f"({type(error).__name__}: {error!s:.200}). Fetch or save it again."
        ) from error


def file_size(path: str | os.PathLike) -> int:
    """Size of a regular file in bytes.

    Raises:
        WeightsFileError: It is missing, not a regular file, larger than `MAX_BYTES`, a pointer of Git LFS, or a web
            page.
    """
    if not os.path.isfile(path):
        raise WeightsFileError(f"{path}: expected a file, got {'a folder' if os.path.isdir(path) else 'nothing'}.")
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise WeightsFileError(f"{path}: {size} bytes; weights files of at most {MAX_BYTES} bytes are read.")
    with open(path, "rb") as file:
        start = file.read(256)
    if start.startswith(LFS_POINTER):
        raise WeightsFileError(f"{path}: a pointer of Git LFS, not the file itself. Fetch it: git lfs pull")
    if _WEB_PAGE.match(start):
        raise WeightsFileError(
            f"{path}: a web page, or a server's error, not the file itself. Download it again by the link to the file, "
            "such as Raw or Download on the page."
        )
    return size


def read_bytes(path: str | os.PathLike) -> bytes:
    """The file's content, at most `MAX_BYTES`."""
    size = file_size(path)
    with open(path, "rb") as file:
        return file.read(size)


def check_declared(path: str | os.PathLike, shapes: Mapping[str, Sequence[int]]) -> None:
    """Bounds the arrays that a file declares, before any of them is allocated.

    Raises:
        WeightsFileError: A dimension is below 1, or the arrays together would fill more than `MAX_BYTES` as float32.
    """
    for name, shape in shapes.items():
        if len(shape) > 8 or any(size < 1 for size in shape):
            raise WeightsFileError(f"{path}: {name} has the impossible shape {list(shape)[:9]}.")
    total = 4 * sum(math.prod(shape) for shape in shapes.values())
    if total > MAX_BYTES:
        raise WeightsFileError(f"{path}: its arrays would fill {total} bytes; at most {MAX_BYTES} are read.")


def layer_name(name: str) -> str | None:
    """Our name of a layer that another project calls `name`; None if it is not a convolution of a SqueezeNet.

    The releases use `fire2/squeeze1x1`; the dense-sparse-dense release `fire2/conv1x1_1`, `conv1x1_2` and `conv3x3_2`
    for squeeze, expand1x1 and expand3x3, and `conv_final` for conv10.
    """
    module, _, part = name.partition("/")
    ours = f"{module}_{_ALIASES.get(part, part)}" if part else {"conv_final": "conv10"}.get(name, name)
    return ours if _LAYER.fullmatch(ours) else None


def fire_number(layer: str) -> int | None:
    """The number of the fire module, from our name of one of its layers; None for any other layer."""
    return int(layer[4:].partition("_")[0]) if layer.startswith("fire") else None


def plain_net_layers(path: str | os.PathLike, count: int) -> list[str]:
    """Names of the `count` convolutions of a net without bypass convolutions, in net order.

    Raises:
        WeightsFileError: No such net has that many convolutions.
    """
    if count < 5 or count % 3 != 2:
        raise WeightsFileError(
            f"{path}: expected conv1, three convolutions a fire module and conv10 (26 in v1.0 and v1.1), got {count}."
        )
    fires = range(2, 2 + (count - 2) // 3)
    return ["conv1", *(f"fire{fire}_{part}" for fire in fires for part in FIRE_PARTS[:3]), "conv10"]


def decode_floats(data: bytes, dtype: str) -> np.ndarray:
    """Decodes little-endian values of a file; NumPy has no bfloat16, which is the upper half of a float32.

    Args:
        data: the values, a whole number of them.
        dtype: a NumPy name, such as "float16", or "bfloat16".

    Returns:
        A flat array; float32 with the same values for bfloat16, otherwise of that dtype.
    """
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))


def hwio(array: np.ndarray) -> np.ndarray:
    """A kernel (out, in, height, width) as Keras's (height, width, in, out); a bias as it is."""
    return np.ascontiguousarray(np.transpose(array, (2, 3, 1, 0))) if array.ndim == 4 else array


def hwio_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of what `hwio` makes of an array of this shape; (in, out) for a dense layer's (out, in)."""
    return (*shape[2:], *shape[1::-1]) if len(shape) in (2, 4) else tuple(shape)


def check_kernel_rank(path: str | os.PathLike, name: str, shape: Sequence[int]) -> None:
    """Refuses whatever is neither a 4-dimensional `.../kernel` nor a 1-dimensional `.../bias`."""
    rank = 4 if name.endswith("/kernel") else 1
    if len(shape) != rank:
        raise WeightsFileError(f"{path}: {name} must have {rank} dimensions, got shape {list(shape)}.")


def float32_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as float32, in net order, after the checks that do not depend on the net.

    Args:
        path: Path that errors name.
        arrays: Arrays of a floating dtype by our names ("conv1/kernel", ...); kernels are HWIO.

    Raises:
        WeightsFileError: A name, dtype or number of dimensions does not fit, a kernel or bias lacks its partner, or a
            value is NaN, infinite or beyond float32.
    """
    if not arrays:
        raise WeightsFileError(
            f"{path}: holds no weights of a SqueezeNet; the file is truncated or for another network."
        )
    unknown = [name for name in arrays if _WEIGHT.fullmatch(name) is None]
    if unknown:
        raise WeightsFileError(f"{path}: {unknown[0]!r:.80} is not the name of a weight of a SqueezeNet.")
    result = {}
    for name in sorted(arrays, key=_net_order):
        array = np.asarray(arrays[name])
        check_kernel_rank(path, name, array.shape)
        if array.dtype.name not in ("float16", "float32", "float64", "bfloat16"):
            raise WeightsFileError(f"{path}: {name} must be floating point, got {array.dtype}.")
        with np.errstate(over="ignore"):
            result[name] = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(result[name]).all():
            raise WeightsFileError(f"{path}: {name} holds NaN, infinite or too large values; the file is damaged.")
    for layer in dict.fromkeys(name.rsplit("/", 1)[0] for name in result):
        kernel, bias = result.get(f"{layer}/kernel"), result.get(f"{layer}/bias")
        if kernel is None or bias is None:
            raise WeightsFileError(f"{path}: {layer} must have a kernel and a bias; one of them is missing.")
        if kernel.shape[3] != bias.shape[0]:
            raise WeightsFileError(f"{path}: {layer} has {kernel.shape[3]} filters but {bias.shape[0]} biases.")
    return result


def check_shapes(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Compares what a file held with what the net needs.

    Args:
        path: Path that errors name.
        arrays: Arrays that a reader returned.
        expected: Expected shapes by name, as in `ModelSpec.weight_shapes()`.

    Raises:
        WeightsFileError: Weights are missing, unexpected or of another shape.
    """
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    wrong = [
        f"{name}: {tuple(expected[name])} expected, {arrays[name].shape} in the file"
        for name in expected
        if name in arrays and arrays[name].shape != tuple(expected[name])
    ]
    differences = [("missing", missing), ("not part of the network", unexpected), ("of another shape", wrong)]
    if any(names for _, names in differences):
        summary = "; ".join(f"{len(names)} {kind} ({', '.join(names[:4])})" for kind, names in differences if names)
        raise WeightsFileError(
            f"{path}: the weights do not fit the network: {summary}. Build the network that the file was made for "
            "(version, bypass, include_top, classes, input channels), or give that network's file."
        )


def trunk_of(by_name: Mapping[str, object]) -> dict:
    """The arrays, or their shapes, without conv10's."""
    return {name: value for name, value in by_name.items() if not name.startswith("conv10/")}


def _net_order(name: str) -> tuple[int, int, bool]:
    """The sort key of a weight's name."""
    layer, fire, part, kind = _WEIGHT.fullmatch(name).groups()
    if fire is None:
        return 1 if layer == "conv1" else 1 << 30, 0, kind == "bias"
    return int(fire), FIRE_PARTS.index(part), kind == "bias"
