"""Deep Compression's `compressed_SqueezeNet.net`: v1.0, pruned, each layer's weights shared in a codebook of 256.

Layout, little-endian, over the 26 convolutions in net order:
- 26 x uint32: stored entries of each layer;
- then for each layer: codebook, 256 x float32, entry 0 is 0; bias, float32 x filters; a uint8 code for each entry; a
  4-bit gap for each entry, two a byte, low nibble first, the last nibble of an odd count 0.
An entry's position in the kernel, flattened as (out, in, height, width), is cumsum(gap + 1) - 1. A filler, for a gap
that 4 bits cannot hold, has code 0 and gap 15.
"""

from __future__ import annotations

import os

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.arrays import WeightsFileError, float32_arrays, hwio, read_bytes

_CODEBOOK = 256


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """Reads a `.net` file to the last byte.

    Returns:
        float32 arrays by name, kernels HWIO, of v1.0.

    Raises:
        WeightsFileError: the file departs from the layout above in any way.
    """
    del trunk_only  # the head is always conv10
    data = read_bytes(path)
    shapes = ModelSpec(version="1.0").weight_shapes()
    kernels = {name.removesuffix("/kernel"): shape for name, shape in shapes.items() if name.endswith("/kernel")}
    header = 4 * len(kernels)
    if len(data) < header:
        raise WeightsFileError(f"{path}: expected a header of {header} bytes, got {len(data)} bytes in all.")
    counts = [int(count) for count in np.frombuffer(data, "<u4", len(kernels))]
    for (layer, shape), count in zip(kernels.items(), counts, strict=True):
        if not 1 <= count <= np.prod(shape):
            raise WeightsFileError(f"{path}: {layer} has {np.prod(shape)} weights, but {count} are said to be stored.")
    size = header + sum(
        4 * (_CODEBOOK + shape[3]) + count + (count + 1) // 2
        for shape, count in zip(kernels.values(), counts, strict=True)
    )
    if len(data) != size:
        raise WeightsFileError(f"{path}: expected {size} bytes by its header, got {len(data)}. Fetch it again.")
    arrays, offset = {}, header
    for (layer, shape), count in zip(kernels.items(), counts, strict=True):
        codebook = np.frombuffer(data, "<f4", _CODEBOOK, offset)
        bias = np.frombuffer(data, "<f4", shape[3], offset + codebook.nbytes)
        codes = np.frombuffer(data, np.uint8, count, offset + codebook.nbytes + bias.nbytes)
        offset += codebook.nbytes + bias.nbytes + codes.nbytes
        gaps = np.frombuffer(data, np.uint8, (count + 1) // 2, offset)
        offset += gaps.nbytes
        arrays[f"{layer}/kernel"] = _kernel(f"{path}: {layer}", shape, codebook, codes, gaps)
        arrays[f"{layer}/bias"] = bias
    return float32_arrays(path, arrays)


def _kernel(
    where: str, shape: tuple[int, ...], codebook: np.ndarray, codes: np.ndarray, packed_gaps: np.ndarray
) -> np.ndarray:
    """One layer's kernel, HWIO."""
    gaps = np.stack([packed_gaps & 15, packed_gaps >> 4], axis=1).ravel()
    if gaps[len(codes) :].any():
        raise WeightsFileError(f"{where}: the padding after the last gap must be 0; the file is damaged.")
    gaps = gaps[: len(codes)]
    if codebook[0] != 0 or not np.isfinite(codebook).all():
        raise WeightsFileError(f"{where}: the codebook must be finite with 0 as its first entry; the file is damaged.")
    if (gaps[codes == 0] != 15).any():
        raise WeightsFileError(f"{where}: a filler (code 0) must have gap 15; the file is damaged.")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    height, width, channels, filters = shape
    flat = np.zeros(height * width * channels * filters, np.float32)
    if positions[-1] >= flat.size:
        raise WeightsFileError(
            f"{where}: the gaps lead to position {positions[-1]} of {flat.size}; the file is damaged."
        )
    flat[positions] = codebook[codes]
    return hwio(flat.reshape(filters, channels, height, width))
