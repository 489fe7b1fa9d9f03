import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.arrays import layer_name
from sqz_keras.weights.description import Hints
from sqz_keras.weights.readers import WeightsFileError, caffe, wire
from tests.weights.readers.mutations import (
    SHAPES,
    assert_equal,
    broken_arrays,
    check_harmless,
    check_refused,
    flips,
    layers_of,
    load,
    oihw,
    random_arrays,
    truncations,
)

FILE_NAME = "net.caffemodel"
Field = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "BlobShape": [("dim", 1, "int64", "packed")],
    "BlobProto": [
        ("num", 1, "int32", ""),
        ("channels", 2, "int32", ""),
        ("height", 3, "int32", ""),
        ("width", 4, "int32", ""),
        ("data", 5, "float", "packed"),
        ("diff", 6, "float", "packed"),
        ("shape", 7, "BlobShape", ""),
        ("double_data", 8, "double", "packed"),
    ],
    "ConvolutionParameter": [
        ("pad", 3, "uint32", "repeated"),
        ("pad_h", 9, "uint32", ""),
        ("pad_w", 10, "uint32", ""),
    ],
    "LayerParameter": [
        ("name", 1, "string", ""),
        ("type", 2, "string", ""),
        ("blobs", 7, "BlobProto", "repeated"),
        ("convolution_param", 106, "ConvolutionParameter", ""),
    ],
    "V1LayerParameter": [
        ("name", 4, "string", ""),
        ("type", 5, "int32", ""),
        ("blobs", 6, "BlobProto", "repeated"),
        ("convolution_param", 10, "ConvolutionParameter", ""),
    ],
    "NetParameter": [
        ("name", 1, "string", ""),
        ("layers", 2, "V1LayerParameter", "repeated"),
        ("layer", 100, "LayerParameter", "repeated"),
    ],
}


def message_classes(pad="repeated"):
    """Google's own encoder for the message layout, so that the files are not written by the code that reads them."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe_subset.proto", package="caffe", syntax="proto2")
    for message, fields in MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, number, kind, rule in fields:
            field = descriptor.field.add(name=name, number=number)
            field.label = Field.LABEL_REPEATED if rule else Field.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = Field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(Field, f"TYPE_{kind.upper()}")
            field.options.packed = (pad if name == "pad" else rule) == "packed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


NetParameter = message_classes()


def add_blob(blobs, array, legacy, double):
    blob = blobs.add()
    if legacy:
        blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
    else:
        blob.shape.dim.extend(array.shape)
    (blob.double_data if double else blob.data).extend(array.ravel().tolist())
    blob.diff.extend([0.0] * 3)


def encode(
    arrays,
    *,
    legacy=False,
    double=False,
    rename=lambda name: name.replace("_", "/"),
    pad=0,
    eltwise=False,
    weights_alone=False,
    messages=NetParameter,
):
    """A net as Caffe saves it; `pad` is conv10's, a number or the fields of its ConvolutionParameter."""
    net = messages(name="SqueezeNet")
    layers = net.layers if legacy else net.layer
    layers.add(name="data")
    for layer, parts in layers_of(arrays).items():
        message = layers.add(name=rename(layer))
        for array in parts.values():
            add_blob(message.blobs, oihw(array), legacy, double)
        layers.add(name=f"relu_{layer}")
        if not weights_alone:
            message.type = 4 if legacy else "Convolution"
            message.convolution_param.SetInParent()
        if not weights_alone and layer.startswith("conv10"):
            fields = {"pad": [pad] * (pad > 0)} if isinstance(pad, int) else pad
            for name, value in fields.items():
                field = getattr(message.convolution_param, name)
                field.extend(value) if name == "pad" else setattr(message.convolution_param, name, value)
    if eltwise:
        layers.add(name="fire3/add", type=25 if legacy else "Eltwise")
    return net.SerializeToString()


@pytest.mark.parametrize("options", [{}, {"legacy": True}, {"double": True}], ids=str)
def test_reads_what_was_written(path, options):
    arrays = random_arrays()
    path.write_bytes(encode(arrays, **options))
    assert_equal(load(path), arrays)


def test_reads_full_size_nets(path):
    shapes = ModelSpec(version="1.0", bypass="complex").weight_shapes()
    arrays = random_arrays(shapes)
    path.write_bytes(encode(arrays))
    assert_equal(load(path, shapes), arrays)


def test_names_of_the_dense_sparse_dense_release(path):
    theirs = {"squeeze1x1": "conv1x1_1", "expand1x1": "conv1x1_2", "expand3x3": "conv3x3_2"}

    def rename(layer):
        module, _, part = layer.partition("_")
        return f"{module}/{theirs[part]}" if part else {"conv10": "conv_final"}.get(layer, layer)

    arrays = random_arrays()
    path.write_bytes(encode(arrays, rename=rename))
    assert_equal(load(path), arrays)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("pad", ["repeated", "packed"])
def test_what_the_layers_say_of_the_network(path, legacy, pad):
    options = {"legacy": legacy, "messages": message_classes(pad)}
    for fields, padding in [
        (0, 0),
        (2, 2),
        ({"pad": [1, 1]}, 1),
        ({"pad_h": 1, "pad_w": 1}, 1),
        ({"pad": [0, 1]}, None),
        ({"pad_h": 1}, None),
    ]:
        path.write_bytes(encode(random_arrays(), pad=fields, eltwise=padding == 2, **options))
        if padding is None:
            with pytest.raises(WeightsFileError, match=r"conv10 has the paddings \[.*expected the same on all sides"):
                caffe.read(path)
            assert caffe.read_described(path, trunk_only=True)[1] == Hints(has_bypass=False)
        else:
            said = caffe.read_described(path)[1]
            assert said == Hints(conv10_padding=padding, has_bypass=padding == 2)
    path.write_bytes(encode(random_arrays(), weights_alone=True, **options))
    assert caffe.read_described(path)[1] == Hints()


def test_the_padding_of_a_head_of_another_name_is_read(path):
    path.write_bytes(encode(random_arrays(), pad=1, rename=lambda layer: {"conv10": "conv10-new"}.get(layer, layer)))
    assert caffe.read_described(path)[1].conv10_padding == 1


def test_layers_of_other_nets_are_refused_by_name(path):
    assert layer_name("fire2/squeeze1x1") == "fire2_squeeze1x1"
    for name in ("fc8", "fire2", "fire2/concat", "fire2/squeeze1x1/x", "conv100", "fire02/expand3x3", ""):
        assert layer_name(name) is None
        path.write_bytes(encode(random_arrays(), rename=lambda layer, name=name: name if layer == "conv1" else layer))
        with pytest.raises(WeightsFileError, match="no SqueezeNet has such a layer"):
            caffe.read(path)


def structural(arrays):
    data = encode(arrays)
    yield from truncations(data, 80)
    yield from (data + extra for extra in (b"\0", b"\0" * 100, b"\xff" * 12, b"\x0b", data, data[: len(data) // 2]))
    yield from (encode(broken) for broken in broken_arrays(arrays))
    net = NetParameter.FromString(data)
    for layer in net.layer:
        for edit in EDITS[layer.name == "conv10" :] if layer.blobs else ():
            copy = NetParameter()
            copy.CopyFrom(net)
            edit(next(candidate for candidate in copy.layer if candidate.name == layer.name))
            yield copy.SerializeToString()


EDITS = (
    lambda layer: setattr(layer, "name", "conv1/x"),  # a head of another name is read
    lambda layer: layer.blobs.pop(),
    lambda layer: layer.blobs.add(),
    lambda layer: layer.blobs[0].data.pop(),
    lambda layer: layer.blobs[1].data.append(1.0),
    lambda layer: layer.blobs[0].shape.dim.append(1),
    lambda layer: layer.blobs[0].shape.dim.__setitem__(0, -1),
    lambda layer: layer.blobs[0].shape.dim.__setitem__(0, 0),
    lambda layer: layer.blobs[1].shape.dim.__setitem__(0, 2**62),
    lambda layer: layer.blobs[0].ClearField("data"),
    lambda layer: layer.blobs[0].ClearField("shape"),
    lambda layer: layer.blobs[0].double_data.append(1.0),
)


def test_structural_damage_is_refused(path):
    assert check_refused(path, structural(random_arrays())) > 400


def test_random_damage_is_refused_or_gives_finite_weights(path):
    assert check_harmless(path, flips(encode(random_arrays()), 400, seed=2)) == 400


def test_many_empty_fields_are_refused_early(path):
    path.write_bytes(b"\x12\x00" * (wire.MAX_FIELDS + 1))
    with pytest.raises(WeightsFileError, match="more than 100000 fields"):
        caffe.read(path)


def test_float64_beyond_float32_is_refused(path):
    arrays = {name: array.astype(np.float64) for name, array in random_arrays().items()}
    arrays["conv1/bias"][0] = 1e300
    assert set(arrays) == set(SHAPES)
    path.write_bytes(encode(arrays, double=True))
    with pytest.raises(WeightsFileError, match=r"conv1/bias.*too large"):
        caffe.read(path)
