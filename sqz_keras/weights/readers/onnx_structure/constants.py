"""The constants of an ONNX graph: initializers, and what nodes make from these alone, evaluated when needed."""

from __future__ import annotations

import dataclasses
import math
import os
import typing

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError

if typing.TYPE_CHECKING:
    import onnx

MAX_SMALL = 1 << 16  # values at most in a constant that is reshaped or computed with: biases, shapes, axes
_MAX_SMALL_IN_ALL = 1 << 22
FLOATS = {1: 4, 11: 8, 10: 2, 16: 2}  # TensorProto's data types FLOAT, DOUBLE, FLOAT16, BFLOAT16 -> bytes of a value
_INTEGERS = {2: 1, 3: 1, 6: 4, 7: 8, 9: 1}  # UINT8, INT8, INT32, INT64, BOOL


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant: a tensor of the file, or a small array that was made from one.

    Args:
        name: the name of the tensor in the file, for messages.
        shape: the shape after `axes` are applied.
        tensor: the tensor in the file, or None if `array` is set.
        axes: the order of the tensor's axes, if it is transposed.
        casts: data types that its values are rounded to, in order.
        array: the values.
    """

    name: str
    shape: tuple[int, ...]
    tensor: onnx.TensorProto | None = None
    axes: tuple[int, ...] | None = None
    casts: tuple[int, ...] = ()
    array: np.ndarray | None = None


class Constants:
    """Makes constants of one file, and bounds the small arrays among them.

    Args:
        path: named in errors.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._left = _MAX_SMALL_IN_ALL

    def of_tensor(self, tensor: onnx.TensorProto) -> Constant:
        """The constant of a tensor, after a check that it has as many values as its shape says."""
        name, shape = tensor.name, tuple(tensor.dims)
        if tensor.external_data:
            raise WeightsFileError(f"{self._path}: {name!r:.80} names another file, but does not say that it is there.")
        itemsize = (FLOATS | _INTEGERS).get(tensor.data_type)
        if itemsize is None or len(shape) > 8 or any(size < 0 for size in shape):
            raise WeightsFileError(
                f"{self._path}: {name!r:.80} must be an array of floats or integers (data type in the file: "
                f"{tensor.data_type}, shape {list(shape)[:9]}); quantised models are not read."
            )
        if tensor.HasField("raw_data"):
            stored = len(tensor.raw_data) / itemsize
        else:
            fields = (tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data)
            stored = len(fields[{1: 0, 11: 1, 7: 3}.get(tensor.data_type, 2)])
        if stored != math.prod(shape):
            raise WeightsFileError(f"{self._path}: {name!r:.80} of shape {list(shape)} has {stored:g} values.")
        return Constant(name, shape, tensor)

    def of_array(self, name: str, array: np.ndarray) -> Constant:
        """A small constant."""
        self._left -= array.size
        if array.size > MAX_SMALL or self._left < 0:
            raise WeightsFileError(f"{self._path}: {name!r:.80}: too many values are computed from constants.")
        return Constant(name, array.shape, array=array)

    def values(self, constant: Constant) -> np.ndarray:
        """The values in the constant's shape and, except for bfloat16, in the dtype of the file or of the last cast."""
        import onnx

        if constant.array is not None:
            return constant.array
        array = onnx.numpy_helper.to_array(constant.tensor)
        for data_type in constant.casts:
            with np.errstate(over="ignore", invalid="ignore"):
                array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
        return array if constant.axes is None else array.transpose(constant.axes)

    def small(self, constant: Constant) -> np.ndarray:
        """The values of a constant that should be small; refuses a large one."""
        if math.prod(constant.shape) > MAX_SMALL:
            raise WeightsFileError(f"{self._path}: {constant.name!r:.80} is too large for what it is used as.")
        return self.values(constant)

    def transposed(self, constant: Constant, axes: tuple[int, ...]) -> Constant:
        if sorted(axes) != list(range(len(constant.shape))):
            raise WeightsFileError(f"{self._path}: {constant.name!r:.80} is transposed by impossible axes {axes[:9]}.")
        if constant.array is not None:
            return self.of_array(constant.name, constant.array.transpose(axes))
        shape, before = tuple(constant.shape[axis] for axis in axes), constant.axes or tuple(range(len(axes)))
        return dataclasses.replace(constant, shape=shape, axes=tuple(before[axis] for axis in axes))

    def cast(self, constant: Constant, data_type: int) -> Constant:
        """The constant cast to another dtype; only casts to floats matter here, so others are ignored."""
        if data_type not in FLOATS or constant.array is not None:
            return constant
        if len(constant.casts) == 8:
            raise WeightsFileError(f"{self._path}: {constant.name!r:.80} is cast too often.")
        return dataclasses.replace(constant, casts=(*constant.casts, data_type))
