"""The chunks of PNG files: which ones determine what is seen, and whether all pixels are there."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Set

START = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
# Positions of the bits per sample, the kind of colours, and whether the file is interlaced.
_DEPTH, _KIND, _INTERLACED = 24, 25, 28
_GREY, _RGB, _PALETTE = 0, 2, 3
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}  # per pixel, by the kind of colours
# The parts of an interlaced file: the first row and column, and the steps to the next ones.
_PARTS = (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)
_INFLATED_AT_ONCE = 1 << 24


def essential(data: bytes) -> bytes:
    """The chunks of a file that determine what libpng, and so TensorFlow and browsers, shows; and its EXIF.

    Pillow refuses a large ICC profile or text and a wrong checksum of any chunk, applies transparency that libpng
    ignores, and reads files that libpng refuses, such as those that lack their end.

    Raises:
        ValueError: libpng refuses the file.
    """
    kind = data[_KIND] if len(data) > _KIND else None
    kept, names, previous, colours = [START], set(), b"", 0
    for name, whole in _chunks(data):
        size = int.from_bytes(whole[:4], "big")
        if len(whole) < 12 + size:
            raise ValueError("the file ends early")
        is_right = int.from_bytes(whole[-4:], "big") == zlib.crc32(whole[4:-4])
        if not name[0] & 0x20:  # a capital letter: a reader that does not know the chunk cannot read the file
            _check_critical(name, is_right, names, previous, kind)
        if name == b"PLTE":
            colours = size // 3
        if name == b"eXIf" and not is_right:  # counts all the same, since a graph cannot compute its checksum
            whole, is_right = whole[:-4].tobytes() + zlib.crc32(whole[4:-4]).to_bytes(4, "big"), True
        if is_right and _is_seen(name, size, names, kind, colours):
            kept.append(whole)
        names.add(name)
        previous = name
    if kept[-1] != _END:
        raise ValueError("the file ends early")
    return b"".join(kept)


def _check_critical(name: bytes, is_right: bool, names: Set[bytes], previous: bytes, kind: int | None) -> None:
    if name not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
        raise ValueError(
            f"a PNG with the chunk {name.decode('latin-1')!r}, which no PNG has; save it as an ordinary PNG"
        )
    if not is_right:
        raise ValueError(f"a damaged PNG: its chunk {name.decode()} has a wrong checksum")
    is_again = name in names and (name != b"IDAT" or previous != b"IDAT")
    if is_again or (name == b"IDAT" and kind == _PALETTE and b"PLTE" not in names):
        raise ValueError(f"a damaged PNG: its chunk {name.decode()} is in a wrong place")


def _is_seen(name: bytes, size: int, names: Set[bytes], kind: int | None, colours: int) -> bool:
    if name == b"tRNS":
        sizes = {_GREY: (2,), _RGB: (6,), _PALETTE: range(1, colours + 1)}.get(kind, ())
        return size in sizes and not names & {b"tRNS", b"IDAT"}
    return name in (b"IHDR", b"IDAT", b"eXIf", b"IEND") or (name == b"PLTE" and kind == _PALETTE)


def lacks_rows(data: bytes, width: int, height: int) -> bool:
    """Whether a file that Pillow has read holds fewer pixels than it declares."""
    depth, kind, is_interlaced = data[_DEPTH], data[_KIND], data[_INTERLACED]
    needed = 0
    for top, left, down, right in _PARTS if is_interlaced else ((0, 0, 1, 1),):
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        needed += rows * (1 + (columns * depth * _SAMPLES[kind] + 7) // 8) if columns else 0
    pixels, inflater = 0, zlib.decompressobj()
    for name, whole in _chunks(data):
        left = whole[8:-4] if name == b"IDAT" else b""
        while left and pixels < needed:
            pixels += len(inflater.decompress(left, _INFLATED_AT_ONCE))
            left = inflater.unconsumed_tail
    return pixels < needed and pixels + len(inflater.flush()) < needed


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The name and all bytes of each chunk, up to the end chunk; the last one may be cut off."""
    view, at, name = memoryview(data), len(START), b""
    while name != b"IEND" and at + 8 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        yield name, view[at:end]
        at = end
