import dataclasses
import json
import tracemalloc
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sqz_keras.architecture.metaparameters import Metaparameters
from sqz_keras.architecture.spec import ModelSpec, Preprocessing, hash_arrays
from sqz_keras.images.preprocessing import preprocess_input
from sqz_keras.protobuf import write_message
from sqz_keras.weights.readers import WeightsFileError, onnx_file, read_arrays
from sqz_keras.weights.resolve import resolve_model
from tests.weights.readers import torch_nets
from tests.weights.readers.mutations import (
    SPEC,
    assert_equal,
    broken_arrays,
    changed,
    check_harmless,
    check_refused,
    check_refused_in_little_memory,
    flips,
    load,
    oihw,
    random_arrays,
    truncations,
)
from tests.weights.readers.onnx_nets import STYLES, build, renamed

FILE_NAME = "net.onnx"
V1_1 = ModelSpec(version="1.1").weight_shapes()
SMALL = Metaparameters(num_fire_modules=3, base_e=8, incr_e=8, freq=2, stem_filters=4, stem_kernel=3, pool_after=(1, 3))
BYPASSES = [None, "simple", "complex"]


def rounded(spec=SPEC):
    """Weights rounded to eighths, which have the same value in every dtype."""
    return {name: np.round(array * 8) / 8 for name, array in random_arrays(spec.weight_shapes()).items()}


def test_authors_file_equals_its_initializers(test_data):
    path = test_data / "weights/squeezenet1.1_authors/SqueezeNet_fp16.onnx"
    arrays = load(path, V1_1)
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    assert len(initializers) == len(arrays) == 52
    for name, array in arrays.items():
        theirs = f"{name.split('/')[0].replace('_', '/')}_{'w' if name.endswith('kernel') else 'b'}_0"
        np.testing.assert_array_equal(oihw(array), initializers[theirs].astype(np.float32), err_msg=name)
    assert sum(array.size for array in arrays.values()) == 1_235_496


def test_names_say_nothing(test_data, path):
    original = test_data / "weights/squeezenet1.1_authors/SqueezeNet_fp16.onnx"
    model = renamed(onnx.load(original))
    assert not any("conv" in tensor.name or "fire" in tensor.name for tensor in model.graph.initializer)
    path.write_bytes(model.SerializeToString())
    assert_equal(load(path, V1_1), load(original, V1_1))
    assert resolve_model(path)[0] == resolve_model(original)[0]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"])
def test_reads_what_was_written(path, dtype, raw):
    path.write_bytes(build(rounded(), dtype=getattr(TensorProto, dtype), raw=raw).SerializeToString())
    assert_equal(load(path), rounded())


@pytest.mark.parametrize("bypass", BYPASSES)
@pytest.mark.parametrize("style", STYLES)
def test_reads_what_exporters_write(path, style, bypass):
    how = Preprocessing(resize_to=39, antialias=False)  # a small image is not cropped
    spec = ModelSpec(None, bypass, SMALL, classes=5, input_size=39, conv10_padding=0, preprocessing=how)
    arrays = rounded(spec)
    model = build(arrays, spec, **STYLES[style])
    onnx.checker.check_model(model)
    path.write_bytes(renamed(model).SerializeToString())
    read_spec, read = resolve_model(path)
    assert_equal(read, arrays)
    expected = dataclasses.replace(spec, weights_sha256=read_spec.weights_sha256)
    assert dataclasses.replace(read_spec, metaparameters=SMALL) == expected
    assert read_spec.metaparameters.fire_modules() == SMALL.fire_modules()


@pytest.mark.parametrize(("producer", "mode"), [("pytorch", "torch"), ("MXNet", "torch"), ("tf2onnx", "authors")])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_description_follows_from_the_graph(path, version, producer, mode):
    spec = ModelSpec(version, "complex", classes=7, input_size=100, conv10_padding=1)
    path.write_bytes(build(rounded(spec), spec, producer=producer, ceil=True).SerializeToString())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read, _ = resolve_model(path)
    is_told = ["does not say how images are prepared" not in str(warning.message) for warning in caught]
    assert is_told == [False] * (producer == "tf2onnx")
    assert (read.version, read.bypass, read.classes, read.input_size) == (version, "complex", 7, 100)
    assert (read.conv10_padding, read.preprocessing.mode, read.preprocessing.resize_to) == (1, mode, 100)
    with pytest.raises(ValueError, match="bypass='complex'"):
        resolve_model(path, bypass="simple")


def test_what_keras_exports_on_pytorch_is_not_taken_for_torchvisions(path):
    """It has channels last between convolutions; torchvision's network may be behind a permutation of the images."""
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    path.write_bytes(build(rounded(spec), spec, producer="pytorch", last=True, ceil=True).SerializeToString())
    assert resolve_model(path)[0].preprocessing.mode == "torch"
    path.write_bytes(build(rounded(spec), spec, producer="pytorch", **STYLES["keras on pytorch"]).SerializeToString())
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        read, _ = resolve_model(path)
    assert read.preprocessing == Preprocessing("authors", "stretch", 39, antialias=False)


@pytest.mark.parametrize(
    ("number", "value", "message"),
    [
        (-1, 0, "slice step cannot be zero"),
        (2, 2**40, r"Pad 'n\d+' \(one of its inputs is neither a constant"),
        (2, -1, "negative dimensions"),
        (0, 7, "index out of range"),
    ],
)
def test_computed_pads_are_bounded_and_checked(path, number, value, message):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, **STYLES["keras on pytorch"])
    for constant in model.graph.node:
        if constant.op_type == "Constant" and numpy_helper.to_array(constant.attribute[0].t).tolist() == [number]:
            constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([value])))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match=message):
        read_arrays(path)


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("MaxPool", {"kernel_shape": [1, 3, 3, 3]}, "MaxPool 'n.* .its window is not over height and width alone"),
        ("MaxPool", {"strides": [2, 2, 2, 1]}, "its window is not over height and width alone"),
        ("MaxPool", {"dilations": [1, 1, 1, 2]}, "its window is not over height and width alone"),
        ("MaxPool", {"pads": [0, 0, 0, 1, 0, 0, 0, 0]}, "its window is not over height and width alone"),
        ("MaxPool", {"pads": [0, 1, 0, 0, 0, 0, 0, 0]}, "its pads are .1, 0, 1, 1"),
        ("MaxPool", {"kernel_shape": [3, 3]}, "its window is not over height and width alone"),
        ("MaxPool", {"kernel_shape": [1, 2, 2, 1]}, "its window is .2, 2"),
        ("Squeeze", {"axes": [0, 2]}, "Squeeze 'n.* .it drops an axis of the feature map"),
        ("Squeeze", {"axes": [0, 0]}, "its axes are invalid"),
        ("Squeeze", {"axes": [0, 9]}, "its axes are invalid"),
        ("Squeeze", {"axes": [0]}, "got Transpose 'n"),
        ("Squeeze", {}, "its axes are not constant"),
    ],
)
def test_axes_around_a_pool_are_checked(path, op, attributes, message):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, **STYLES["keras on jax"])
    if op == "Squeeze":
        node(model, op).input.pop()
    set_attribute(model, op, 0, **attributes)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match=message):
        read_arrays(path)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch writes the file of this test; it is not needed to read it")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bypass", BYPASSES)
@pytest.mark.parametrize("dynamo", [False, True])
def test_reads_what_pytorch_exports(torch, path, dynamo, bypass, half):
    if dynamo:
        pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it")
    spec = ModelSpec(None, bypass, SMALL, classes=5, input_size=39, conv10_padding=1)
    module, images = torch_nets.module(torch, spec, rounded(spec)), torch.zeros(1, 3, 39, 39)
    if half:
        module, images = module.half(), images.half()
    options = {"verbose": False} if dynamo else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and PyTorch's own code causes warnings
        torch.onnx.export(module, (images,), str(path), dynamo=dynamo, **options)
    read_spec, read = resolve_model(path)
    assert_equal(read, rounded(spec))
    assert read_spec.preprocessing == Preprocessing("torch", "shortest_side", 39)
    assert (read_spec.bypass, read_spec.input_size, read_spec.conv10_padding) == (bypass, 39, 1)


def tensor(model, name):
    layer, part = name.split("/")
    name = f"{layer}_{part[0].replace('k', 'w')}"
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def node(model, op, index=0):
    return [node for node in model.graph.node if node.op_type == op][index]


def set_attribute(model, op, index, **attributes):
    found = node(model, op, index)
    for name, value in attributes.items():
        kept = [attribute for attribute in found.attribute if attribute.name != name]
        del found.attribute[:]
        found.attribute.extend([*kept, helper.make_attribute(name, value)])


def insert(model, index, op, **attributes):
    """Inserts a node after the node at `index`."""
    before = model.graph.node[index]
    after = helper.make_node(op, ["between"], [before.output[0]], name="inserted", **attributes)
    before.output[0] = "between"
    model.graph.node.insert(index + 1, after)


# Edits of a graph, each with a pattern for the message, which often names the node or tensor.
EDITS = {
    "external entry": (lambda m: tensor(m, "conv1/bias").external_data.add(key="location", value="x"), "another file"),
    "integers": (lambda m: setattr(tensor(m, "conv1/bias"), "data_type", TensorProto.INT32), "floating point"),
    "half as wide": (lambda m: setattr(tensor(m, "conv1/bias"), "data_type", TensorProto.FLOAT16), "has 8 values"),
    "no dtype": (lambda m: tensor(m, "conv1/bias").ClearField("data_type"), "must be an array"),
    "4 bits": (lambda m: setattr(tensor(m, "conv1/bias"), "data_type", TensorProto.INT4), "quantised models"),
    "huge": (lambda m: tensor(m, "conv1/kernel").dims.__setitem__(0, 2**40), "has 108 values"),
    "negative": (lambda m: tensor(m, "conv1/kernel").dims.__setitem__(0, -4), "must be an array"),
    "zero": (lambda m: tensor(m, "conv10/bias").dims.__setitem__(0, 0), "has 10 values"),
    "empty and huge": (
        lambda m: m.graph.initializer.append(TensorProto(name="e", dims=[0, 2**60, 1, 1], data_type=1, raw_data=b"")),
        "belong to no node",
    ),
    "too long": (lambda m: setattr(tensor(m, "conv1/bias"), "raw_data", b"\0" * 20), "has 5 values"),
    "odd length": (lambda m: setattr(tensor(m, "conv1/bias"), "raw_data", b"\0" * 15), "has 3.75 values"),
    "no values": (lambda m: tensor(m, "conv1/bias").ClearField("raw_data"), "has 0 values"),
    "renamed": (lambda m: setattr(tensor(m, "conv1/bias"), "name", "other"), "reads 'conv1_b'|belong to no node"),
    "same name": (lambda m: m.graph.initializer.add().CopyFrom(tensor(m, "conv1/bias")), "two tensors are called"),
    "unused weights": (lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(2, "f4"), "x")), "'x'"),
    "a node twice": (lambda m: m.graph.node.add().CopyFrom(m.graph.node[0]), "two tensors are called"),
    "swapped inputs": (lambda m: m.graph.node[0].input.__setitem__(1, "conv1_b"), "kernel|belong to no node"),
    "no node": (lambda m: m.graph.node.pop(2), "which nothing before it makes"),
    "no graph": (lambda m: m.ClearField("graph"), "expected one input"),
    "no input": (lambda m: m.graph.input.pop(), "expected one input"),
    "two inputs": (lambda m: m.graph.input.add(name="more"), "expected one input, the images; got 2"),
    "two dimensions": (lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop(), "the input has 3"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "sparse"),
    "other op": (lambda m: setattr(m.graph.node[3], "op_type", "ConvTranspose"), "got ConvTranspose 'n"),
    "another runtime's": (lambda m: setattr(m.graph.node[3], "domain", "com.microsoft"), "com.microsoft"),
    "sigmoid": (lambda m: setattr(node(m, "Relu", 3), "op_type", "Sigmoid"), "Sigmoid 'n"),
    "relu6": (lambda m: insert(m, 1, "Clip", min=0.0, max=6.0), "Clip 'inserted'"),
    "batch normalisation": (lambda m: insert(m, 0, "InstanceNormalization"), "InstanceNormalization 'inserted'"),
    "no relu": (lambda m: setattr(node(m, "Relu", 0), "op_type", "Identity"), "conv1's ReLU"),
    "groups": (lambda m: set_attribute(m, "Conv", 1, group=2), "groups, dilations"),
    "dilations": (lambda m: set_attribute(m, "Conv", 3, dilations=[2, 2]), "groups, dilations"),
    "stride of conv1": (lambda m: set_attribute(m, "Conv", 0, strides=[4, 4]), "expected conv1: .*stride 2"),
    "two strides": (lambda m: set_attribute(m, "Conv", 0, strides=[2, 1]), "two different strides"),
    "stride 0": (lambda m: set_attribute(m, "Conv", 0, strides=[0, 0]), "stride is 0"),
    "padded conv1": (lambda m: set_attribute(m, "Conv", 0, pads=[1, 1, 1, 1]), "expected conv1: .*no padding"),
    "same conv1": (lambda m: set_attribute(m, "Conv", 0, auto_pad="SAME_UPPER"), "expected conv1: .*no padding"),
    "stride of squeeze": (lambda m: set_attribute(m, "Conv", 1, strides=[2, 2]), "fire2_squeeze1x1"),
    "stride of expand3x3": (lambda m: set_attribute(m, "Conv", 3, strides=[2, 2]), "fire2_expand3x3"),
    "unpadded expand3x3": (lambda m: set_attribute(m, "Conv", 3, pads=[0, 0, 0, 0]), "fire2_expand3x3"),
    "pads at one side": (lambda m: set_attribute(m, "Conv", 25, pads=[1, 1, 0, 0]), "conv10"),
    "pads as floats": (lambda m: set_attribute(m, "Conv", 3, pads=[1.5, 1.0, 1.0, 1.0]), "fire2_expand3x3"),
    "pads as text": (lambda m: set_attribute(m, "Conv", 3, pads="1111"), "fire2_expand3x3|damaged"),
    "pool of 2": (lambda m: set_attribute(m, "MaxPool", 0, kernel_shape=[2, 2]), r"window is \[2, 2\]"),
    "pool of stride 1": (lambda m: set_attribute(m, "MaxPool", 1, strides=[1, 1]), r"strides \[1, 1\]"),
    "padded pool": (lambda m: set_attribute(m, "MaxPool", 1, pads=[1, 1, 1, 1]), r"pads are \[1, 1, 1, 1\]"),
    "average pool": (lambda m: setattr(node(m, "MaxPool", 1), "op_type", "AveragePool"), "AveragePool 'n"),
    "two pools": (
        lambda m: insert(m, 2, "MaxPool", kernel_shape=[3, 3], strides=[2, 2]),
        "expected fire2: .*MaxPool 'inserted'",
    ),
    "other axis": (lambda m: set_attribute(m, "Concat", 2, axis=2), "does not join channels"),
    "halves swapped": (lambda m: node(m, "Concat", 2).input.reverse(), "fire4: expand1x1 before expand3x3"),
    "half of a module": (lambda m: node(m, "Concat", 2).input.pop(), "fire4: "),
    "transposed": (lambda m: insert(m, 1, "Transpose", perm=[0, 1, 3, 2]), "it reads axes NCWH"),
    "impossible transpose": (lambda m: insert(m, 1, "Transpose", perm=[0, 1, 1, 2]), "Transpose 'inserted'"),
    "a layer behind": (lambda m: insert(m, len(m.graph.node) - 1, "Sigmoid"), "Sigmoid 'inserted'"),
    "a second softmax": (
        lambda m: (setattr(node(m, "Flatten"), "op_type", "Softmax"), insert(m, len(m.graph.node) - 1, "LogSoftmax")),
        "LogSoftmax 'inserted' .its input went through a softmax before",
    ),
    "the end is missing": (lambda m: [m.graph.node.pop() for _ in range(2)], "the average.*the end of the graph"),
    "output of conv10": (
        lambda m: setattr(m.graph.output[0], "name", node(m, "Relu", 25).output[0]),
        "expected the average, or what is behind it, as an output, got Relu 'n",
    ),
    "quantised": (lambda m: insert(m, 1, "DynamicQuantizeLinear"), "quantised .*Export the float model"),
    "quantised weights": (lambda m: insert(m, 1, "DequantizeLinear"), "quantised .*Export the float model"),
    "QLinearConv": (lambda m: setattr(m.graph.node[0], "op_type", "QLinearConv"), "quantised .QLinearConv 'n"),
    "ConvInteger": (lambda m: setattr(m.graph.node[0], "op_type", "ConvInteger"), "quantised .ConvInteger 'n"),
    "MatMulInteger": (lambda m: setattr(m.graph.node[0], "op_type", "MatMulInteger"), "quantised"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_graph_is_refused_by_the_node(path, edit):
    model = build(random_arrays())
    change, message = EDITS[edit]
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match=f"(?s){message}"):
        load(path)
    assert check_refused(path, [model.SerializeToString()]) == 1


def test_average_pools_must_cover_the_map(path):
    """A pool of 13x13 averages all of a SqueezeNet's map at 224 pixels, and a part of it at 299."""
    for size, edit in [(39, 1), (79, 0)]:
        spec = ModelSpec(None, None, SMALL, classes=5, input_size=size)
        model = build(rounded(spec), spec, end="average pool", ceil=True)
        path.write_bytes(model.SerializeToString())
        assert_equal(read_arrays(path), rounded(spec))
        kernel = [node(model, "AveragePool").attribute[0].ints[0] - 1 + 2 * edit] * 2
        set_attribute(model, "AveragePool", 0, kernel_shape=kernel)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(WeightsFileError, match=r"AveragePool 'n\d+' \(it averages windows"):
            read_arrays(path)


def test_pools_that_round_down_draw_a_warning_where_it_matters(path):
    # The sizes of the maps before the pools are 19 and 9, or 20 and 10.
    for size, style, warns in [
        (39, {}, False),
        (39, {"pads": "node"}, False),
        (41, {}, True),
        (41, {"ceil": True}, False),
        (41, {"pads": "node"}, False),
    ]:
        spec = ModelSpec(None, None, SMALL, classes=5, input_size=size)
        path.write_bytes(build(rounded(spec), spec, producer="pytorch", **style).SerializeToString())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            resolve_model(path)
        messages = [str(warning.message) for warning in caught]
        assert [text.startswith(f"{path}: its max pools round down") for text in messages] == [True] * warns


@pytest.mark.parametrize(("style", "warns"), [({}, True), ({"ceil": True}, False), ({"pads": "node"}, False)])
def test_pools_that_round_down_draw_a_warning_where_any_size_will_do(path, style, warns):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, producer="pytorch", **style)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "any"
    path.write_bytes(model.SerializeToString())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resolve_model(path)
    messages = [str(warning.message) for warning in caught]
    assert ["At some numbers of pixels the two differ" in text for text in messages] == [True] * warns


def test_images_that_are_not_square_draw_a_warning(path):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, producer="pytorch", ceil=True)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 55
    path.write_bytes(model.SerializeToString())
    with pytest.warns(UserWarning, match="resized to 256 pixels, cropped to 224x224 and prepared"):
        resolve_model(path)


def test_a_pool_of_padding_is_refused(path):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    path.write_bytes(build(rounded(spec), spec, pads="node", ceil=True).SerializeToString())
    with pytest.raises(WeightsFileError, match=r"MaxPool 'n\d+' \(a row or column of its output has no input"):
        read_arrays(path)


def test_a_bias_behind_a_convolution_belongs_to_all_that_reads_it(path):
    """If a second node read the sum without the bias, it would be another network."""
    spec = ModelSpec(None, "complex", SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, late_bias=True)
    path.write_bytes(model.SerializeToString())
    assert_equal(read_arrays(path), rounded(spec))
    relu = node(model, "Relu", 4)
    (add,) = [node for node in model.graph.node if node.output[0] == relu.input[0]]
    relu.input[0] = add.input[0]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match="Add 'n"):
        read_arrays(path)


@pytest.mark.parametrize("style", ["constant nodes", "tf2onnx"])
def test_constants_that_are_not_understood_are_not_left_out(path, style):
    """The constants are biases or pads, stored in a way that is not understood."""
    spec = ModelSpec(None, "complex", SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, **STYLES[style])
    data = model.SerializeToString()
    constants = [index for index, node in enumerate(model.graph.node) if node.op_type == "Constant"]
    for index in constants[:-1]:  # the last is the shape of the output
        model = onnx.ModelProto.FromString(data)
        model.graph.node[index].attribute[0].name = "sparse_value"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(WeightsFileError, match=r"graph is not a SqueezeNet"):
            read_arrays(path)


def test_bypasses_of_neither_kind_are_refused(path):
    spec = ModelSpec("1.0", "simple", input_size=64, classes=3)
    model = build(rounded(spec), spec)
    add = node(model, "Add", 1)
    add.op_type = "Identity"
    add.input[:] = [name for name in add.input if "Concat" in {n.op_type for n in model.graph.node if name in n.output}]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match="bypasses around fire3, fire7, fire9, which is neither"):
        resolve_model(path)


def test_fire_modules_of_no_metaparameters_are_refused(path):
    wide = ModelSpec(None, None, dataclasses.replace(SMALL, base_e=12), classes=5, input_size=39)
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    mixed = rounded(spec) | {name: a for name, a in rounded(wide).items() if name.startswith("fire4")}
    path.write_bytes(build(mixed, spec).SerializeToString())
    with pytest.raises(WeightsFileError, match=r"no metaparameters give its 3 fire modules|do not fit"):
        resolve_model(path)


def structural(arrays):
    data = build(arrays).SerializeToString()
    yield from truncations(data, 80)
    yield from (data + extra for extra in (b"\0", b"\0" * 100, b"\xff" * 12, data, data[: len(data) // 2]))
    yield from (build(broken).SerializeToString() for broken in broken_arrays(arrays))


def test_structural_damage_is_refused(path):
    assert check_refused(path, structural(random_arrays())) > 250


def test_a_truncated_release_is_refused(test_data, path):
    data = (test_data / "weights/squeezenet1.1_authors/SqueezeNet_fp16.onnx").read_bytes()
    assert check_refused(path, truncations(data, 50), V1_1) == 50


@pytest.mark.parametrize("style", ["caffe2", "tf2onnx", "gluon", "constant nodes"])
def test_random_damage_is_refused_or_gives_finite_weights(path, style):
    data = build(random_arrays(), **STYLES[style]).SerializeToString()
    assert check_harmless(path, flips(data, 300, seed=3)) == 300


@pytest.mark.parametrize("style", STYLES)
def test_damage_to_the_graph_is_refused_or_gives_finite_weights(path, style):
    """As above, with so few weights that most of the damage hits nodes."""
    spec = ModelSpec(None, "complex", dataclasses.replace(SMALL, base_e=4, incr_e=2, stem_filters=2), classes=2)
    data = build(random_arrays(spec.weight_shapes()), spec, **STYLES[style]).SerializeToString()
    assert check_harmless(path, flips(data, 300, seed=8), spec.weight_shapes()) == 300


def test_many_empty_messages_are_refused_before_they_become_objects(path):
    graph = b"\x0a\x00" * 600_000
    path.write_bytes(write_message({7: graph}))
    check_refused_in_little_memory(path)
    node = b"\x2a\x00" * 600_000
    path.write_bytes(write_message({7: {1: node}}))
    with pytest.raises(WeightsFileError, match=r"no weights|more than"):
        onnx_file.read(path)


def test_constants_are_computed_within_limits(path):
    """A chain of nodes that would copy a large constant over and over."""
    model = build(random_arrays())
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((256, 256), np.float32), "c0"))
    shape = numpy_helper.from_array(np.array([65536]), "shape")
    model.graph.initializer.append(shape)
    for index in range(2000):
        model.graph.node.append(helper.make_node("Reshape", [f"c{index}", "shape"], [f"c{index + 1}"]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match="too many values are computed"):
        onnx_file.read(path)
    check_refused_in_little_memory(path)


def test_constants_are_joined_within_limits(path):
    """Small constants that are joined over and over."""
    model = build(random_arrays())
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((256, 256), np.float32), "c"))
    for index in range(10):
        model.graph.node.append(helper.make_node("Concat", ["c"] * 5000, [f"joined{index}"], axis=0))
    path.write_bytes(model.SerializeToString())
    tracemalloc.start()
    assert_equal(read_arrays(path), random_arrays())  # nothing reads what they make
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_slice_is_computed_only_as_it_is_understood(path):
    """Without axes, its steps would be in their place; before opset 10, it has attributes."""
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    model = build(rounded(spec), spec, **STYLES["keras on pytorch"])
    for found in [node for node in model.graph.node if node.op_type == "Slice"]:
        found.input[3] = ""
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match=r"Pad 'n\d+' \(one of its inputs is neither a constant"):
        read_arrays(path)
    model = build(rounded(spec), spec)
    model.graph.initializer.append(numpy_helper.from_array(np.arange(4), "c"))
    model.graph.node.append(helper.make_node("Slice", ["c"], ["part"], starts=[0], ends=[2]))
    path.write_bytes(model.SerializeToString())
    assert_equal(read_arrays(path), rounded(spec))  # nothing reads the part


def test_axes_are_added_within_limits(path):
    model = build(random_arrays())
    model.graph.initializer.append(numpy_helper.from_array(np.arange(65_000), "axes"))
    source = node(model, "MaxPool").output[0]
    for index in range(20):
        model.graph.node.append(helper.make_node("Unsqueeze", [source, "axes"], [f"wide{index}"], name=f"w{index}"))
        source = f"wide{index}"
    path.write_bytes(model.SerializeToString())
    check_refused_in_little_memory(path)


# The description in the metadata, and the colours that go with it.


def prepare(mode, scale=255):
    """Nodes that turn RGB in 0..scale into a network's input."""

    def nodes(writer, x):
        shift = preprocess_input(np.zeros((1, 1, 3), np.float32), "channels_last", mode).ravel()
        factors = preprocess_input(np.full((1, 1, 3), scale, np.float32), "channels_last", mode).ravel() - shift
        if mode in ("authors", "caffe"):
            x = writer.add("Gather", [x, writer.integers(2, 1, 0)], axis=1)
            divisor = np.full(3, scale / 255, np.float32)
        else:
            divisor = scale / factors
        x = writer.add("Div", [x, writer.constant(divisor.reshape(1, 3, 1, 1), "divisor")])
        return writer.add("Add", [x, writer.constant(shift.reshape(3, 1, 1), "shift")])

    return nodes


@pytest.mark.parametrize("mode", ["authors", "caffe", "torch", "tf"])
def test_colours_that_a_graph_prepares_tell_the_mode(path, mode):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    path.write_bytes(build(rounded(spec), spec, prepare=prepare(mode), producer="pytorch").SerializeToString())
    read, arrays = resolve_model(path)
    assert read.preprocessing.mode == mode
    assert_equal(arrays, rounded(spec))


@pytest.mark.parametrize(
    "nodes",
    [
        lambda writer, x: writer.add("Mul", [x, writer.constant(np.float32([0.5]), "half")]),
        lambda writer, x: writer.add("Gather", [x, writer.integers(2, 1, 0)], axis=1),
        lambda writer, x: writer.add("Gather", [x, writer.integers(0, 0, 0)], axis=1),
        lambda writer, x: writer.add("Gather", [x, writer.integers(2, 1, 0)], axis=2),
        lambda writer, x: writer.add("Sub", [writer.constant(np.float32([255]), "white"), x]),
        lambda writer, x: writer.add("Div", [x, writer.constant(np.float32([0]), "zero")]),
        lambda writer, x: writer.add("Add", [x, writer.constant(np.ones((1, 1, 39, 1), np.float32), "rows")]),
        lambda writer, x: writer.add("Add", [x, writer.constant(np.ones((1, 3, 39, 1), np.float32), "rows")]),
        lambda writer, x: writer.add("Pad", [x, writer.integers(0, 0, 1, 1, 0, 0, 1, 1)]),
        lambda writer, x: writer.add("Sqrt", [x]),
    ],
)
def test_other_preparations_of_images_are_refused(path, nodes):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    path.write_bytes(build(rounded(spec), spec, prepare=nodes).SerializeToString())
    with pytest.raises(WeightsFileError, match=r"colours|graph is not a SqueezeNet"):
        resolve_model(path)


def described(spec, value=None, mode="torch", **style):
    """The model of a spec, with `value` in its metadata, or the spec if there is no value."""
    model = build(rounded(spec), spec, prepare=prepare(mode), **style)
    text = value if isinstance(value, str) else json.dumps((value or spec).to_json())
    helper.set_model_props(model, {"model_spec": text})
    return model


LABELLED = ModelSpec(
    None,
    "simple",
    SMALL,
    classes=5,
    labels=tuple("abcde"),
    input_size=39,
    preprocessing=Preprocessing("torch", "shortest_side", 50, False),
    conv10_padding=1,
)


def test_the_description_in_the_metadata_is_the_models(path):
    path.write_bytes(described(LABELLED, producer="other").SerializeToString())
    spec, arrays = resolve_model(path)
    assert dataclasses.replace(spec, weights_sha256=None) == LABELLED
    assert_equal(arrays, rounded(LABELLED))
    with_hash = dataclasses.replace(LABELLED, weights_sha256=hash_arrays(arrays))
    path.write_bytes(described(LABELLED, with_hash).SerializeToString())
    assert resolve_model(path)[0] == with_hash


CONTRADICTIONS = {
    "bypass": (dataclasses.replace(LABELLED, bypass=None), "bypasses"),
    "pools": (dataclasses.replace(LABELLED, metaparameters=dataclasses.replace(SMALL, pool_after=(1, 2))), "pools"),
    "classes": (dataclasses.replace(LABELLED, classes=4, labels=None), "classes"),
    "size": (dataclasses.replace(LABELLED, input_size=40), "input_size"),
    "channels": (dataclasses.replace(LABELLED, channels=1), "channels"),
    "padding": (dataclasses.replace(LABELLED, conv10_padding=0), "padding"),
    "mode": (dataclasses.replace(LABELLED, preprocessing=Preprocessing("tf")), "preprocessing tf .* torch"),
    "filters": (dataclasses.replace(LABELLED, metaparameters=dataclasses.replace(SMALL, squeeze_ratio=0.5)), "not fit"),
    "hash": (dataclasses.replace(LABELLED, weights_sha256="0" * 64), "weights are not those"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_metadata_that_contradict_the_graph_are_refused(path, kind):
    spec, message = CONTRADICTIONS[kind]
    path.write_bytes(described(LABELLED, spec).SerializeToString())
    with pytest.raises(WeightsFileError, match=message):
        resolve_model(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "[" * 100_000,
        '{"version": "2.0"}',
        '{"classes": "5"}',
        '{"labels": 3}',
        '{"metaparameters": 1}',
    ],
)
def test_metadata_that_are_no_description_are_refused(path, text):
    path.write_bytes(described(LABELLED, text).SerializeToString())
    with pytest.raises(WeightsFileError, match="describes no model of this project"):
        resolve_model(path)


def test_two_descriptions_are_refused(path):
    model = described(LABELLED)
    model.metadata_props.add().CopyFrom(model.metadata_props[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsFileError, match="has 2 descriptions"):
        resolve_model(path)


# Heads.


def test_heads_of_another_kind_do_not_matter_to_the_trunk(path):
    spec = ModelSpec(None, "simple", SMALL, classes=5, input_size=39)
    arrays, heads = rounded(spec), {"head/kernel": np.ones((1, 1, 16, 3)), "head/bias": np.ones(3)}
    path.write_bytes(build(arrays | heads, spec).SerializeToString())
    with pytest.raises(WeightsFileError, match=r"conv10, or another fire module.*include_top=False"):
        read_arrays(path)
    trunk = {name: array for name, array in arrays.items() if not name.startswith("conv10")}
    assert_equal(read_arrays(path, trunk_only=True), trunk)
    model = build(arrays, spec)
    end = next(index for index, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    del model.graph.node[end - 2 :]
    kept = [tensor for tensor in model.graph.initializer if not tensor.name.startswith("conv10")]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path.write_bytes(model.SerializeToString())
    assert_equal(read_arrays(path, trunk_only=True), trunk)
    with pytest.raises(WeightsFileError, match="got the end of the graph"):
        read_arrays(path)


def test_another_layer_is_no_head(path):
    spec = ModelSpec(None, None, SMALL, classes=5, input_size=39)
    arrays = rounded(spec) | {"more/kernel": np.ones((3, 3, 16, 3)), "more/bias": np.ones(3)}
    path.write_bytes(build(changed(arrays, "conv10/bias", arrays["conv10/bias"]), spec).SerializeToString())
    with pytest.raises(WeightsFileError, match="no other convolution"):
        read_arrays(path, trunk_only=True)
