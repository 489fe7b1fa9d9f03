"""What can be wrong with a `.sqz` file: one class for each kind of malformation."""

from __future__ import annotations


class SqzError(ValueError):
    """A `.sqz` file that is damaged, of another version, or not as the specification says.

    Args:
        message: what was expected and what was found.
        offset: byte of the file at which it was noticed; also an attribute.
    """

    def __init__(self, message: str, offset: int = 0):
        super().__init__(f"{message} (at byte {offset})")
        self.offset = offset


class MagicError(SqzError):
    """The file is no `.sqz` file."""


class VersionError(SqzError):
    """The version or the profile is not one that is read here."""


class TruncatedError(SqzError):
    """The file, or something in it, ends too early."""


class TrailingBytesError(SqzError):
    """Bytes are left over where the file, or something in it, should end."""


class ChecksumError(SqzError):
    """Bytes do not have the checksum that stands with them."""


class SectionError(SqzError):
    """A section is missing, unknown, or out of its order."""


class HeaderError(SqzError):
    """The JSON header is not what it should be."""


class ShapeError(SqzError):
    """A name or a shape that no array has."""


class TooLargeError(SqzError):
    """What the file declares is more than is read."""


class TableError(SqzError):
    """A field of the table of arrays is out of its range."""


class CodebookError(SqzError):
    """Codebook values that are not finite, not distinct, zero, or never used."""


class HuffmanError(SqzError):
    """Code lengths that are no complete prefix code."""


class PositionError(SqzError):
    """Gaps that lead out of an array, or fillers where none belong."""


class StreamError(SqzError):
    """An entropy-coded stream that does not end as it must."""


class PaddingError(SqzError):
    """Padding that is not zero, or a number that is written longer than it needs to be."""


class BaseFileError(SqzError):
    """A delta without its base, with another base, or a base that is given to a file that is no delta."""
