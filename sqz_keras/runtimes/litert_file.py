"""Models as LiteRT (TensorFlow Lite) files, written according to the public schema from the ModelSpec and its arrays.

The numbers below are those of the schema, tensorflow/compiler/mlir/lite/schema/schema.fbs: a table's fields are
numbered from 0 in the order of their declarations. `tests/runtimes/test_litert_file.py` reads the files back with
TensorFlow's own classes for the schema.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence

import numpy as np

from sqz_keras.architecture.colours import fold_colours
from sqz_keras.architecture.layers import IMAGES, Layer
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.runtimes import flatbuffer, litert_metadata

# The names that TensorFlow's converter uses in files of the same model.
SIGNATURE, SIGNATURE_INPUT, SIGNATURE_OUTPUT = "serving_default", "images", "output_0"
INPUT_TENSOR, OUTPUT_TENSOR = "serving_default_images:0", "StatefulPartitionedCall_1:0"

_SCHEMA_VERSION, _IDENTIFIER = 3, b"TFL3"
_TYPES = {np.dtype(np.float32): np.int8(0), np.dtype(np.float16): np.int8(1), np.dtype(np.int32): np.int8(2)}
_SAME, _VALID = np.int8(0), np.int8(1)
_RELU = np.int8(1)


class _Operation(enum.Enum):
    """Number in BuiltinOperator, version, and number of the options in the union BuiltinOptions (0: none)."""

    ADD = 0, 1, 11
    CONCATENATION = 2, 1, 10
    CONV_2D = 3, 1, 1
    DEQUANTIZE = 6, 3, 0
    MAX_POOL_2D = 17, 1, 5
    SOFTMAX = 25, 1, 9
    PAD = 34, 1, 22
    MEAN = 40, 1, 27


def convert(spec: ModelSpec, arrays: Mapping[str, np.ndarray], *, float16: bool = False) -> bytes:
    """The model as the content of a `.tflite` file.

    Input `images`: float32 (1, S, S, 3), RGB in 0..255, with S the network's input size; an interpreter may resize the
    first dimension. Output: the probabilities, float32 (1, classes). The order, scale and means of the colours are
    folded into conv1; the metadata holds the ModelSpec and what `litert_metadata` describes.

    Args:
        spec: Describes the model; its input has 3 channels.
        arrays: Its weights by name, float32.
        float16: Whether the kernels are stored in float16, half as large. The runtime computes in float32.

    Raises:
        ValueError: The model does not take 3 channels, or a weight is too large for float16.
    """
    if spec.channels != 3:
        raise ValueError(f"LiteRT files take RGB images, 3 channels; this model takes {spec.channels}.")
    graph = _Graph(fold_colours(spec, arrays), float16)
    layers = spec.layers()
    input = graph.add_tensor(INPUT_TENSOR, (1, spec.input_size, spec.input_size, spec.channels), any_batch=True)
    outputs = {IMAGES: _Output(input, spec.input_size, spec.channels)}
    for layer in layers[:-1]:
        tensor = graph.add_layer(layer, [outputs[name] for name in layer.inputs])
        outputs[layer.name] = _Output(tensor, layer.size, layer.channels)
    average = graph.average(layers[-1], outputs[layers[-1].inputs[0]])
    probabilities = graph.add_tensor(OUTPUT_TENSOR, (1, spec.classes), any_batch=True)
    graph.add_operator(_Operation.SOFTMAX, [average], probabilities, {0: np.float32(1)})
    data = graph.to_bytes(input, probabilities, litert_metadata.entries(spec))
    return data + litert_metadata.labels_archive(spec)


@dataclasses.dataclass(frozen=True)
class _Output:
    """The tensor with a layer's output (1, size, size, channels)."""

    tensor: int
    size: int
    channels: int


class _Graph:
    """The tensors, buffers and operators so far, as tables of the schema; a tensor is identified by its index."""

    def __init__(self, weights: Mapping[str, np.ndarray], float16: bool):
        self._weights = weights
        self._float16 = float16
        self._buffers: list[dict] = [{}]  # the first one is empty by convention: the buffer of computed tensors
        self._tensors: list[dict] = []
        self._operators: list[dict] = []
        self._operations: list[_Operation] = []

    def add_tensor(self, name: str, shape: Sequence[int], *, dtype=np.float32, buffer=0, any_batch=False) -> int:
        tensor = {
            0: np.array(shape, np.int32),
            1: _TYPES[np.dtype(dtype)],
            2: np.uint32(buffer),
            3: name,
        }
        if any_batch:
            tensor[7] = np.array([-1, *shape[1:]], np.int32)  # shape_signature
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def add_operator(self, operation: _Operation, inputs: Sequence[int], output: int, options: dict) -> int:
        if operation not in self._operations:
            self._operations.append(operation)
        operator = {
            0: np.uint32(self._operations.index(operation)),
            1: np.array(inputs, np.int32),
            2: np.array([output], np.int32),
        }
        options_type = operation.value[2]
        if options_type:
            operator |= {3: np.uint8(options_type), 4: options}
        self._operators.append(operator)
        return output

    def add_layer(self, layer: Layer, inputs: Sequence[_Output]) -> int:
        if layer.kind == "convolution":
            return self._convolution(layer, *inputs)
        output = self.add_tensor(layer.name, (1, layer.size, layer.size, layer.channels))
        tensors = [input.tensor for input in inputs]
        if layer.kind == "max pool":
            # In ceil mode an even size gets one row and column of padding at the end, as with SAME; an odd size none.
            padding = _SAME if inputs[0].size % 2 == 0 else _VALID
            stride, window = np.int32(layer.stride), np.int32(layer.kernel)
            options = {0: padding, 1: stride, 2: stride, 3: window, 4: window}
            return self.add_operator(_Operation.MAX_POOL_2D, tensors, output, options)
        if layer.kind == "concatenation":
            return self.add_operator(_Operation.CONCATENATION, tensors, output, {0: np.int32(3)})
        return self.add_operator(_Operation.ADD, tensors, output, {})

    def average(self, layer: Layer, input: _Output) -> int:
        axes = self._constant(f"{layer.name}/axes", np.array([1, 2], np.int32))
        output = self.add_tensor(layer.name, (1, layer.channels))
        return self.add_operator(_Operation.MEAN, [input.tensor, axes], output, {0: np.bool_(False)})

    def _convolution(self, layer: Layer, input: _Output) -> int:
        """A convolution and its ReLU."""
        x, padding = input.tensor, _VALID
        if layer.padding and (layer.stride, 2 * layer.padding + 1) == (1, layer.kernel):
            padding = _SAME
        elif layer.padding:
            around = np.pad(np.full((2, 2), layer.padding, np.int32), ((1, 1), (0, 0)))
            size = input.size + 2 * layer.padding
            padded = self.add_tensor(f"{layer.name}_pad", (1, size, size, input.channels))
            x = self.add_operator(_Operation.PAD, [x, self._constant(f"{layer.name}_pad/sizes", around)], padded, {})
        kernel = self._kernel(f"{layer.name}/kernel")
        bias = self._constant(f"{layer.name}/bias", self._weights[f"{layer.name}/bias"])
        output = self.add_tensor(layer.name, (1, layer.size, layer.size, layer.channels))
        stride = np.int32(layer.stride)
        options = {0: padding, 1: stride, 2: stride, 3: _RELU}
        return self.add_operator(_Operation.CONV_2D, [x, kernel, bias], output, options)

    def _kernel(self, name: str) -> int:
        kernel = np.transpose(self._weights[name], (3, 0, 1, 2))  # (filters, height, width, input channels)
        if not self._float16:
            return self._constant(name, kernel)
        with np.errstate(over="ignore"):
            stored = kernel.astype(np.float16)
        if not np.isfinite(stored).all():
            raise ValueError(f"{name} has values beyond float16's 65504; write the file in float32.")
        stored = self._constant(f"{name}/float16", stored)
        return self.add_operator(_Operation.DEQUANTIZE, [stored], self.add_tensor(name, kernel.shape), {})

    def _constant(self, name: str, value: np.ndarray) -> int:
        self._buffers.append({0: np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()})
        return self.add_tensor(name, value.shape, dtype=value.dtype, buffer=len(self._buffers) - 1)

    def to_bytes(self, input: int, output: int, metadata: Mapping[str, bytes]) -> bytes:
        entries = [{0: name, 1: np.uint32(place)} for place, name in enumerate(metadata, len(self._buffers))]
        self._buffers += [{0: data} for data in metadata.values()]
        subgraph = {
            0: self._tensors,
            1: np.array([input], np.int32),
            2: np.array([output], np.int32),
            3: self._operators,
            4: "main",
        }
        signature = {
            0: [{0: SIGNATURE_INPUT, 1: np.uint32(input)}],
            1: [{0: SIGNATURE_OUTPUT, 1: np.uint32(output)}],
            2: SIGNATURE,
            4: np.uint32(0),
        }
        codes = [operation.value[:2] for operation in self._operations]
        model = {
            0: np.uint32(_SCHEMA_VERSION),
            1: [{0: np.int8(code), 2: np.int32(version), 3: np.int32(code)} for code, version in codes],
            2: [subgraph],
            3: "sqz-keras",
            4: self._buffers,
            6: entries,
            7: [signature],
        }
        data_bytes = sum(len(buffer.get(0, b"")) for buffer in self._buffers)
        return flatbuffer.write_root(model, _IDENTIFIER, data_bytes)
