"""The names that pickles of PyTorch checkpoints may contain, as "module name"; every other name is refused."""

from __future__ import annotations

# Storages, and the NumPy dtypes of their values, or "bfloat16".
DTYPES = {
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "int64": 8, "int32": 4, "int16": 2, "int8": 1}
ITEMSIZE |= {"uint8": 1, "bool": 1}
ORDERED_DICT = "collections OrderedDict"
REBUILD_TENSOR = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")  # the second: before PyTorch 0.4
REBUILD_PARAMETER = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
# These occur beside the weights in training checkpoints; what they would make is never used.
PLACEHOLDERS = frozenset(
    (
        "numpy dtype",
        "numpy ndarray",
        "numpy.core.multiarray _reconstruct",
        "numpy._core.multiarray _reconstruct",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "numpy.core.numeric _frombuffer",  # an array under pickle's protocol 5
        "numpy._core.numeric _frombuffer",
        "_codecs encode",
        "__builtin__ dict",
        "builtins dict",
        "__builtin__ set",
        "builtins set",
        "collections Counter",
        "collections defaultdict",
        "argparse Namespace",
        "torch device",
        "torch Size",
        "datetime datetime",
        "pathlib PosixPath",
        "pathlib WindowsPath",
        "pathlib._local PosixPath",  # Python 3.13
        "pathlib._local WindowsPath",
    )
)
# Kinds of tensors that a state dict may hold but that are not read, and what to save instead of them.
OTHER_TENSORS = {
    "torch._utils _rebuild_tensor_v3": "a tensor of a type such as float8. Save tensor.float() of each",
    "torch._utils _rebuild_qtensor": "a quantised tensor. Save the state dict of the float model",
    "torch._utils _rebuild_sparse_tensor": "a sparse tensor. Save tensor.to_dense() of each",
    "torch._utils _rebuild_meta_tensor_no_storage": "a tensor of the device meta, without values. Load the model first",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor": "a tensor of another device. Save tensor.cpu() of each",
    "torch._utils _rebuild_device_tensor_from_numpy": "a tensor of another device. Save tensor.cpu() of each",
}
GLOBALS = frozenset((ORDERED_DICT, *REBUILD_TENSOR, *REBUILD_PARAMETER, *DTYPES, *PLACEHOLDERS))
