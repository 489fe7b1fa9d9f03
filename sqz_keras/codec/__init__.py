"""The `.sqz` format: named float32 arrays in few bytes. docs/sqz-format.md specifies it."""

from sqz_keras.codec.decoder import Contents, decode
from sqz_keras.codec.encoder import encode
from sqz_keras.codec.errors import (
    BaseFileError,
    ChecksumError,
    CodebookError,
    HeaderError,
    HuffmanError,
    MagicError,
    PaddingError,
    PositionError,
    SectionError,
    ShapeError,
    SqzError,
    StreamError,
    TableError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    VersionError,
)
from sqz_keras.codec.layout import ArrayLayout, Layout, Outline, Section, describe, outline

__all__ = [
    "ArrayLayout",
    "BaseFileError",
    "ChecksumError",
    "CodebookError",
    "Contents",
    "HeaderError",
    "HuffmanError",
    "Layout",
    "MagicError",
    "Outline",
    "PaddingError",
    "PositionError",
    "Section",
    "SectionError",
    "ShapeError",
    "SqzError",
    "StreamError",
    "TableError",
    "TooLargeError",
    "TrailingBytesError",
    "TruncatedError",
    "VersionError",
    "decode",
    "describe",
    "encode",
    "outline",
]
