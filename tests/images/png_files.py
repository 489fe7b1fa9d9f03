"""Every kind of PNG file, written without Pillow, with the colours that a person sees."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {GREY: (1, 2, 4, 8, 16), COLOUR: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), COLOUR_ALPHA: (8, 16)}
_CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
_PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7


def all_kinds(height: int = 13, width: int = 21) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """(name, file, RGB on white as float64 (H, W, 3)) for each colour type, depth, interlacing and tRNS."""
    generator = np.random.default_rng(0)
    for kind, depths in _DEPTHS.items():
        for depth in depths:
            for transparent in (False, True)[: 1 if kind in (GREY_ALPHA, COLOUR_ALPHA) else 2]:
                samples = generator.integers(0, 2**depth, (height, width, _CHANNELS[kind]))
                palette = generator.integers(0, 256, (2**depth, 3))
                alphas = generator.integers(0, 256, 2**depth)
                seen = _seen(samples, kind, depth, palette, alphas, transparent)
                for interlaced in (False, True):
                    chunks = {b"PLTE": palette.astype(np.uint8).tobytes()} if kind == PALETTE else {}
                    if transparent:
                        key = samples[3, 4].astype(">u2").tobytes()
                        chunks[b"tRNS"] = alphas.astype(np.uint8).tobytes() if kind == PALETTE else key
                    name = f"kind {kind}, {depth} bits{', tRNS' * transparent}{', interlaced' * interlaced}"
                    yield name, write_png(samples, kind, depth, chunks, interlaced), seen


def write_png(
    samples: np.ndarray, kind: int, depth: int, chunks: dict[bytes, bytes], interlaced: bool = False
) -> bytes:
    """A PNG file of samples (H, W, channels), with `chunks` before the pixels."""
    height, width = samples.shape[:2]
    passes = [samples[top::rows, left::columns] for top, left, rows, columns in _PASSES] if interlaced else [samples]
    lines = [b"\0" + _packed(line.ravel(), depth) for part in passes if part.size for line in part]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = {b"IHDR": header, **chunks, b"IDAT": zlib.compress(b"".join(lines)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks.items())


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file, with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _packed(line: np.ndarray, depth: int) -> bytes:
    if depth >= 8:
        return line.astype(">u2" if depth == 16 else "u1").tobytes()
    return np.packbits((line[:, None] >> np.arange(depth - 1, -1, -1)) & 1).tobytes()


def _seen(samples, kind, depth, palette, alphas, transparent) -> np.ndarray:
    levels = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    alpha = np.full((*samples.shape[:2], 1), 255)
    if kind == PALETTE:
        rgb = palette[samples[..., 0]]
        alpha = alphas[samples] if transparent else alpha
    elif kind in (GREY_ALPHA, COLOUR_ALPHA):
        rgb, alpha = levels[..., :-1], levels[..., -1:]
    else:
        rgb = levels
        if transparent:
            alpha = np.where((samples == samples[3, 4]).all(-1, keepdims=True), 0, 255)
    return np.broadcast_to((rgb * alpha + 255 * (255 - alpha)) / 255, (*samples.shape[:2], 3))
