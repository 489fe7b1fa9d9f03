"""Reads the pickles of PyTorch state dicts without unpickling: opcodes from a whitelist only; nothing is called.

Every global that a pickle names must be in `pickle_globals`; for a call of one, this module itself builds a plain
Python value, or a `Placeholder`.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickletools
import struct
import types
from collections.abc import Callable, Mapping

from sqz_keras.weights.arrays import WeightsFileError, refuse
from sqz_keras.weights.readers.pickle_globals import (
    DTYPES,
    GLOBALS,
    ITEMSIZE,
    ORDERED_DICT,
    OTHER_TENSORS,
    PLACEHOLDERS,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
)

SAVE_STATE_DICT = 'torch.save(model.state_dict(), "weights.pth")'
_MAX_OPCODES = 200_000
_MAX_RANK = 8
_OTHER_KEYS = (type(None), bytes, tuple)  # of dicts beside the weights; these entries are left out


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat array that the file holds elsewhere, under `key`; `dtype` is a NumPy name, or "bfloat16"."""

    key: str
    dtype: str
    size: int

    @property
    def bytes(self) -> int:
        return self.size * ITEMSIZE[self.dtype]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Placeholder:
    """A value that is not a weight and is not read: a NumPy array, a set, a device, a path, a namespace of options."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


def read_pickle(path: str | os.PathLike, stream: io.BytesIO) -> object:
    """The value of the pickle at the stream's position; the stream is left after the pickle's end.

    Args:
        path: named in errors.
        stream: the bytes.

    Returns:
        None, bool, int, float, str, bytes, tuple, list, dict, `Storage`, `Tensor` or `Placeholder`, nested.

    Raises:
        WeightsFileError: the pickle is damaged, or names a global or needs an opcode that checkpoints do not have.
    """
    return read_checkpoint(path, stream)[0]


def read_checkpoint(path: str | os.PathLike, stream: io.BytesIO) -> tuple[object, dict[str, Storage]]:
    """The value that `read_pickle` returns, and all storages that the pickle names, by key."""
    damage = (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError, AttributeError)
    with refuse(path, *damage):
        machine = _Machine(path)
        return machine.run(stream), machine.storages


class _Machine:
    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, stream: io.BytesIO) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                (value,) = self._stack
                return value
            if count == _MAX_OPCODES:
                raise WeightsFileError(
                    f"{self._path}: more than {_MAX_OPCODES} pickle opcodes, which no state dict of a SqueezeNet has. "
                    f"Save it alone: {SAVE_STATE_DICT}"
                )
            if opcode.name in _PUSHED_ARGUMENT:
                self._stack.append(argument)
            elif opcode.name in _PUSHED_VALUE:
                self._stack.append(_PUSHED_VALUE[opcode.name]())
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            else:
                raise WeightsFileError(
                    f"{self._path}: refused pickle opcode {opcode.name}, which torch.save does not write for a state "
                    f"dict. Where the file loads, save the weights alone: {SAVE_STATE_DICT}"
                )
        raise WeightsFileError(f"{self._path}: the pickle has no end; the file is truncated.")

    def to_mark(self) -> list:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def find_global(self, name: str) -> None:
        if name in OTHER_TENSORS:
            raise WeightsFileError(f"{self._path}: holds {OTHER_TENSORS[name]}.")
        if name not in GLOBALS:
            raise WeightsFileError(
                f"{self._path}: refused the pickled global {name!r:.80}: only tensors and plain values are read, "
                f"not a whole pickled or scripted model. Where it loads, save its weights alone: {SAVE_STATE_DICT}"
            )
        self._stack.append(_Global(name))

    def find_stacked_global(self, _: object) -> None:
        module, name = self.pop(2)
        if type(module) is not str or type(name) is not str:
            raise WeightsFileError(f"{self._path}: a pickled global has no name; the file is damaged.")
        self.find_global(f"{module} {name}")

    def call(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise WeightsFileError(f"{self._path}: a pickled call is malformed; the file is damaged.")
        if function.name in PLACEHOLDERS:
            self._stack.append(Placeholder(function.name))
        elif function.name == ORDERED_DICT and len(arguments) < 2:
            self._stack.append({})
            for pair in arguments[0] if arguments else ():  # as Python 2 pickles it
                self.set_items(list(pair))
        elif function.name in REBUILD_TENSOR:
            storage, offset, shape, strides = arguments[:4]
            if any(arguments[6:]):  # such as a negation that is still pending
                raise WeightsFileError(
                    f"{self._path}: a tensor is a view that torch has not computed yet. Save tensor.clone() of each."
                )
            numbers = (offset, *shape[:_MAX_RANK], *strides[:_MAX_RANK])
            well_formed = isinstance(storage, Storage) and len(shape) == len(strides) <= _MAX_RANK
            if not well_formed or any(type(number) is not int for number in numbers):
                raise WeightsFileError(f"{self._path}: a pickled tensor is malformed; the file is damaged.")
            self._stack.append(Tensor(storage, offset, tuple(shape), tuple(strides)))
        elif function.name in REBUILD_PARAMETER and isinstance(arguments[0], Tensor):
            self._stack.append(arguments[0])
        else:
            raise WeightsFileError(f"{self._path}: refused a pickled call of {function.name!r}.")

    def load_storage(self, _: object) -> None:
        kind, storage_type, key, _, size, *view = self._stack.pop()
        dtype = DTYPES[storage_type.name]
        if kind != "storage" or type(key) is not str or type(size) is not int or any(view):
            raise WeightsFileError(f"{self._path}: a pickled storage is malformed; the file is damaged.")
        storage = Storage(key, dtype, size)
        if self.storages.setdefault(key, storage) != storage:
            raise WeightsFileError(f"{self._path}: a storage is declared in two ways; the file is damaged.")
        self._stack.append(storage)

    def set_items(self, pairs: list) -> None:
        target = self._stack[-1]
        if isinstance(target, Placeholder):
            return
        if type(target) is not dict or len(pairs) % 2:
            raise WeightsFileError(f"{self._path}: a pickled dict is malformed; the file is damaged.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) in (str, int, float, bool):
                target[key] = value
            elif type(key) not in _OTHER_KEYS:
                raise WeightsFileError(
                    f"{self._path}: a pickled dict has a key that is neither text nor a number; the file is damaged."
                )

    def append(self, items: list) -> None:
        if isinstance(self._stack[-1], Placeholder):
            return
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

    def memoize_next(self, _: object) -> None:
        self.memoize(len(self._memo))

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def push(self, value: object) -> None:
        self._stack.append(value)


_PUSHED_ARGUMENT = frozenset(
    (
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    )
)
_PUSHED_VALUE: Mapping[str, Callable[[], object]] = types.MappingProxyType(
    {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_TUPLE": tuple,
        "EMPTY_LIST": list,
        "EMPTY_DICT": dict,
        "EMPTY_SET": lambda: Placeholder("set"),
    }
)
_ACTIONS: Mapping[str, Callable] = types.MappingProxyType(
    {
        "PROTO": lambda machine, _: None,
        "FRAME": lambda machine, _: None,
        "GLOBAL": _Machine.find_global,
        "STACK_GLOBAL": _Machine.find_stacked_global,
        "REDUCE": _Machine.call,
        "NEWOBJ": _Machine.call,
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
        "ADDITEMS": lambda machine, _: machine.append(machine.to_mark()),
        "MEMOIZE": _Machine.memoize_next,
        "BINPUT": _Machine.memoize,
        "LONG_BINPUT": _Machine.memoize,
        "BINGET": _Machine.recall,
        "LONG_BINGET": _Machine.recall,
    }
)
