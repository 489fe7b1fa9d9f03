"""The errors of a malformed `.sqz` file: one class for each kind of malformation."""

from __future__ import annotations


class SqzError(ValueError):
    """A `.sqz` file is damaged, has an unsupported version, or does not follow the specification.

    Args:
        message: What was expected and what the file holds.
        offset: The byte of the file at which the reader noticed the error; also an attribute.
    """

    def __init__(self, message: str, offset: int = 0):
        super().__init__(f"{message} (at byte {offset})")
        self.offset = offset


class MagicError(SqzError):
    """The file is not a `.sqz` file."""


class VersionError(SqzError):
    """This reader does not support the file's version or profile."""


class TruncatedError(SqzError):
    """The file, or something in it, ends too early."""


class TrailingBytesError(SqzError):
    """Bytes are left over where the file, or something in it, should end."""


class ChecksumError(SqzError):
    """Bytes do not match their checksum."""


class SectionError(SqzError):
    """A section is missing, unknown, or out of order."""


class HeaderError(SqzError):
    """The JSON section does not have the expected form."""


class ShapeError(SqzError):
    """The name or the shape of an array is invalid."""


class TooLargeError(SqzError):
    """The file declares more than the reader's limits allow."""


class TableError(SqzError):
    """A field of the table of arrays is out of range."""


class CodebookError(SqzError):
    """Values are not finite or not distinct, or a declared code is never used."""


class HuffmanError(SqzError):
    """Code lengths do not make a complete prefix code."""


class PositionError(SqzError):
    """A gap leads past the end of an array, or a filler occurs where none is allowed."""


class StreamError(SqzError):
    """A compressed stream is damaged, or does not end in the required state."""


class PaddingError(SqzError):
    """Padding is not zero, or a number is written with more bytes than it needs."""


class BaseFileError(SqzError):
    """The base of a delta is missing, wrong or itself a delta, or a base is given for a file that is not a delta."""
