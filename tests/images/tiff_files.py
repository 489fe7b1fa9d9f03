"""Grey TIFF files of any depth, and colours in planes, written without Pillow."""

import struct

import numpy as np


def write_tiff(samples: np.ndarray, bits: int, *, colours: int = 1, numbers: int = 1, orientation: int = 1) -> bytes:
    """A file of samples (16, 16); `colours` is 0 if 0 is white, `numbers` is 2 if the samples are signed."""
    data = np.packbits((samples.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1).tobytes()
    if bits in (16, 32):
        data = samples.astype(f"<u{bits // 8}").tobytes()
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: colours, 273: 8, 274: orientation}
    tags |= {277: 1, 278: 16, 279: len(data), 339: numbers}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def planar_tiff(samples: np.ndarray, bits: int, colours: int = 2) -> bytes:
    """A file of samples (3, 16, 16) in separate planes of 8 or 16 bits; `colours` is 2 for RGB, 8 for LAB."""
    planes = [plane.astype(f"<u{bits // 8}").tobytes() for plane in samples]
    places = 8, 8 + len(planes[0]), 8 + 2 * len(planes[0])
    arrays = struct.pack("<3H3I3I", *(3 * [bits]), *places, *(3 * [len(planes[0])]))  # after the pixels
    at = 8 + 3 * len(planes[0])
    tags = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 3, at), (259, 4, 1, 1), (262, 4, 1, colours)]
    tags += [(273, 4, 3, at + 6), (277, 4, 1, 3), (278, 4, 1, 16), (279, 4, 3, at + 18), (284, 4, 1, 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", at + len(arrays)) + b"".join(planes) + arrays + directory
