"""The file of `--labels`: names of the classes, one a line, and nothing that would give a class another one's name."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Sequence

from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec

# Labels with the index of their class before or after them, as other programs write them, and what the first index may
# be. "1 euro" may be a name; "0 tench", "1. tench" and "#1 tench" are not names.
_NUMBERED = (
    (re.compile(r"([0-9]{1,6})(?:[.)](?![0-9]) *| +- +)(\S.*)"), (0, 1)),
    (re.compile(r"([0-9]{1,6}) +(\S.*)"), (0,)),
    (re.compile(r"(\S.*) +([0-9]{1,6})"), (0,)),
    (re.compile(r"[#(\[]([0-9]{1,6})[)\]]? *(\S.*)"), (0, 1)),
)
_NUMBER = re.compile("[0-9]{1,6}")
_FOLDER = re.compile(r"[0-9]{2,}\.[^\s0-9].*")  # "001.ak47", as Caltech-256 calls a class and its folder
_SEPARATORS = ",;\t|=:"
_IN_QUOTES = re.compile(r"""(["']).*\1,?|[-*] .*|.*[,;]""")  # or in a list, of YAML or something else
_WITH_WNID = re.compile(r"n[0-9]{8}[ ,;:\t]+\S.*|\S.*[ ,;:\t]+n[0-9]{8}")  # as in Caffe's synset_words.txt


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
    """The class names in a text file, one a line, in the order of the class indices.

    Spaces around a name and blank lines at the end are ignored.

    Raises:
        ValueError: The file is empty, too large or not UTF-8 text, is JSON, Python or YAML, numbers its lines, has ids
            of ImageNet beside the names, or has a blank line before its end.
        OSError: The file cannot be read.
    """
    expected = f"{os.fspath(path)}: expected text in UTF-8 with the name of a class on each line"
    with open(path, "rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{expected}, got more than {MAX_JSON_BYTES} bytes.")
    text = data.decode("utf-8", "replace").replace("\ufeff", "")  # the byte order mark of some editors
    if "\N{REPLACEMENT CHARACTER}" in text or "\0" in text:
        raise ValueError(f"{expected}, got another encoding. Save it as UTF-8.")
    labels = tuple(line.strip() for line in text.rstrip().splitlines())
    if not labels:
        raise ValueError(f"{expected}, got an empty file.")
    if any(text.lstrip()[:1] in ("{", "[") and _is_literal(text) for text in (text, labels[0])):
        raise ValueError(f"{expected}, got JSON or Python. Write each name on a line of its own.")
    if not all(labels):
        raise ValueError(f"{expected}, got a blank line {labels.index('') + 1}. Remove it, or name its class.")
    if _are_numbered(labels):
        raise ValueError(
            f"{expected}, got numbered lines such as {labels[0]!r:.40}. Write the names alone, in the order of the "
            "numbers."
        )
    if all(map(_WITH_WNID.fullmatch, labels)):
        raise ValueError(
            f"{expected}, got ids of ImageNet beside the names, such as {labels[0]!r:.40}. Write the names alone, or "
            "the ids alone."
        )
    if all(map(_IN_QUOTES.fullmatch, labels)):
        raise ValueError(f"{expected}, got lines such as {labels[0]!r:.40}. Write the names alone.")
    return labels


def with_labels(spec: ModelSpec, labels: Sequence[str]) -> ModelSpec:
    """The model with other names for its classes.

    Raises:
        ValueError: The labels are the model's own names in another order, or not one name for each class.
    """
    for own in (spec.labels, spec.class_names()) if spec.labels else ():
        if sorted(labels) == sorted(own) and tuple(labels) != own:
            place = next(index for index, pair in enumerate(zip(labels, own, strict=True)) if pair[0] != pair[1])
            raise ValueError(
                f"The file of labels has the model's own names in another order, first {labels[place]!r} instead of "
                f"{own[place]!r}. Leave out --labels: the model says which class is which."
            )
    return dataclasses.replace(spec, labels=tuple(labels))


def _are_numbered(labels: Sequence[str]) -> bool:
    if all(map(_FOLDER.fullmatch, labels)) and sorted(labels) == list(labels):  # so no class gets another one's name
        return False
    for pattern, starts in _NUMBERED:
        starts = starts if len(labels) < 3 else (0, 1)  # "1 dollar" and "2 dollars" may be names
        if _is_index([match.groups() if match else () for match in map(pattern.fullmatch, labels)], starts):
            return True
    for separator in _SEPARATORS:
        rows = [[cell.strip(" \"'") for cell in line.split(separator)] for line in labels]
        if _is_index(rows, (0, 1)) or (len(rows) > 2 and _is_index(rows[1:], (0, 1))):  # after a header
            return True
    return False


def _is_index(rows: Sequence[Sequence[str]], starts: Sequence[int]) -> bool:
    """Whether a column numbers the rows, in any order; if the rest is mostly equal, the numbers belong to the names."""
    width = min(map(len, rows))
    for column in (-1, *range(width)) if width > 1 else ():
        cells = [row[column] for row in rows]
        if all(map(_NUMBER.fullmatch, cells)):
            numbers, names = sorted(map(int, cells)), {(*row[:column], *row[column:][1:]) for row in rows}
            is_index = any(numbers == list(range(start, start + len(rows))) for start in starts)
            if is_index and 2 * len(names) > len(rows):  # two of ImageNet's names occur twice
                return True
    return False


def _is_literal(text: str) -> bool:
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            parse(text)
            return True
    return False
