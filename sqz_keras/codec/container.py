"""The frame of a `.sqz` file: fixed header, sections with checksums, and the JSON that describes the arrays."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence

from sqz_keras.codec.cursor import Cursor, inflate
from sqz_keras.codec.errors import (
    ChecksumError,
    HeaderError,
    MagicError,
    PaddingError,
    SectionError,
    ShapeError,
    TooLargeError,
    TruncatedError,
    VersionError,
)

MAGIC = b"\x89SQZ"
VERSION = 1
PROFILES = ("paper", "max")
TAGS = ("JSON", "BASE", "ARRS", "VALS", "CODE")
MAX_BYTES = 256 << 20  # of a file, and of all its arrays as float32
MAX_JSON = 4 << 20
MAX_ARRAYS = 1024
MAX_RANK = 8
_FIXED = 16
SECTION_HEAD = 12


def write(profile: str, sections: Mapping[str, bytes]) -> bytes:
    """The file that holds these sections, by tag and in the order of `TAGS`."""
    parts = []
    for tag, payload in sections.items():
        head = tag.encode() + len(payload).to_bytes(4, "little")
        parts += [head, zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little"), payload]
    size = _FIXED + sum(len(part) for part in parts)
    if size > MAX_BYTES:
        raise ValueError(f"The .sqz file would have {size} bytes; at most {MAX_BYTES} are written.")
    fixed = MAGIC + bytes([VERSION, PROFILES.index(profile), len(sections), 0]) + size.to_bytes(4, "little")
    return b"".join([fixed, zlib.crc32(fixed).to_bytes(4, "little"), *parts])


def read(data: bytes) -> tuple[str, dict[str, Cursor]]:
    """The profile, and a cursor over each section by its tag; every checksum was right."""
    if len(data) > MAX_BYTES:
        raise TooLargeError(f"{len(data)} bytes; files of at most {MAX_BYTES} bytes are read")
    if data[:4] != MAGIC[: len(data)]:
        raise MagicError("No .sqz file: it does not begin with 89 53 51 5A")
    cursor = Cursor(data)
    fixed = cursor.take(_FIXED - 4)
    if cursor.uint(4) != zlib.crc32(fixed):
        raise ChecksumError("The fixed header is damaged", 0)
    version, profile, count, reserved = fixed[4:8]
    if version != VERSION or profile >= len(PROFILES):
        raise VersionError(f"Version {version}, profile {profile}; this reads version {VERSION}, profiles 0 and 1", 4)
    if reserved:
        raise PaddingError("The reserved byte must be 0", 7)
    size = int.from_bytes(fixed[8:12], "little")
    if size > len(data):
        raise TruncatedError(f"Expected {size} bytes, got {len(data)}", len(data))
    cursor.end = size
    sections = dict(_section(data, cursor) for _ in range(count))
    Cursor(data, cursor.offset).finish()
    _check_tags(list(sections), count)
    return PROFILES[profile], sections


def _section(data: bytes, cursor: Cursor) -> tuple[str, Cursor]:
    start = cursor.offset
    head, checksum = cursor.take(SECTION_HEAD - 4), cursor.uint(4)
    payload = cursor.take(int.from_bytes(head[4:], "little"))
    if checksum != zlib.crc32(payload, zlib.crc32(head)):
        raise ChecksumError(f"Section {head[:4]!r} is damaged", start)
    if head[:4] not in [tag.encode() for tag in TAGS]:
        raise SectionError(f"Unknown section {head[:4]!r}", start)
    return head[:4].decode(), Cursor(data, cursor.offset - len(payload), cursor.offset)


def _check_tags(tags: list[str], count: int) -> None:
    expected = [tag for tag in TAGS if tag != "BASE" or "BASE" in tags]
    if tags != expected or count != len(expected):
        raise SectionError(f"Expected the sections {expected} in this order, each once; found {tags}", _FIXED)


def json_section(header: Mapping, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The deflated JSON: the caller's header, and the names and shapes of the arrays in their order.

    Raises:
        ValueError: names, shapes or the header are not such as `read_json` takes.
    """
    if len(shapes) > MAX_ARRAYS or any(len(shape) > MAX_RANK for shape in shapes.values()):
        raise ValueError(f"At most {MAX_ARRAYS} arrays of at most {MAX_RANK} dimensions are written.")
    if any(not isinstance(name, str) or not 1 <= len(name) <= 255 for name in shapes):
        raise ValueError("The arrays' names must be strings of 1 to 255 characters.")
    total = 4 * sum(_cells(shape) for shape in shapes.values())
    if total > MAX_BYTES:
        raise ValueError(f"The arrays have {total} bytes; at most {MAX_BYTES} are written.")
    form = {"arrays": {name: list(shape) for name, shape in shapes.items()}, "header": dict(header)}
    text = json.dumps(form, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    if len(text) > MAX_JSON:
        raise ValueError(f"The header has {len(text)} bytes as JSON; at most {MAX_JSON} are written.")
    return zlib.compress(text, 9)


def read_json(cursor: Cursor) -> tuple[dict, dict[str, tuple[int, ...]]]:
    """The caller's header, and the shape of each array by name, bounded by `MAX_BYTES` in all."""
    start = cursor.offset
    text = inflate(cursor.rest(), MAX_JSON, start)
    try:
        form = json.loads(text.decode(), parse_constant=_no_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"The header is no JSON as it should be: {error!s:.100}", start) from None
    if not isinstance(form, dict) or list(form) != ["arrays", "header"]:
        raise HeaderError("The JSON must be an object of `arrays` and `header`", start)
    if not isinstance(form["header"], dict) or not isinstance(form["arrays"], dict):
        raise HeaderError("`arrays` and `header` must be JSON objects", start)
    if len(form["arrays"]) > MAX_ARRAYS:
        raise TooLargeError(f"{len(form['arrays'])} arrays; at most {MAX_ARRAYS} are read", start)
    for name, shape in form["arrays"].items():
        if not 1 <= len(name) <= 255 or not isinstance(shape, list) or len(shape) > MAX_RANK:
            raise ShapeError(f"Array {name!r:.80} has no shape of at most {MAX_RANK} dimensions", start)
        if any(type(size) is not int or not 0 <= size <= MAX_BYTES for size in shape):
            raise ShapeError(f"Array {name!r:.80} has a dimension that is no size", start)
    total = 4 * sum(_cells(shape) for shape in form["arrays"].values())
    if total > MAX_BYTES:
        raise TooLargeError(f"The arrays would fill {total} bytes; at most {MAX_BYTES} are read", start)
    return form["header"], {name: tuple(shape) for name, shape in form["arrays"].items()}


def _cells(shape: Sequence[int]) -> int:
    """Elements; an empty array counts as if its empty dimensions were 1, since numpy too bounds that."""
    return math.prod(max(size, 1) for size in shape)


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
