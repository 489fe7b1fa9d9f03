"""Writes networks as ONNX files in the ways that exporters do."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sqz_keras.architecture.layers import IMAGES
from tests.weights.readers.mutations import SPEC, oihw

# Ways of writing a network: how constants are stored, where channels are, what pools, biases and the end look like.
STYLES = {
    "caffe2": {"softmax": True},
    "pytorch": {"ceil": True, "end": "flatten"},
    "pytorch dynamo": {"ceil": True, "end": "reduce mean"},
    "gluon": {"end": "average pool", "dropout": True, "listed": True},
    "constant nodes": {"constants": "node"},
    "identity nodes": {"constants": "identity"},
    "float16 with casts": {"constants": "cast", "dtype": TensorProto.FLOAT16},
    "tf2onnx": {"last": True, "pads": "node", "late_bias": True, "constants": "transposed", "end": "reduce mean"},
    "tf2onnx, each layer": {"last": True, "between": True, "pads": "auto", "late_bias": True, "softmax": True},
    "keras on pytorch": {"last": True, "between": True, "pads": "computed", "end": "flatten"},
    "keras on jax": {"last": True, "between": True, "pool": "wrapped", "late_bias": True, "softmax": True},
    "late relus": {"late_relu": True, "dropout": True},
}


def build(arrays, spec=SPEC, **style):
    """The model with these weights; arrays of unknown layers become convolutions after the last fire module."""
    return _Writer(arrays, spec, style).model()


class _Writer:
    def __init__(self, arrays, spec, style):
        self.arrays, self.spec, self.style = arrays, spec, style
        self.nodes, self.tensors, self.inputs = [], [], []
        self.counter = itertools.count()
        self.dtype = style.get("dtype", TensorProto.FLOAT)

    def add(self, op, inputs, outputs=1, **attributes):
        names = [f"t{next(self.counter)}" for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{next(self.counter)}", **attributes))
        return names[0]

    def integers(self, *values):
        return self.add("Constant", [], value=numpy_helper.from_array(np.array(values, np.int64)))

    def constant(self, array, name, transpose=None):
        how = self.style.get("constants", "initializer")
        if transpose and how == "transposed":
            array = np.ascontiguousarray(array.transpose(np.argsort(transpose)))
        if self.style.get("raw", True):
            tensor = numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(self.dtype)), name)
        else:
            tensor = helper.make_tensor(name, self.dtype, array.shape, array.ravel())
        if how == "node":
            return self.add("Constant", [], value=tensor)
        self.tensors.append(tensor)
        if how == "identity":
            return self.add("Identity", [name])
        if how == "cast":
            return self.add("Cast", [name], to=TensorProto.FLOAT)
        return self.add("Transpose", [name], perm=transpose) if transpose and how == "transposed" else name

    def convolution(self, layer, x, stride=1, padding=0):
        kernel, bias = (self.arrays.get(f"{layer}/{part}") for part in ("kernel", "bias"))
        names = [self.style.get("names", f"{layer}_{{}}").format(part) for part in "wb"]
        weight = names[0] if kernel is None else self.constant(oihw(kernel), names[0], [3, 2, 0, 1])
        attributes = {"strides": [stride] * 2} if stride > 1 else {}
        if padding and self.style.get("pads") == "node":
            pads = self.integers(0, 0, padding, padding, 0, 0, padding, padding)
            x, padding = self.add("Pad", [x, pads], mode="constant"), 0
        elif padding and self.style.get("pads") == "auto" and kernel.shape[0] == 3:
            attributes["auto_pad"], padding = "SAME_UPPER", 0
        if padding or self.style.get("listed"):
            attributes["pads"] = [padding] * 4
        if not self.style.get("late_bias"):
            added = names[1] if bias is None else self.constant(bias, names[1])
            return self.around("Conv", x, [weight, added], **attributes)
        x = self.around("Conv", x, [weight], **attributes)
        last = self.style.get("last") and self.style.get("between")
        return self.add("Add", [x, self.constant(bias if last else bias.reshape(1, -1, 1, 1), names[1])])

    def around(self, op, x, others=(), **attributes):
        """Adds a node, between transposes if every layer of the original has its channels last."""
        if not self.style.get("between"):
            return self.add(op, [x, *others], **attributes)
        x = self.add(op, [self.add("Transpose", [x], perm=[0, 3, 1, 2]), *others], **attributes)
        return self.add("Transpose", [x], perm=[0, 2, 3, 1])

    def layer(self, layer, inputs):
        if layer.kind == "convolution":
            x = self.convolution(layer.name, *inputs, layer.stride, layer.padding)
            late = self.style.get("late_relu") and layer.name.endswith(("_expand1x1", "_expand3x3"))
            return x if late else self.add("Relu", [x])
        if layer.kind == "max pool":
            return self.max_pool(*inputs)
        if layer.kind == "concatenation":
            x = self.add("Concat", inputs, axis=-1 if self.style.get("between") else 1)
            return self.add("Relu", [x]) if self.style.get("late_relu") else x
        return self.add("Add", inputs) if layer.kind == "addition" else self.end(*inputs)

    def max_pool(self, x):
        window, ceil = {"kernel_shape": [3, 3], "strides": [2, 2]}, {"ceil_mode": 1} if self.style.get("ceil") else {}
        if self.style.get("pads") == "node":
            x = self.add("Pad", [x, self.integers(0, 0, 0, 0, 0, 0, 1, 1)])
        elif self.style.get("pads") == "computed":
            x = self.add("Pad", [x, self.computed_pads()], mode="constant")
        elif self.style.get("pool") == "wrapped":
            x = self.add("Pad", [x, self.integers(0, 0, 0, 0, 0, 1, 1, 0)])
            x = self.add("Unsqueeze", [self.add("Unsqueeze", [x, self.integers(0)]), self.integers(1)])
            x = self.add("MaxPool", [x], kernel_shape=[1, 3, 3, 1], strides=[1, 2, 2, 1])
            return self.add("Squeeze", [x, self.integers(0, 1)])
        return self.around("MaxPool", x, **window, **ceil)

    def computed_pads(self):
        """A row and a column at the end, as PyTorch's older exporter computes them: channels are last."""
        rest = self.add("ConstantOfShape", [self.integers(2)], value=numpy_helper.from_array(np.zeros(1, np.int64)))
        pairs = self.add("Concat", [self.integers(0, 0, 0, 1, 0, 1), rest], axis=0)  # the last axis first
        pairs = self.add("Reshape", [pairs, self.integers(-1, 2)])
        numbers = (self.integers(number) for number in (-1, -(2**63) + 1, 0, -1))
        pairs = self.add("Transpose", [self.add("Slice", [pairs, *numbers])], perm=[1, 0])
        return self.add("Cast", [self.add("Reshape", [pairs, self.integers(-1)])], to=TensorProto.INT64)

    def end(self, x):
        """Adds the average, and what comes after it."""
        end = self.style.get("end")
        if end == "reduce mean":
            x = self.add("ReduceMean", [x, self.integers(-1, -2)], keepdims=1)
            x = self.add("Reshape", [x, self.integers(-1, self.spec.classes)])
        elif end == "average pool":
            layer = next(layer for layer in self.spec.layers() if layer.kind == "average")
            x = self.add("AveragePool", [x], kernel_shape=[layer.kernel] * 2, strides=[layer.kernel] * 2)
            x = self.add("Reshape", [x, self.integers(0, -1)])
        else:
            x = self.around("GlobalAveragePool", x)
            x = self.add("Flatten", [x], axis=1)
        return self.add("Softmax", [x]) if self.style.get("softmax") else x

    def model(self):
        size, channels = self.spec.input_size, self.spec.channels
        last, between = self.style.get("last"), self.style.get("between")
        shape = ["n", size, size, channels] if last else ["n", channels, size, size]
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
        x = self.add("Transpose", ["images"], perm=[0, 3, 1, 2]) if last and not between else "images"
        tensors, layers = {IMAGES: self.style.get("prepare", lambda _, x: x)(self, x)}, self.spec.layers()
        for layer in layers:
            inputs = [tensors[name] for name in layer.inputs]
            if layer.name == "conv10":
                self.heads(inputs[0], layers)
                inputs = [self.add("Dropout", inputs, 2)] if self.style.get("dropout") else inputs
            tensors[layer.name] = self.layer(layer, inputs)
        outputs = [helper.make_tensor_value_info(tensors[layers[-1].name], TensorProto.FLOAT, ["n", self.spec.classes])]
        listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.tensors]
        inputs = [image, *listed] if self.style.get("listed") else [image]
        graph = helper.make_graph(self.nodes, "net", inputs, outputs, self.tensors)
        return helper.make_model(graph, producer_name=self.style.get("producer", ""))

    def heads(self, x, layers):
        known = {layer.name for layer in layers}
        for layer in dict.fromkeys(name.split("/")[0] for name in self.arrays):
            if layer not in known:
                self.convolution(layer, x)


def renamed(model):
    """A copy whose names carry no meaning."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = {"": ""}

    def rename(name):
        return names.setdefault(name, f"x{7 * len(names) % 997}_{len(names)}")

    graph = copy.graph
    for value in itertools.chain(graph.input, graph.output, graph.initializer, graph.value_info):
        value.name = rename(value.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    return copy
