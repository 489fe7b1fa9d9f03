"""Grey TIFF files of any depth, written without Pillow."""

import struct

import numpy as np


def write_tiff(samples: np.ndarray, bits: int, *, colours: int = 1, numbers: int = 1, orientation: int = 1) -> bytes:
    """A file of samples (16, 16); `colours` is 0 for white at 0, `numbers` 2 for signed."""
    data = np.packbits((samples.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1).tobytes()
    if bits in (16, 32):
        data = samples.astype(f"<u{bits // 8}").tobytes()
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: colours, 273: 8, 274: orientation}
    tags |= {277: 1, 278: 16, 279: len(data), 339: numbers}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
