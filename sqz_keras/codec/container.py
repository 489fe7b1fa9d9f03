"""The container of a `.sqz` file: fixed header, sections with checksums, and the JSON that names the arrays."""

from __future__ import annotations

import dataclasses
import decimal
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
from sqz_keras.files import distinct_keys

MAGIC = b"\x89SQZ"
VERSIONS = (1, 2)
PROFILES = ("paper", "max")
TAGS = ("JSON", "BASE", "ARRS", "VALS", "CODE")
MAX_BYTES = 256 << 20  # limit for a file, and for all its arrays as float32
MAX_JSON = 4 << 20
MAX_ARRAYS = 1024
MAX_RANK = 8
MAX_LEVELS = 64  # of nested lists and objects in the JSON
MAX_DIGITS = 4300  # of an integer in the JSON
_MAX_INTEGER = 10**MAX_DIGITS - 1
_FIXED_HEADER_SIZE = 16
SECTION_HEADER_SIZE = 12


@dataclasses.dataclass(frozen=True)
class Container:
    """A file whose fixed header and checksums are valid.

    Args:
        version: One of `VERSIONS`.
        profile: One of `PROFILES`.
        sections: A cursor over the payload of each section, by tag.
    """

    version: int
    profile: str
    sections: dict[str, Cursor]


def write(version: int, profile: str, sections: Mapping[str, bytes]) -> bytes:
    """Builds a file.

    Args:
        version: One of `VERSIONS`.
        profile: One of `PROFILES`.
        sections: Payloads by tag, in the order of `TAGS`.

    Raises:
        ValueError: The file would be larger than `MAX_BYTES`.
    """
    parts = []
    for tag, payload in sections.items():
        head = tag.encode() + len(payload).to_bytes(4, "little")
        parts += [head, zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little"), payload]
    size = _FIXED_HEADER_SIZE + sum(len(part) for part in parts)
    if size > MAX_BYTES:
        raise ValueError(f"The .sqz file would have {size} bytes; at most {MAX_BYTES} are written.")
    fixed = MAGIC + bytes([version, PROFILES.index(profile), len(sections), 0]) + size.to_bytes(4, "little")
    return b"".join([fixed, zlib.crc32(fixed).to_bytes(4, "little"), *parts])


def read(data: bytes) -> Container:
    """Checks the fixed header, the order of the sections and every checksum.

    Raises:
        SqzError: The container is malformed; see the error classes.
    """
    if len(data) > MAX_BYTES:
        raise TooLargeError(f"The file has {len(data)} bytes; at most {MAX_BYTES} are read")
    if data[:4] != MAGIC[: len(data)]:
        raise MagicError("Not a .sqz file: it does not begin with 89 53 51 5A")
    cursor = Cursor(data)
    fixed = cursor.take(_FIXED_HEADER_SIZE - 4)
    if cursor.uint(4) != zlib.crc32(fixed):
        raise ChecksumError("The fixed header is damaged", 0)
    version, profile, count, reserved = fixed[4:8]
    if version not in VERSIONS or profile >= len(PROFILES):
        raise VersionError(
            f"Expected version 1 or 2 and profile 0 or 1, got version {version} and profile {profile}; a newer "
            "release may read it",
            4,
        )
    if reserved:
        raise PaddingError("The reserved byte must be 0", 7)
    size = int.from_bytes(fixed[8:12], "little")
    if size > len(data):
        raise TruncatedError(f"Expected {size} bytes, got {len(data)}", len(data))
    cursor.end = size
    sections = dict(_section(data, cursor) for _ in range(count))
    Cursor(data, cursor.offset).finish()
    _check_tags(list(sections), count)
    return Container(version, PROFILES[profile], sections)


def _section(data: bytes, cursor: Cursor) -> tuple[str, Cursor]:
    """Reads the next section, and returns its tag and a cursor over its payload."""
    start = cursor.offset
    head, checksum = cursor.take(SECTION_HEADER_SIZE - 4), cursor.uint(4)
    payload = cursor.take(int.from_bytes(head[4:], "little"))
    tag = head[:4].decode("ascii", "backslashreplace")
    if checksum != zlib.crc32(payload, zlib.crc32(head)):
        raise ChecksumError(f"Section {tag} is damaged", start)
    if tag not in TAGS:
        raise SectionError(f"Unknown section {tag!r}", start)
    return tag, Cursor(data, cursor.offset - len(payload), cursor.offset)


def _check_tags(tags: list[str], count: int) -> None:
    """Raises `SectionError` unless each section occurs once, in the order of `TAGS`; only BASE may be missing."""
    expected = [tag for tag in TAGS if tag != "BASE" or "BASE" in tags]
    if tags != expected or count != len(expected):
        raise SectionError(f"Expected the sections {expected} in this order, each once; got {tags}", _FIXED_HEADER_SIZE)


def json_section(header: Mapping, shapes: Mapping[str, tuple[int, ...]], dictionary: bytes = b"") -> bytes:
    """Builds the payload of the section JSON: the caller's header and the shapes of the arrays, deflated.

    Args:
        header: A JSON object.
        shapes: Shape of each array by name; their order is kept.
        dictionary: For a delta, the base's JSON text, which the deflated stream may refer to.

    Raises:
        ValueError: `read_json` would refuse the names, the shapes or the header.
    """
    if len(shapes) > MAX_ARRAYS or any(len(shape) > MAX_RANK for shape in shapes.values()):
        raise ValueError(f"At most {MAX_ARRAYS} arrays of at most {MAX_RANK} dimensions are written.")
    if any(not isinstance(name, str) or not 1 <= len(name) <= 255 for name in shapes):
        raise ValueError("The arrays' names must be strings of 1 to 255 characters.")
    total = 4 * sum(_bounded_size(shape) for shape in shapes.values())
    if total > MAX_BYTES:
        raise ValueError(f"The arrays have {total} bytes; at most {MAX_BYTES} are written.")
    document = {"arrays": {name: list(shape) for name, shape in shapes.items()}, "header": dict(header)}
    _check_limits(document, MAX_LEVELS)
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace")  # a lone surrogate, which is not text, becomes a JSON escape
    if len(text) > MAX_JSON:
        raise ValueError(f"The header has {len(text)} bytes as JSON; at most {MAX_JSON} are written.")
    compressor = zlib.compressobj(9, **({"zdict": dictionary} if dictionary else {}))
    return compressor.compress(text) + compressor.flush()


def json_text(cursor: Cursor, dictionary: bytes = b"") -> bytes:
    """Inflates the payload of the section JSON; for `dictionary` see `json_section`."""
    start = cursor.offset
    return inflate(cursor.rest(), MAX_JSON, start, dictionary)


def read_json(cursor: Cursor, dictionary: bytes = b"") -> tuple[dict, dict[str, tuple[int, ...]]]:
    """Reads and checks the payload of the section JSON; for `dictionary` see `json_section`.

    Returns:
        The caller's header, and the shape of each array by name; the arrays have at most `MAX_BYTES` bytes in total.

    Raises:
        SqzError: The JSON is malformed, or a shape is invalid or too large.
    """
    start = cursor.offset
    text = json_text(cursor, dictionary)
    try:
        document = json.loads(
            text.decode(), parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=distinct_keys
        )
        _check_limits(document, MAX_LEVELS)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"The header is not valid JSON: {error!s:.100}", start) from None
    if not isinstance(document, dict) or list(document) != ["arrays", "header"]:
        raise HeaderError("The JSON must be an object with the keys `arrays` and `header`", start)
    if not isinstance(document["header"], dict) or not isinstance(document["arrays"], dict):
        raise HeaderError("`arrays` and `header` must be JSON objects", start)
    if len(document["arrays"]) > MAX_ARRAYS:
        raise TooLargeError(f"{len(document['arrays'])} arrays; at most {MAX_ARRAYS} are read", start)
    for name, shape in document["arrays"].items():
        if not 1 <= len(name) <= 255 or not isinstance(shape, list) or len(shape) > MAX_RANK:
            raise ShapeError(
                f"Array {name!r:.80}: expected a name of 1 to 255 characters and at most {MAX_RANK} dimensions", start
            )
        if any(type(size) is not int or not 0 <= size <= MAX_BYTES for size in shape):
            raise ShapeError(f"Array {name!r:.80}: a dimension is not an integer from 0 to {MAX_BYTES}", start)
    total = 4 * sum(_bounded_size(shape) for shape in document["arrays"].values())
    if total > MAX_BYTES:
        raise TooLargeError(f"The arrays would have {total} bytes; at most {MAX_BYTES} are read", start)
    return document["header"], {name: tuple(shape) for name, shape in document["arrays"].items()}


def _bounded_size(shape: Sequence[int]) -> int:
    """Number of elements, with empty dimensions counted as 1: numpy bounds that product even for empty arrays."""
    return math.prod(max(size, 1) for size in shape)


def _check_limits(value: object, left: int) -> None:
    """Raises `ValueError` unless `value` is within the limits of a JSON text.

    Args:
        value: A JSON value; keys of objects are strings.
        left: How many more levels of lists and objects may be nested.
    """
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    if not isinstance(value, (list, tuple, Mapping)):
        return
    if left == 0:
        raise ValueError(f"The JSON has more than {MAX_LEVELS} levels")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):  # JSON would turn them into strings, perhaps equal ones
            raise ValueError(f"The keys of JSON objects must be strings, got {list(value)!r:.80}")
        value = value.values()
    for part in value:
        _check_limits(part, left - 1)


def _integer(text: str) -> int:
    """Parses an integer. `int` would apply the limit of `sys.set_int_max_str_digits` instead of `MAX_DIGITS`."""
    if len(text.removeprefix("-")) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(decimal.Decimal(text))


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not allowed")
