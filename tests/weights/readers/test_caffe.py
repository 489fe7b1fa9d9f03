import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sqz_keras.architecture.metaparameters import VERSIONS
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
        ("group", 5, "uint32", ""),
        ("stride", 6, "uint32", "repeated"),
        ("pad_h", 9, "uint32", ""),
        ("pad_w", 10, "uint32", ""),
        ("stride_h", 13, "uint32", ""),
        ("dilation", 18, "uint32", "repeated"),
    ],
    "PoolingParameter": [
        ("pool", 1, "uint32", ""),
        ("kernel_size", 2, "uint32", ""),
        ("stride", 3, "uint32", ""),
        ("pad", 4, "uint32", ""),
        ("global_pooling", 12, "bool", ""),
        ("round_mode", 13, "uint32", ""),
    ],
    "EltwiseParameter": [("operation", 1, "uint32", ""), ("coeff", 2, "float", "repeated")],
    "ReLUParameter": [("negative_slope", 1, "float", "")],
    "TransformationParameter": [
        ("scale", 1, "float", ""),
        ("mirror", 2, "bool", ""),
        ("crop_size", 3, "uint32", ""),
        ("mean_file", 4, "string", ""),
        ("mean_value", 5, "float", "repeated"),
    ],
    "LayerParameter": [
        ("name", 1, "string", ""),
        ("type", 2, "string", ""),
        ("bottom", 3, "string", "repeated"),
        ("top", 4, "string", "repeated"),
        ("blobs", 7, "BlobProto", "repeated"),
        ("transform_param", 100, "TransformationParameter", ""),
        ("convolution_param", 106, "ConvolutionParameter", ""),
        ("eltwise_param", 110, "EltwiseParameter", ""),
        ("pooling_param", 121, "PoolingParameter", ""),
        ("relu_param", 123, "ReLUParameter", ""),
    ],
    "V1LayerParameter": [
        ("bottom", 2, "string", "repeated"),
        ("top", 3, "string", "repeated"),
        ("name", 4, "string", ""),
        ("type", 5, "int32", ""),
        ("blobs", 6, "BlobProto", "repeated"),
        ("convolution_param", 10, "ConvolutionParameter", ""),
        ("pooling_param", 19, "PoolingParameter", ""),
        ("eltwise_param", 24, "EltwiseParameter", ""),
        ("relu_param", 30, "ReLUParameter", ""),
        ("transform_param", 36, "TransformationParameter", ""),
    ],
    "NetParameter": [
        ("name", 1, "string", ""),
        ("layers", 2, "V1LayerParameter", "repeated"),
        ("layer", 100, "LayerParameter", "repeated"),
    ],
}
V1_TYPES = {"Concat": 3, "Convolution": 4, "Data": 5, "Dropout": 6, "InnerProduct": 14, "Pooling": 17, "ReLU": 18}
V1_TYPES |= {"Sigmoid": 19, "Softmax": 20, "Split": 22, "Eltwise": 25}


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


class Net:
    """A NetParameter that grows layer by layer."""

    def __init__(self, messages, legacy, weights_alone):
        self.message = messages(name="SqueezeNet")
        self._layers = self.message.layers if legacy else self.message.layer
        self._legacy, self._weights_alone = legacy, weights_alone

    def add(self, name, kind, bottoms=(), top=None, **parameters):
        """Adds a layer that writes `top`, by default a blob of its own name, and returns it."""
        layer = self._layers.add(name=name)
        if self._weights_alone:
            return layer
        layer.type = V1_TYPES[kind] if self._legacy else kind
        layer.bottom.extend(bottoms)
        layer.top.append(top or name)
        if kind in ("Convolution", "Pooling", "Eltwise", "ReLU"):
            message = getattr(layer, f"{kind.lower()}_param")
            message.SetInParent()
            for field, value in parameters.items():
                extend = isinstance(value, list)
                getattr(message, field).extend(value) if extend else setattr(message, field, value)
        return layer


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
    edit=lambda layers: None,
):
    """A net as Caffe saves it.

    `pad` is conv10's padding: a number, or the fields of its ConvolutionParameter. `eltwise` adds bypasses, around all
    fire modules if `arrays` has bypass convolutions, else around every other fire module. `edit` may change the layers.
    """
    net = Net(messages, legacy, weights_alone)
    net.add("data", "Data")
    conv1 = arrays.get("conv1/kernel", np.empty(0)).shape
    versions = [v for v in VERSIONS.values() if conv1[:1] + conv1[3:] == (v.stem_kernel, v.stem_filters)]
    pool_after = versions[0].pool_after if versions else (1,)
    last = "data"
    for layer, parts in layers_of(arrays).items():
        name, (block, _, part) = rename(layer), layer.partition("_")
        is_head = not layer.startswith("fire") and layer != "conv1"
        fields, source = {}, last
        if layer == "conv1":
            fields = {"stride": [2]}
        elif is_head:
            fields = {"pad": [pad] * (pad > 0)} if isinstance(pad, int) else pad
        elif part.startswith("expand"):
            fields, source = {"pad": [1]} if part == "expand3x3" else {}, rename(f"{block}_squeeze1x1")
        elif part == "bypass1x1":
            source = rename(f"{block}_squeeze1x1")  # any source will do
        message = net.add(name, "Convolution", [source], **fields)
        for array in parts.values():
            add_blob(message.blobs, oihw(array), legacy, double)
        net.add(f"relu_{layer}", "ReLU", [name], name)
        if layer == "conv1":
            last = name
        elif part == "expand3x3":
            net.add(f"{block}/concat", "Concat", [rename(f"{block}_expand1x1"), name])
            has_bypass = eltwise and (int(block[4:]) % 2 or any("bypass1x1" in name for name in arrays))
            if has_bypass:
                net.add(f"{block}/add", "Eltwise", [last, f"{block}/concat"])
            last = f"{block}/add" if has_bypass else f"{block}/concat"
        elif is_head:
            net.add(f"pool_{layer}", "Pooling", [name], pool=1, global_pooling=True)
            net.add(f"loss_{layer}", "Softmax", [f"pool_{layer}"])
        place = 1 if layer == "conv1" else int(block[4:]) if part == "expand3x3" else None
        if place in pool_after:
            net.add(f"pool{place}", "Pooling", [last], kernel_size=3, stride=2)
            last = f"pool{place}"
    edit({layer.name: layer for layer in (net.message.layers or net.message.layer)})
    return net.message.SerializeToString()


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


def set_fields(name, kind, **fields):
    """An edit that sets fields of a layer's parameters."""

    def edit(layers):
        message = getattr(layers[name], f"{kind}_param")
        for field, value in fields.items():
            message.ClearField(field)
            getattr(message, field).extend(value) if isinstance(value, list) else setattr(message, field, value)

    return edit


def rename_type(name, kind):
    def edit(layers):
        legacy = isinstance(layers[name].type, int)
        layers[name].type = V1_TYPES[kind] if legacy else kind

    return edit


def skip(name):
    """An edit after which all readers of the layer's output read its input: the layer remains, but nothing uses it."""

    def edit(layers):
        layer = layers[name]
        source, top = layer.bottom[0], layer.top[0]
        layer.top[0] = f"{name}_unused"
        for other in layers.values():
            other.bottom[:] = [source if blob == top else blob for blob in other.bottom]
        rename_type(name, "Dropout")(layers)

    return edit


NO_SQUEEZENETS = [
    (set_fields("conv1", "convolution", stride=[4]), "conv1 has stride=4, expected 2"),
    (set_fields("conv1", "convolution", stride=[], stride_h=2), "conv1 has stride=1, 2, expected 2"),
    (set_fields("conv1", "convolution", pad=[5]), "conv1 has pad=5, expected 0"),
    (set_fields("fire3/expand3x3", "convolution", pad=[3]), "fire3/expand3x3 has pad=3, expected 1"),
    (set_fields("fire3/expand3x3", "convolution", dilation=[2]), "fire3/expand3x3 has dilation=2, expected 1"),
    (set_fields("fire3/squeeze1x1", "convolution", group=2), "fire3/squeeze1x1 has group=2, expected 1"),
    (set_fields("conv10", "convolution", stride=[2]), "conv10 has stride=2, expected 1"),
    (set_fields("relu_conv1", "relu", negative_slope=0.1), "relu_conv1 has negative_slope=0.1, expected 0"),
    (rename_type("relu_conv1", "Sigmoid"), r"it has the layer relu_conv1 \((Sigmoid|type 19)\)"),
    (rename_type("relu_fire3_expand1x1", "Dropout"), "fire3/expand1x1 has no ReLU behind it"),
    (rename_type("relu_conv10", "Dropout"), "conv10 has no ReLU behind it"),
    (set_fields("pool1", "pooling", kernel_size=2), "pool1 has kernel_size=2, expected 3"),
    (set_fields("pool1", "pooling", pool=1), "pool1 has pool=1, expected 0"),
    (set_fields("pool1", "pooling", round_mode=1), "pool1 has round_mode=1, expected 0"),
    (skip("pool1"), r"it has max pools behind \[4, 8\], expected \[1, 4, 8\]"),
    (set_fields("pool_conv10", "pooling", pool=0), "pool_conv10 has pool=0, expected 1"),
    (set_fields("pool_conv10", "pooling", global_pooling=False), "pool_conv10 has global_pooling=0, expected 1"),
    (skip("pool_conv10"), r"it has the layer loss_conv10 \((Softmax|type 20)\)"),
    (skip("fire5/add"), r"it has bypasses around fire modules \[3, 7, 9\], expected \[3, 5, 7, 9\]"),
    (
        lambda layers: layers["fire3/concat"].bottom.reverse(),
        "fire3/concat joins fire3_expand3x3, fire3_expand1x1, expected expand1x1 and expand3x3",
    ),
    (set_fields("fire3/add", "eltwise", operation=0), "fire3/add has operation=0, expected 1"),
    (set_fields("fire3/add", "eltwise", coeff=[1.0, -1.0]), "fire3/add has coeff=-1, 1, expected 1"),
]


@pytest.mark.parametrize("legacy", [False, True])
def test_layers_of_another_network_are_refused(path, legacy):
    arrays = random_arrays(ModelSpec("1.0", classes=2).weight_shapes())
    data = encode(arrays, legacy=legacy, eltwise=True)
    assert len(data) > 1 << 20
    path.write_bytes(data)
    assert caffe.read_described(path)[1] == Hints(conv10_padding=0, has_bypass=True)
    net = NetParameter.FromString(data)
    for edit, message in NO_SQUEEZENETS:
        copy = NetParameter()
        copy.CopyFrom(net)
        edit({layer.name: layer for layer in (copy.layers or copy.layer)})
        path.write_bytes(copy.SerializeToString())
        with pytest.raises(WeightsFileError, match=f"its network is not a SqueezeNet: {message}"):
            caffe.read_described(path)
        if "conv10" in message:
            assert caffe.read_described(path, trunk_only=True)[1].has_bypass
    assert_equal(caffe.read(path), arrays)


def with_splits(layers):
    """An edit that adds a Split layer, as Caffe does for a blob that several layers read."""
    relu = layers["relu_conv1"]
    relu.top[0] = "conv1_relu"  # not in place
    for name, layer in layers.items():
        if name == "pool1":
            layer.bottom[0] = "conv1_relu"
    split = layers["data"]
    rename_type("data", "Split")(layers)
    split.bottom.append("images")
    split.top.append("data_1")


@pytest.mark.parametrize("edit", [with_splits, set_fields("fire3/add", "eltwise", coeff=[1.0, 1.0])])
def test_a_squeezenet_may_be_written_in_other_ways(path, edit):
    arrays = random_arrays(ModelSpec("1.0", classes=2).weight_shapes())
    path.write_bytes(encode(arrays, eltwise=True, edit=edit))
    assert caffe.read_described(path)[1] == Hints(conv10_padding=0, has_bypass=True)


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
