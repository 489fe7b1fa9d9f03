"""Reads the pickles of PyTorch state dicts without unpickling: a whitelist of opcodes over data, nothing is called.

Every global that a pickle names must be in `GLOBALS`; calling one of them makes a plain Python value that this module
builds itself.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickletools
import struct
import types
from collections.abc import Callable, Mapping

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError, refuse

_MAX_OPCODES = 200_000
_MAX_RANK = 8


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat array that the file holds elsewhere, under `key`."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


_DTYPES = {
    "torch HalfStorage": np.dtype("<f2"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch LongStorage": np.dtype("<i8"),
}
_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
GLOBALS = (_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, *_DTYPES)


def read_pickle(path: str | os.PathLike, stream: io.BytesIO) -> object:
    """The value of the pickle at the stream's position, which is left behind its end.

    Args:
        path: named in errors.
        stream: the bytes.

    Returns:
        None, bool, int, str, tuple, list, dict, `Storage` or `Tensor`, nested.

    Raises:
        WeightsFileError: the pickle is damaged, or names a global or needs an opcode that state dicts do not have.
    """
    damage = (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError, AttributeError)
    with refuse(path, *damage):
        return _Machine(path).run(stream)


class _Machine:
    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self, stream: io.BytesIO) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                (value,) = self._stack
                return value
            if count == _MAX_OPCODES:
                raise WeightsFileError(f"{self._path}: more than {_MAX_OPCODES} pickle opcodes; this is no state dict.")
            if opcode.name in _PUSHED_ARGUMENT:
                self._stack.append(argument)
            elif opcode.name in _PUSHED_VALUE:
                self._stack.append(_PUSHED_VALUE[opcode.name]())
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            else:
                raise WeightsFileError(
                    f"{self._path}: refused pickle opcode {opcode.name}; state dicts have none such."
                )
        raise WeightsFileError(f"{self._path}: the pickle has no end; the file is truncated.")

    def to_mark(self) -> list:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def find_global(self, name: str) -> None:
        if name not in GLOBALS:
            raise WeightsFileError(
                f"{self._path}: refused the pickled global {name!r:.80}; only a state dict's tensors are read. Save "
                "model.state_dict() instead of the model."
            )
        self._stack.append(_Global(name))

    def call(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise WeightsFileError(f"{self._path}: a pickled call is malformed; the file is damaged.")
        if function.name == _ORDERED_DICT and not arguments:
            self._stack.append({})
        elif function.name == _REBUILD_TENSOR:
            storage, offset, shape, strides = arguments[:4]
            numbers = (offset, *shape[:_MAX_RANK], *strides[:_MAX_RANK])
            well_formed = isinstance(storage, Storage) and len(shape) == len(strides) <= _MAX_RANK
            if not well_formed or any(type(number) is not int for number in numbers):
                raise WeightsFileError(f"{self._path}: a pickled tensor is malformed; the file is damaged.")
            self._stack.append(Tensor(storage, offset, tuple(shape), tuple(strides)))
        elif function.name == _REBUILD_PARAMETER and isinstance(arguments[0], Tensor):
            self._stack.append(arguments[0])
        else:
            raise WeightsFileError(f"{self._path}: refused a pickled call of {function.name!r}.")

    def load_storage(self, _: object) -> None:
        kind, storage_type, key, _, size, *view = self._stack.pop()
        dtype = _DTYPES[storage_type.name]
        if kind != "storage" or type(key) is not str or type(size) is not int or any(view):
            raise WeightsFileError(f"{self._path}: a pickled storage is malformed; the file is damaged.")
        self._stack.append(Storage(key, dtype, size))

    def set_items(self, pairs: list) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise WeightsFileError(f"{self._path}: a pickled dict is malformed; the file is damaged.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (str, int):
                raise WeightsFileError(
                    f"{self._path}: a pickled dict has a key that is no string; the file is damaged."
                )
            target[key] = value

    def append(self, items: list) -> None:
        if type(self._stack[-1]) is not list:
            raise WeightsFileError(f"{self._path}: a pickled list is malformed; the file is damaged.")
        self._stack[-1].extend(items)

    def pop(self, count: int) -> list:
        if len(self._stack) < count:
            raise WeightsFileError(f"{self._path}: a pickle takes from an empty stack; the file is damaged.")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def memoize(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def push(self, value: object) -> None:
        self._stack.append(value)


_PUSHED_ARGUMENT = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING")
)
_PUSHED_VALUE: Mapping[str, Callable[[], object]] = types.MappingProxyType(
    {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_TUPLE": tuple,
        "EMPTY_LIST": list,
        "EMPTY_DICT": dict,
    }
)
_ACTIONS: Mapping[str, Callable] = types.MappingProxyType(
    {
        "PROTO": lambda machine, _: None,
        "GLOBAL": _Machine.find_global,
        "REDUCE": _Machine.call,
        "BINPERSID": _Machine.load_storage,
        # An OrderedDict's attributes (the modules' versions) are dropped.
        "BUILD": lambda machine, _: machine.pop(1),
        "MARK": _Machine.mark,
        "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
        "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
        "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
        "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
        "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
        "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
        "APPEND": lambda machine, _: machine.append(machine.pop(1)),
        "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
        "BINPUT": _Machine.memoize,
        "LONG_BINPUT": _Machine.memoize,
        "BINGET": _Machine.recall,
        "LONG_BINGET": _Machine.recall,
    }
)
