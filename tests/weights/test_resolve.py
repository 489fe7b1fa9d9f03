import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import multiprocessing
import re
import shutil
import threading
import warnings
import zipfile

import keras
import numpy as np
import pytest

import sqz_keras
from sqz_keras import Metaparameters, ModelSpec, Preprocessing, SqueezeNet
from sqz_keras.architecture.metaparameters import VERSIONS
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights import download, readers, records, sqz
from sqz_keras.weights.description import Hints, Stated, embed_spec, spec_path, write_spec
from sqz_keras.weights.readers import WeightsFileError, keras_h5
from sqz_keras.weights.resolve import resolve_model
from tests.weights.readers import test_caffe, test_keras_h5, test_npy_folder, test_safetensors_file, test_torch_file
from tests.weights.readers.mutations import random_arrays

SMALL = Metaparameters(base_e=8, incr_e=8, squeeze_ratio=0.5, stem_filters=4, stem_kernel=3)
SPEC = ModelSpec(version=None, metaparameters=SMALL, classes=3, labels=("a", "b", "c"), input_size=40)


@pytest.fixture
def saved(tmp_path):
    """A folder as sqz-train leaves it, and the model's arrays."""
    model = build(SPEC)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    write_spec(tmp_path / "model.weights.h5", SPEC, named_arrays(model))
    return tmp_path, named_arrays(model)


def assert_same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(arrays[name], expected[name])


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "."])
def test_what_is_trained_is_resolved(saved, name):
    folder, arrays = saved
    spec, read = resolve_model(folder / name)
    assert_same(read, arrays)
    assert dataclasses.replace(spec, weights_sha256=None) == SPEC
    inputs = np.ones((1, 40, 40, 3), np.float32)
    model = sqz_keras.load(folder / name)
    np.testing.assert_array_equal(model(inputs), keras.models.load_model(folder / "model.keras")(inputs))


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_file_that_travels_alone_is_described_in_it(tmp_path, name, recwarn):
    spec = dataclasses.replace(
        SPEC,
        bypass="complex",
        metaparameters=dataclasses.replace(SMALL, pool_after=(1, 5, 9)),
        preprocessing=Preprocessing("torch", "shortest_side", 60, antialias=False),
        conv10_padding=2,
    )
    model = build(spec)
    (model.save if name == "model.keras" else model.save_weights)(tmp_path / name)
    embed_spec(tmp_path / name, spec)
    read, arrays = resolve_model(tmp_path / name)
    assert dataclasses.replace(read, weights_sha256=None) == spec
    assert_same(arrays, named_arrays(model))
    model.load_weights(tmp_path / name) if name != "model.keras" else keras.saving.load_model(tmp_path / name)
    assert not [warning for warning in recwarn if "does not say" in str(warning.message)]


@pytest.mark.parametrize(("suffix", "bypass"), [("keras", None), ("h5", "simple"), ("keras", "complex")])
def test_a_model_that_keras_saved_is_described_by_its_config(tmp_path, suffix, bypass):
    net = dataclasses.replace(SMALL, incr_e=5, freq=3, pct_3x3=1 / 3, squeeze_ratio=0.3, pool_after=(1, 5, 9))
    model = sqz_keras.squeezenet_from_metaparameters(net, (48, 48, 1), classes=5, bypass=bypass, conv10_padding=1)
    path = tmp_path / f"own.{suffix}"
    model.save(path)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        loaded = sqz_keras.load(path)
    inputs = np.random.default_rng(0).normal(0, 100, (2, 48, 48, 1)).astype(np.float32)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    built = sqz_keras.squeezenet_from_metaparameters(net, (48, 48, 1), classes=5, bypass=bypass, weights=path)
    np.testing.assert_array_equal(built(inputs), model(inputs))
    other = dataclasses.replace(net, pool_after=(1, 4, 8))
    with pytest.raises(ValueError, match=r"pool_after=\(1, 5, 9\).*pool_after=\(1, 4, 8\)"):
        sqz_keras.squeezenet_from_metaparameters(other, (48, 48, 1), classes=5, bypass=bypass, weights=path)


def test_a_file_with_another_activation_is_refused(tmp_path):
    model = sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, classifier_activation=None)
    path = tmp_path / "own.keras"
    model.save(path)
    built = sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, classifier_activation=None, weights=path)
    assert_same(named_arrays(built), named_arrays(model))
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        assert "conv10/kernel" in resolve_model(path, include_top=False)[1]
    embed_spec(path, SPEC)  # this project's files end in a softmax, and may be built with logits
    sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, classifier_activation=None, weights=path)
    model.save(path)
    for build_it in (
        lambda: sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, weights=path),
        lambda: resolve_model(path),
    ):
        with pytest.raises(ValueError, match="ends in classifier_activation='linear', not in a softmax"):
            build_it()


def changed(model, **by_name):
    """The model with other arguments for some of its layers, and the same weights."""

    def clone(layer):
        return type(layer).from_config(layer.get_config() | by_name.get(layer.name, {}))

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        ("conv1", {"strides": (1, 1)}, r"conv1 has strides=\[1, 1\], expected \[2, 2\]"),
        ("conv1", {"padding": "same"}, "conv1 has padding=same, expected valid"),
        ("fire2_expand3x3", {"dilation_rate": (2, 2)}, "fire2_expand3x3 has dilation_rate"),
        ("fire3_squeeze1x1", {"activation": "elu"}, "fire3_squeeze1x1 has activation=elu, expected relu"),
        ("pool1", {"padding": "same"}, "pool1 has padding=same, expected valid"),
        ("pool1_pad", {"padding": ((1, 0), (1, 0))}, "pool1 must be behind pool1_pad, a ZeroPadding2D of"),
    ],
)
def test_a_config_of_another_network_is_refused(tmp_path, layer, change, message):
    model = sqz_keras.squeezenet_from_metaparameters(SMALL, (48, 48, 3), classes=3)
    path = tmp_path / "own.keras"
    changed(model, **{layer: change}).save(path)
    for include_top in (True, False):
        with pytest.raises(ValueError, match=f"{message}.*keras.saving.load_model"):
            resolve_model(path, include_top=include_top)


@pytest.mark.parametrize(
    ("layer", "sources", "message"),
    [
        ("fire3_concat", ["fire3_expand3x3", "fire3_expand1x1"], "fire3_concat reads fire3_expand3x3, fire3_expand1x1"),
        (
            "fire3_add",
            ["fire3_concat", "fire3_concat"],
            "fire3_add reads fire3_concat, fire3_concat, expected",
        ),
    ],
)
def test_a_config_in_which_a_layer_reads_another_is_refused(tmp_path, layer, sources, message):
    outputs = {}

    def call(made, x, **_):
        x = [outputs[source] for source in sources] if made.name == layer else x
        outputs[made.name] = made(x)
        return outputs[made.name]

    model = sqz_keras.squeezenet_from_metaparameters(SMALL, (48, 48, 3), classes=3, bypass="simple")
    keras.models.clone_model(model, call_function=call).save(tmp_path / "own.keras")
    for include_top in (True, False):
        with pytest.raises(ValueError, match=message):
            resolve_model(tmp_path / "own.keras", include_top=include_top)


def test_a_head_that_is_called_conv10_does_not_matter_to_the_trunk(tmp_path):
    model = sqz_keras.squeezenet_from_metaparameters(SMALL, (48, 48, 3), classes=3)
    changed(model, conv10={"activation": "linear"}).save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match="conv10 has activation=linear, expected relu"):
        resolve_model(tmp_path / "own.keras")
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        resolve_model(tmp_path / "own.keras", include_top=False)


def test_layers_around_the_network_are_refused_but_for_the_trunk(tmp_path):
    """The weights alone would not say which colours this model takes."""
    images = keras.Input((48, 48, 3), name="images")
    flipped = keras.layers.RandomFlip("horizontal")(images)
    path = tmp_path / "own.keras"
    sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, input_tensor=flipped).save(path)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        resolve_model(path)
    scaled = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(images)
    sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, input_tensor=scaled).save(path)
    with pytest.raises(ValueError, match=r"it has the layer scale \(Rescaling\)"):
        resolve_model(path)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        resolve_model(path, include_top=False)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_network_in_another_model_is_described_by_its_config_too(tmp_path, suffix):
    path = tmp_path / f"own{suffix}"
    network = sqz_keras.squeezenet_from_metaparameters(SMALL, (48, 48, 3), classes=3, bypass="simple")
    keras.Sequential([keras.Input((48, 48, 3)), network]).save(path)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        spec, arrays = resolve_model(path)
    assert (spec.bypass, spec.input_size) == ("simple", 48)
    assert_same(arrays, named_arrays(network))
    keras.Sequential([keras.Input((48, 48, 3)), keras.layers.Rescaling(1 / 255, name="scale"), network]).save(path)
    with pytest.raises(ValueError, match=r"it has the layer scale \(Rescaling\).*save the network alone"):
        resolve_model(path)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        resolve_model(path, include_top=False)


@pytest.mark.parametrize("shape", [(48, 48, 3), (48, 64, 3)])
def test_an_input_of_another_name_or_shape_does_not_hide_the_config(tmp_path, shape):
    """A simple bypass leaves no trace in the weights."""
    model = sqz_keras.squeezenet_from_metaparameters(
        SMALL, classes=3, bypass="simple", input_tensor=keras.Input(shape, name="photo")
    )
    model.save(tmp_path / "own.h5")
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        spec, _ = resolve_model(tmp_path / "own.h5")
    assert spec.bypass == "simple"


@pytest.mark.parametrize(
    ("last", "message"),
    [("pool10", "ends in classifier_activation='linear', not in a softmax"), ("conv10", "it ends before pool10")],
)
def test_a_model_that_was_cut_before_its_softmax_is_refused(tmp_path, last, message):
    model = sqz_keras.squeezenet_from_metaparameters(SMALL, (48, 48, 3), classes=3)
    keras.Model(model.input, model.get_layer(last).output).save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match=message):
        resolve_model(tmp_path / "own.keras")


def of_another_project(
    act=None,
    pools=(1, 3, 5),
    first=None,
    last=None,
    conv10="conv10",
    head=None,
    join=None,
    size=48,
    fires=None,
    module=keras,
    **conv1,
):
    """A net with keras-squeezenet's names and fewer filters; each ReLU is a layer of its own."""
    layers, act = module.layers, act or (lambda name: module.layers.Activation("relu", name=name))

    def convolution(x, filters, kernel, name, **options):
        return act(f"relu_{name}")(layers.Conv2D(filters, kernel, name=name, **options)(x))

    images = module.Input((size, size, 3))
    x = first(images) if first else images
    x = convolution(x, 64, 3, "conv1", **{"strides": 2} | conv1)
    x = layers.MaxPooling2D(3, 2)(x) if 1 in pools else x
    for number, squeeze, *expand in fires or [(number, 2, 4, 4) for number in range(2, 6)]:
        squeezed = convolution(x, squeeze, 1, f"fire{number}_squeeze1x1")
        wide = convolution(squeezed, expand[1], 3, f"fire{number}_expand3x3", padding="same")
        narrow = convolution(squeezed, expand[0], 1, f"fire{number}_expand1x1")
        x = (join or layers.Concatenate)(name=f"fire{number}_concat")([narrow, wide])
        x = layers.MaxPooling2D(3, 2)(x) if number in pools else x
    x = layers.Dropout(0.5)(x)
    x = convolution(last(x) if last else x, 3, 1, conv10)
    x = (head or layers.GlobalAveragePooling2D())(x)
    return module.Model(images, layers.Activation("softmax", name="loss")(x))


def linear(*names):
    """A maker of ReLUs, except that layers with these names change nothing."""
    return lambda name: keras.layers.Activation("linear" if name in names else "relu", name=name)


@pytest.mark.parametrize("net", ["own", "other"])
def test_a_damaged_config_is_refused_or_describes_nothing(monkeypatch, net):
    model = of_another_project()
    if net == "own":
        model = sqz_keras.squeezenet_from_metaparameters(SMALL, (48, 48, 3), weights=None, classes=3)
    text, random = model.to_json(), np.random.default_rng(0)
    values = [match.span() for match in re.finditer(r'"[^"]*"|[0-9]+|null|true|false', text)]
    monkeypatch.setattr(keras_h5, "_read", lambda *_: ({}, None, text, []))
    assert isinstance(keras_h5.read_described("net.h5")[1], Stated if net == "own" else Hints)
    for start, end in random.permutation(values)[:400]:
        damaged = text[:start] + str(random.choice(["7", '"x"', "null", "[]", "{}", "-1", "[[1, 2], 3]"])) + text[end:]
        monkeypatch.setattr(keras_h5, "_read", lambda *_, damaged=damaged: ({}, None, damaged, []))
        with contextlib.suppress(WeightsFileError), warnings.catch_warnings(action="ignore"):
            keras_h5.read_described("net.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": lambda name: keras.layers.LeakyReLU(name=name)}, r"it has the layer relu_conv1 \(LeakyReLU\)"),
        (
            {"act": lambda name: keras.layers.Activation("elu", name=name)},
            "relu_conv1 has activation=elu, expected relu",
        ),
        ({"act": lambda name: keras.layers.ReLU(6, name=name)}, "relu_conv1 has max_value=6.*, expected None"),
        ({"act": linear("relu_fire3_expand1x1")}, "fire3_expand1x1 has no ReLU behind it"),
        ({"padding": "same"}, "conv1 has padding=same, expected valid"),
        ({"strides": 1}, r"conv1 has strides=\[1, 1\], expected \[2, 2\]"),
        ({"pools": (1, 4)}, r"it has max pools behind \[1, 4\], expected \[1, 3, 5\]"),
        ({"first": keras.layers.Rescaling(1 / 255, name="scale")}, r"it has the layer scale \(Rescaling\)"),
        ({"first": keras.layers.ZeroPadding2D(1, name="pad")}, "pad pads something other than max pools in ceil mode"),
        ({"last": keras.layers.ZeroPadding2D(1, name="pad")}, "pad pads something other than max pools in ceil mode"),
        ({"act": linear("relu_conv10")}, "conv10 has no ReLU behind it"),
        ({"act": linear("relu_new"), "conv10": "new"}, "new has no ReLU behind it"),
        ({"last": keras.layers.GlobalAveragePooling2D(keepdims=True, name="mean")}, "mean averages what conv10 reads"),
        (
            {"join": lambda name: lambda maps: keras.layers.Concatenate(name=name)(maps[::-1])},
            "fire2_concat joins fire2_expand3x3, fire2_expand1x1, expected expand1x1 and expand3x3",
        ),
        ({"head": keras.layers.Flatten()}, "it has 0 averages behind conv10, expected one"),
        (
            {"head": lambda x: keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(x))},
            "loss is a second softmax",
        ),
        ({"head": keras.layers.GlobalMaxPooling2D(name="max")}, r"it has the layer max \(GlobalMaxPooling2D\)"),
    ],
)
def test_a_config_with_the_names_of_another_project_is_checked(tmp_path, change, message):
    path = tmp_path / "own.h5"
    of_another_project().save(path)
    assert readers.read_described(path)[1] == Hints(48, conv10_padding=0, has_bypass=False)
    of_another_project(**change).save(path)
    with pytest.raises(ValueError, match=f"its network is not a SqueezeNet: {message}.*keras.saving.load_model"):
        readers.read_described(path)
    assert "conv1/kernel" in readers.read_arrays(path)
    if change.keys() & {"first", "last", "head", "conv10"} or "conv10" in message:
        assert readers.read_described(path, trunk_only=True)[1].has_bypass is False


def zeros_behind_conv1(name):
    """A ReLU; conv1's is followed by a dropout, and by zeros that turn the pool after it into one in ceil mode."""
    relu = keras.layers.ReLU(name=name)
    zeros, dropout = keras.layers.ZeroPadding2D(((0, 1), (0, 1))), keras.layers.Dropout(0.5)
    return (lambda x: zeros(dropout(relu(x)))) if name == "relu_conv1" else relu


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"conv10": "new"},
        {"act": zeros_behind_conv1},
        {"act": lambda name: lambda x: keras.layers.ReLU(name=name)(keras.layers.Dropout(0.5)(x))},
        {
            "act": lambda name: (lambda x: x) if "expand" in name else keras.layers.ReLU(name=name),
            "join": lambda name: lambda maps: keras.layers.ReLU()(keras.layers.Concatenate(name=name)(maps)),
        },
    ],
    ids=["as is", "new head", "ceil mode", "dropout between", "ReLU behind the concatenation"],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_network_of_another_project_may_be_written_in_other_ways(tmp_path, change, is_nested):
    model = of_another_project(**change)
    if is_nested:
        trunk = keras.Model(model.input, model.get_layer(change.get("conv10", "conv10")).output, name="inner")
        model = keras.Sequential([trunk, keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D()])
    model.save(tmp_path / "own.keras")
    assert readers.read_described(tmp_path / "own.keras")[1] == Hints(48, conv10_padding=0, has_bypass=False)


def test_a_config_of_keras_2_is_read_likewise(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="the compression extra is not installed")
    for act, refusal in (("relu", None), ("linear", "conv1 has no ReLU behind it")):
        path = tmp_path / f"{act}.h5"
        of_another_project(lambda name, act=act: tf_keras.layers.Activation(act, name=name), module=tf_keras).save(path)
        with pytest.raises(ValueError, match=refusal) if refusal else contextlib.nullcontext():
            assert readers.read_described(path)[1] == Hints(48, conv10_padding=0, has_bypass=False)


@pytest.mark.parametrize(("size", "expected", "resize_to"), [(64, 64, 64), (256, 256, 256), (None, 227, 256)])
def test_the_input_of_another_projects_network_is_read(tmp_path, size, expected, resize_to):
    fires = [dataclasses.astuple(fire) for fire in VERSIONS["1.1"].fire_modules()]
    path = tmp_path / "own.h5"
    of_another_project(size=size, fires=fires).save(path)
    with pytest.warns(UserWarning, match=f"how images are prepared, .* resized to {resize_to} pixels"):
        spec, _ = resolve_model(path)
    assert (spec.version, spec.bypass, spec.input_size) == ("1.1", None, expected)
    assert spec.preprocessing == Preprocessing(resize_to=resize_to, antialias=False)
    with pytest.raises(ValueError, match=r"bypass=None, and the model is of version 1\.1 with bypass='simple'"):
        SqueezeNet(weights=path, classes=3, version="1.1", bypass="simple")


@pytest.mark.parametrize(("size", "differ"), [(48, False), (50, True), (None, True)])
def test_pools_of_another_project_that_round_down_are_warned_about(tmp_path, recwarn, size, differ):
    of_another_project(size=size).save(tmp_path / "own.h5")
    recwarn.clear()
    readers.read_described(tmp_path / "own.h5")
    assert any("its max pools round down" in str(warning.message) for warning in recwarn) == differ


def test_weights_alone_are_warned_about(tmp_path):
    build(SPEC).save_weights(tmp_path / "own.weights.h5")
    with pytest.warns(UserWarning, match="does not say which network it holds"):
        sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, weights=tmp_path / "own.weights.h5")


@pytest.mark.parametrize(
    ("names", "bypass", "padding"),
    [((), None, 0), (("fire3_add",), "simple", 0), (("conv10_pad",), None, 1), (("add_2",), "simple", 0)],
)
def test_layers_without_weights_tell_the_bypass_and_the_padding(tmp_path, names, bypass, padding):
    """The file is a legacy one with weights alone."""

    def edit(file):
        file.attrs["layer_names"] = [*file.attrs["layer_names"], *(name.encode() for name in names)]
        for name in names:
            file.create_group(name).attrs["weight_names"] = np.zeros(0)

    path = tmp_path / "net.h5"
    path.write_bytes(test_keras_h5.legacy(random_arrays(ModelSpec("1.1", classes=4).weight_shapes()), edit))
    with pytest.warns(UserWarning, match=f"does not say which network it holds: .* conv10_padding={padding}"):
        spec, _ = resolve_model(path)
    assert (spec.bypass, spec.conv10_padding) == (bypass, padding)


def test_a_broken_description_inside_is_refused(tmp_path):
    build(SPEC).save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras", "a") as archive:
        archive.writestr("model.spec.json", b"[" * 100_000)
    with pytest.raises(WeightsFileError, match="not one of this project"):
        resolve_model(tmp_path / "own.keras")


def test_builders_take_paths(saved):
    folder, arrays = saved
    model = sqz_keras.squeezenet_from_metaparameters(SMALL, classes=3, weights=folder / "model.keras")
    assert_same(named_arrays(model), arrays)
    trunk = sqz_keras.squeezenet_from_metaparameters(SMALL, include_top=False, weights=str(folder))
    assert_same(named_arrays(trunk), {name: arrays[name] for name in named_arrays(trunk)})
    with pytest.raises(ValueError, match=r"have 3 classes, got classes=1000\. Give classes=3; for other classes take"):
        sqz_keras.squeezenet_from_metaparameters(SMALL, weights=folder)
    with pytest.raises(ValueError, match="the model is of version 1"):
        SqueezeNet(weights=folder, classes=3)


def test_a_trunk_saved_alone_is_loaded(tmp_path):
    trunk = sqz_keras.squeezenet_from_metaparameters(SMALL, include_top=False)
    trunk.save_weights(tmp_path / "trunk.weights.h5")
    again = sqz_keras.squeezenet_from_metaparameters(SMALL, include_top=False, weights=tmp_path / "trunk.weights.h5")
    assert_same(named_arrays(again), named_arrays(trunk))
    with (
        pytest.warns(UserWarning, match="does not say which network"),
        pytest.raises(ValueError, match=r"missing.*conv10/kernel.*include_top"),
    ):
        sqz_keras.squeezenet_from_metaparameters(SMALL, weights=tmp_path / "trunk.weights.h5")


def test_swapped_tensors_are_noticed(saved):
    """Two tensors of the same shape are swapped: Keras loads such a file without complaint."""
    folder, _ = saved
    model = build(SPEC, resolve_model(folder)[1])
    one, other = model.get_layer("fire2_expand3x3"), model.get_layer("fire3_expand3x3")
    first, second = one.get_weights(), other.get_weights()
    one.set_weights(second), other.set_weights(first)
    model.save_weights(folder / "model.weights.h5")
    with pytest.raises(WeightsFileError, match=r"tensors are not those.*fire2_expand3x3/kernel"):
        resolve_model(folder / "model.weights.h5")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model_spec": {}, "tensors": []}',
        b'{"model_spec": {"classes": "x"}, "tensors": {}}',
        b"\xff",
    ],
)
def test_a_broken_description_is_refused(saved, content):
    folder, _ = saved
    (folder / "model.spec.json").write_bytes(content)
    with pytest.raises(WeightsFileError, match="not a description"):
        resolve_model(folder)


def test_a_huge_description_is_refused(saved):
    folder, _ = saved
    with open(folder / "model.spec.json", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(WeightsFileError, match="more than 1048576 bytes"):
        resolve_model(folder)


def test_a_renamed_file_is_refused_with_its_own_suffix(tmp_path, monkeypatch):
    arrays, writer = random_arrays(), test_torch_file.Writer(monkeypatch)
    state = test_torch_file.state_dict(arrays)
    for suffix, actual, content in [
        (".safetensors", ".pth", writer.zipped(state)),
        (".pkl", ".pth", writer.legacy(state)),
        (".bin", ".safetensors", test_safetensors_file.build(state)),
        (".onnx", ".sqz", sqz.encode(SPEC, random_arrays(SPEC.weight_shapes()))),
        (".sqz", ".h5", test_keras_h5.legacy(arrays)),
        (".pth", ".keras", test_keras_h5.archived(test_keras_h5.keras3(arrays))),
    ]:
        path = tmp_path / f"net{suffix}"
        path.write_bytes(content)
        with pytest.raises(WeightsFileError, match=rf"by its content it is a {actual} file\. Give it this suffix"):
            resolve_model(path)


def test_files_without_a_description(tmp_path):
    for version, bypass in [("1.0", None), ("1.1", "complex")]:
        path = tmp_path / f"{version}.weights.h5"
        SqueezeNet(weights=None, version=version, bypass=bypass, classes=7).save_weights(path)
        with pytest.warns(UserWarning, match="does not say which network"):
            spec, _ = resolve_model(path)
        assert (spec.version, spec.bypass, spec.classes) == (version, bypass, 7)
    with pytest.warns(UserWarning, match="bypass='simple'"):
        spec, _ = resolve_model(tmp_path / "1.0.weights.h5", bypass="simple")
    assert spec.bypass == "simple"
    with (
        pytest.warns(UserWarning, match="taken as version 1"),
        pytest.raises(ValueError, match=r"holds version 1\.0|do not fit"),
    ):
        resolve_model(tmp_path / "1.0.weights.h5", version="1.1")


@pytest.mark.parametrize("name", ["MODEL.KERAS", "MODEL.WEIGHTS.H5", "Model.Weights.h5"])
def test_suffixes_in_upper_case_find_the_description(saved, name):
    folder, arrays = saved
    source = "model.keras" if name.endswith("KERAS") else "model.weights.h5"
    shutil.copy(folder / source, folder / name)
    shutil.copy(folder / "model.spec.json", folder / f"{name.partition('.')[0]}.spec.json")
    spec, read = resolve_model(folder / name)
    assert_same(read, arrays)
    assert dataclasses.replace(spec, weights_sha256=None) == SPEC


@pytest.mark.parametrize("suffix", [".pth", ".PTH", ".Pt", ".pth.tar", ".ckpt", ".bin", ".safetensors", ".SAFETENSORS"])
def test_torch_files_are_prepared_as_torchvision_does(tmp_path, monkeypatch, suffix):
    spec = ModelSpec("1.1", classes=5)
    arrays = {name: np.full(shape, 0.5, np.float32) for name, shape in spec.weight_shapes().items()}
    path = tmp_path / f"net{suffix}"
    state = test_torch_file.state_dict(arrays)
    zipped = suffix.lower() != ".safetensors"
    path.write_bytes(
        test_torch_file.Writer(monkeypatch).zipped(state) if zipped else test_safetensors_file.build(state)
    )
    read, _ = resolve_model(path)
    assert (read.version, read.classes, read.input_size) == ("1.1", 5, 224)
    assert read.preprocessing == Preprocessing("torch", "shortest_side", 256)


def test_heads_of_other_names(tmp_path):
    """A single candidate is read as conv10; several are refused, except for a model without the top."""
    spec = ModelSpec("1.0", classes=4)
    arrays = random_arrays(spec.weight_shapes())
    head = {part: arrays.pop(f"conv10/{part}") for part in ("kernel", "bias")}
    named = {f"conv10-new/{part}": array for part, array in head.items()}
    path = tmp_path / "net.caffemodel"
    path.write_bytes(test_caffe.encode(arrays | named, rename=str))
    model = SqueezeNet(weights=path, classes=4)
    assert_same(named_arrays(model), arrays | {f"conv10/{part}": array for part, array in head.items()})
    assert_same(named_arrays(SqueezeNet(weights=path, include_top=False)), arrays)
    path.write_bytes(test_caffe.encode(arrays | named | {f"other/{part}": a for part, a in head.items()}, rename=str))
    assert_same(named_arrays(SqueezeNet(weights=path, include_top=False)), arrays)
    assert_same(resolve_model(path, include_top=False)[1], arrays)
    with pytest.raises(WeightsFileError, match="could be its head"):
        SqueezeNet(weights=path, classes=4)


def test_what_a_caffemodel_says_of_its_network_is_read(tmp_path, recwarn):
    """The nets are fine-tuned, so they are not those of a record."""
    path, spec = tmp_path / "tuned.caffemodel", ModelSpec("1.0", classes=4)
    arrays = random_arrays(spec.weight_shapes())
    for bypass, padding in ((None, 0), (None, 1), ("simple", 1)):
        path.write_bytes(test_caffe.encode(arrays, pad=padding, eltwise=bypass is not None))
        read, _ = resolve_model(path)
        assert (read.version, read.bypass, read.conv10_padding) == ("1.0", bypass, padding)
        model = SqueezeNet(weights=path, classes=4, bypass=bypass)
        assert model.get_layer("conv10").output.shape[1] == 13 + 2 * padding
    with pytest.raises(ValueError, match=r"bypass='simple', and the model is of version 1\.0 with bypass=None"):
        SqueezeNet(weights=path, classes=4)
    arrays = random_arrays(dataclasses.replace(spec, bypass="complex").weight_shapes())
    path.write_bytes(test_caffe.encode(arrays, eltwise=True))
    assert resolve_model(path)[0].bypass == "complex"
    assert not [warning for warning in recwarn if "does not say" in str(warning.message)]


def test_a_folder_of_arrays_does_not_say_how_images_are_prepared(tmp_path):
    arrays = random_arrays(ModelSpec("1.1", classes=4).weight_shapes())
    for name in arrays:
        test_npy_folder.put(tmp_path, name, arrays)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        assert resolve_model(tmp_path)[0].version == "1.1"


@pytest.mark.parametrize("legacy", [False, True])
def test_how_a_caffemodel_prepared_its_images_is_read(tmp_path, recwarn, legacy):
    path, arrays = tmp_path / "tuned.caffemodel", random_arrays(ModelSpec("1.0", classes=4).weight_shapes())

    def resolve(**fields):
        edit = test_caffe.set_fields("data", "transform", **fields)
        path.write_bytes(test_caffe.encode(arrays, legacy=legacy, edit=edit))
        return resolve_model(path)[0]

    for means in ([104, 117, 123], [103.939, 116.779, 123.68]):
        spec = resolve(mean_value=means, crop_size=96, mirror=True)
        assert (spec.preprocessing.mode, spec.preprocessing.resize_to, spec.input_size) == ("authors", 96, 96)
    assert not [warning for warning in recwarn if "does not say" in str(warning.message)]
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        assert resolve(mean_file="/data/mean.binaryproto", scale=1).input_size == 227
    for fields, text in [
        ({"mean_value": [104, 117, 123], "scale": 1 / 255}, r"mean_value=104, 117, 123 and scale=0\.00392157"),
        ({"mean_value": [127.5]}, r"mean_value=127\.5 and scale=1"),
        ({"crop_size": 227}, "mean_value=none and scale=1"),
    ]:
        with pytest.raises(WeightsFileError, match=f"trained on images with {text}, .* prepare the images yourself"):
            resolve(**fields)
        SqueezeNet(weights=path, classes=4)


@pytest.mark.parametrize(("version", "padding"), [("1.0", 1), ("1.1", 0)])
def test_a_caffemodel_of_weights_alone_is_taken_as_the_released_ones_are(tmp_path, version, padding):
    path = tmp_path / "tuned.caffemodel"
    arrays = random_arrays(ModelSpec(version, classes=4).weight_shapes())
    path.write_bytes(test_caffe.encode(arrays, weights_alone=True))
    for read in (resolve_model, lambda path: SqueezeNet(weights=path, classes=4, version=version)):
        with pytest.warns(UserWarning, match=f"does not say which network .* conv10_padding={padding},"):
            result = read(path)
    with pytest.warns(UserWarning, match="bypass='simple'"):
        assert resolve_model(path, bypass="simple")[0].bypass == "simple"
    assert result.get_layer("conv10").output.shape[1] == ModelSpec(version).layers()[-2].size + 2 * padding


@pytest.mark.parametrize("options", [{"version": 1.1}, {"version": "v1.1"}, {"bypass": "none"}, {"bypass": False}])
def test_other_architectures_are_refused(options):
    with pytest.raises(ValueError, match=r"version must be None or one of \('1\.0', '1\.1'\), and bypass one of"):
        resolve_model("imagenet", **options)


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"squeezenet1\.1_authors.*no file or folder of this name"):
        resolve_model("squeezenet")
    for weights in (lambda: resolve_model(""), lambda: SqueezeNet(weights="")):
        with pytest.raises(ValueError, match="no file or folder of this name exists"):
            weights()
    for model in (None, 3):
        with pytest.raises(ValueError, match=rf"a record's name or a path, got {type(model).__name__}"):
            sqz_keras.load(model)
    with pytest.raises(ValueError, match=r"holds version 1\.1"):
        resolve_model("squeezenet1.1_authors", version="1.0")
    with pytest.raises(ValueError, match="No pretrained weights are called"):
        sqz_keras.get_record("squeezenet")


def test_every_record_describes_its_model():
    for record in records.RECORDS:
        assert record.spec.classes == 1000
        assert record.spec.labels
        assert record.spec.count_params() in (1_248_424, 1_235_496)
        assert (record.url is None) == (record.hash_kind is None)
        assert record.url is None or record.url.startswith("https://")
        assert len(record.digest or "") in {"sha256": [64], "git_blob_sha1": [40], "sha256_prefix": [8]}.get(
            record.hash_kind, [0]
        )
    assert set(records.IMAGENET.values()) <= set(records.list_records())
    for (version, bypass), name in records.IMAGENET.items():
        spec = records.get_record(name).spec
        assert (spec.version, spec.bypass) == (version, bypass)


def test_each_kind_of_hash():
    record, content = records.RECORDS[0], b"weights"
    for kind, digest in [
        ("sha256", hashlib.sha256(content).hexdigest()),
        ("sha256_prefix", hashlib.sha256(content).hexdigest()[:8]),
        ("git_blob_sha1", hashlib.sha1(b"blob 7\x00weights").hexdigest()),
    ]:
        changed = dataclasses.replace(record, hash_kind=kind, digest=digest)
        assert changed.verifies(content)
        assert not changed.verifies(b"Weights")


@pytest.fixture
def server(tmp_path):
    """A web server on 127.0.0.1 with the files of `tmp_path / "www"`."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield tmp_path / "www", f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def downloadable(server, monkeypatch, tmp_path):
    """A record whose file is on the test's server, and an empty cache."""
    folder, url = server
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    (folder / "a.net").write_bytes(b"weights" * 1000)
    digest = hashlib.sha256(b"weights" * 1000).hexdigest()
    return dataclasses.replace(
        records.RECORDS[0], filename="a.net", url=f"{url}/a.net", digest=digest, megabytes=0.007
    ), folder / "a.net"


def test_download_is_cached_and_works_offline(downloadable, capsys):
    record, source = downloadable
    path = download.fetch(record)
    assert path.read_bytes() == source.read_bytes()
    assert "Downloading 0.007 MB from http://127.0.0.1" in capsys.readouterr().err
    source.unlink()
    assert download.fetch(record) == path
    assert capsys.readouterr().err == ""
    assert [file.name for file in path.parent.iterdir()] == ["a.net"]


def test_four_processes_download_at_once(downloadable):
    """They used to write to the same temporary file, and all failed."""
    record, source = downloadable
    source.write_bytes(b"weights" * 300_000)
    record = dataclasses.replace(record, digest=hashlib.sha256(source.read_bytes()).hexdigest(), megabytes=2.1)
    with concurrent.futures.ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        paths = list(pool.map(download.fetch, [record] * 4))
    assert paths == [download.cache_path(record)] * 4
    assert [file.name for file in paths[0].parent.iterdir()] == ["a.net"]
    assert paths[0].read_bytes() == source.read_bytes()


def test_a_damaged_cache_is_fetched_again(downloadable):
    record, source = downloadable
    path = download.fetch(record)
    path.write_bytes(b"Weights" * 1000)
    assert download.fetch(record).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("content", [b"", b"Weights" * 1000, b"weights" * 999, b"weights" * 10_000])
def test_another_file_is_refused_and_deleted(downloadable, content):
    record, source = downloadable
    source.write_bytes(content)
    with pytest.raises(OSError, match=r"a\.net to .*(the downloaded file is not the one|more than twice)"):
        download.fetch(record)
    assert list(download.cache_path(record).parent.iterdir()) == []


def test_a_failed_download_says_what_to_do(downloadable):
    record, source = downloadable
    source.unlink()
    with pytest.raises(OSError) as error:
        download.fetch(record)
    for part in (record.url, str(download.cache_path(record)), "404", "put the file at"):
        assert part in str(error.value)


def test_a_record_without_a_url_asks_for_a_path():
    with pytest.raises(OSError, match="Give the path of your copy"):
        resolve_model("squeezenet1.1_gluon")


def test_a_changed_value_is_refused_where_a_record_has_a_hash(test_data, monkeypatch, tmp_path):
    """The record's file in the cache has one bit of a codebook changed, and would still decode."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    record = dataclasses.replace(records.RECORDS[0], url="http://127.0.0.1:9/none")
    path = download.cache_path(record)
    path.parent.mkdir(parents=True)
    content = bytearray((test_data / "weights" / "deep_compression" / record.filename).read_bytes())
    content[110] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="Could not download"):
        download.fetch(record)
    assert not path.exists()


def test_the_description_beside_the_weights(saved):
    folder, arrays = saved
    form = json.loads((folder / "model.spec.json").read_text())
    assert form["model_spec"]["labels"] == ["a", "b", "c"]
    assert form["tensors"].keys() == arrays.keys()
    assert form["tensors"]["conv1/kernel"]["shape"] == [3, 3, 3, 4]
    assert [path.name for path in folder.iterdir() if "tmp" in path.name] == []
    shutil.copy(folder / "model.weights.h5", folder / "copy.weights.h5")
    assert spec_path(folder / "copy.weights.h5").name == "copy.spec.json"
