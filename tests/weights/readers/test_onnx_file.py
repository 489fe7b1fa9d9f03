import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.readers import WeightsFileError, onnx_file
from tests.weights.readers.mutations import (
    assert_equal,
    broken_arrays,
    check_harmless,
    check_refused,
    check_refused_in_little_memory,
    flips,
    load,
    oihw,
    random_arrays,
    truncations,
)

FILE_NAME = "net.onnx"
V1_1 = ModelSpec(version="1.1").weight_shapes()


def theirs(name):
    layer, part = name.split("/")
    return f"{layer.replace('_', '/')}_{part[0].replace('k', 'w')}_0"


def build(arrays, dtype=TensorProto.FLOAT, *, raw=True):
    tensors, nodes, previous = [], [], "data_0"
    for name, array in arrays.items():
        values = oihw(array)
        if raw:
            tensors.append(numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(dtype)), theirs(name)))
        else:
            tensors.append(helper.make_tensor(theirs(name), dtype, values.shape, values.ravel()))
    for layer in dict.fromkeys(name.split("/")[0] for name in arrays):
        weights = [theirs(f"{layer}/{part}") for part in ("kernel", "bias") if f"{layer}/{part}" in arrays]
        nodes.append(helper.make_node("Conv", [previous, *weights], [layer]))
        previous = layer
    graph = helper.make_graph(nodes, "net", [], [], tensors)
    return helper.make_model(graph)


def test_authors_file_equals_its_initializers(test_data):
    path = test_data / "weights/squeezenet1.1_authors/SqueezeNet_fp16.onnx"
    arrays = load(path, V1_1)
    initializers = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    assert len(initializers) == len(arrays) == 52
    for name, array in arrays.items():
        np.testing.assert_array_equal(oihw(array), initializers[theirs(name)].astype(np.float32), err_msg=name)
    assert sum(array.size for array in arrays.values()) == 1_235_496


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"])
def test_reads_what_was_written(path, dtype, raw):
    # Eighths of small integers are the same in every one of these dtypes.
    arrays = {name: np.round(array * 8) / 8 for name, array in random_arrays().items()}
    path.write_bytes(build(arrays, getattr(TensorProto, dtype), raw=raw).SerializeToString())
    assert_equal(load(path), arrays)


def tensor(model, name):
    return next(each for each in model.graph.initializer if each.name == theirs(name))


def external(model):
    weights = tensor(model, "conv1/kernel")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/hostname")


EDITS = {
    "external data": external,
    "external entry": lambda model: tensor(model, "conv1/bias").external_data.add(key="location", value="x"),
    "integers": lambda model: setattr(tensor(model, "conv1/bias"), "data_type", TensorProto.INT32),
    "half as wide": lambda model: setattr(tensor(model, "conv1/bias"), "data_type", TensorProto.FLOAT16),
    "no dtype": lambda model: tensor(model, "conv1/bias").ClearField("data_type"),
    "huge": lambda model: tensor(model, "conv1/kernel").dims.__setitem__(0, 2**40),
    "negative": lambda model: tensor(model, "conv1/kernel").dims.__setitem__(0, -4),
    "zero": lambda model: tensor(model, "conv10/bias").dims.__setitem__(0, 0),
    "too long": lambda model: setattr(tensor(model, "conv1/bias"), "raw_data", b"\0" * 20),
    "odd length": lambda model: setattr(tensor(model, "conv1/bias"), "raw_data", b"\0" * 15),
    "no values": lambda model: tensor(model, "conv1/bias").ClearField("raw_data"),
    "renamed": lambda model: setattr(tensor(model, "conv1/bias"), "name", "other"),
    "same name": lambda model: model.graph.initializer.add().CopyFrom(tensor(model, "conv1/bias")),
    "unused weights": lambda model: model.graph.initializer.append(numpy_helper.from_array(np.ones(2, "f4"), "fc_w")),
    "shared": lambda model: model.graph.node.add().CopyFrom(model.graph.node[0]),
    "no bias": lambda model: model.graph.node[0].input.pop(),
    "swapped inputs": lambda model: model.graph.node[0].input.__setitem__(1, theirs("conv1/bias")),
    "no node": lambda model: model.graph.node.pop(),
    "other op": lambda model: setattr(model.graph.node[3], "op_type", "ConvTranspose"),
    "no graph": lambda model: model.ClearField("graph"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_graph_is_refused(path, edit):
    model = build(random_arrays())
    EDITS[edit](model)
    assert check_refused(path, [model.SerializeToString()]) == 1


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


def test_random_damage_is_refused_or_gives_finite_weights(path):
    data = build(random_arrays()).SerializeToString()
    assert check_harmless(path, flips(data, 400, seed=3)) == 400


def test_many_empty_messages_are_refused_before_they_become_objects(path):
    graph = b"\x0a\x00" * 600_000
    path.write_bytes(b"\x3a" + varint(len(graph)) + graph)
    check_refused_in_little_memory(path)
    node = b"\x2a\x00" * 600_000
    graph = b"\x0a" + varint(len(node)) + node
    path.write_bytes(b"\x3a" + varint(len(graph)) + graph)
    with pytest.raises(WeightsFileError, match="no weights"):
        onnx_file.read(path)


def varint(number):
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])
