"""The one list of a net's layers matches the Keras model and what is known about the released nets."""

import keras
import pytest

from sqz_keras import Metaparameters, ModelSpec
from sqz_keras.architecture.layers import BYPASSES, IMAGES
from sqz_keras.models import squeezenet

OTHER = Metaparameters(num_fire_modules=3, base_e=8, incr_e=8, freq=1, stem_filters=8, stem_kernel=5, pool_after=(2, 3))
WITHOUT_POOLS = Metaparameters(num_fire_modules=2, base_e=8, incr_e=0, stem_filters=8, stem_kernel=3, pool_after=())
SPECS = [
    *(ModelSpec(version, bypass, input_size=64) for version in ("1.0", "1.1") for bypass in BYPASSES),
    ModelSpec("1.0", conv10_padding=1),
    ModelSpec("1.0", "complex", input_size=224, channels=1),
    ModelSpec(None, "complex", OTHER, classes=7, input_size=50),
    *(ModelSpec(None, bypass, WITHOUT_POOLS, classes=2, input_size=9) for bypass in BYPASSES),
]
KINDS = {
    keras.layers.Conv2D: "convolution",
    keras.layers.MaxPooling2D: "max pool",
    keras.layers.Concatenate: "concatenation",
    keras.layers.Add: "addition",
    keras.layers.GlobalAveragePooling2D: "average",
}


def source_of(tensor):
    """Name of the layer that a Keras tensor comes from, skipping layers that the list does not have."""
    layer = tensor._keras_history.operation
    if isinstance(layer, keras.layers.InputLayer):
        return IMAGES
    return layer.name if type(layer) in KINDS else source_of(layer.input)


def padding_of(layer):
    """Zeros on each side of a convolution's input, from its own padding or from a layer before it."""
    if layer.padding == "same":
        return layer.kernel_size[0] // 2
    before = layer.input._keras_history.operation
    return before.padding[0][0] if isinstance(before, keras.layers.ZeroPadding2D) else 0


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_keras_model_has_these_layers(spec):
    model = squeezenet.build(spec)
    built = [layer for layer in model.layers if type(layer) in KINDS]
    listed = {layer.name: layer for layer in spec.layers()}
    assert sorted(layer.name for layer in built) == sorted(listed)
    for layer in built:
        expected = listed[layer.name]
        assert KINDS[type(layer)] == expected.kind, layer.name
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        assert tuple(source_of(tensor) for tensor in inputs) == expected.inputs
        assert layer.count_params() == expected.parameters
        if expected.kind == "average":
            assert layer.output.shape[1:] == (expected.channels,)
            continue
        assert layer.output.shape[1:] == (expected.size, expected.size, expected.channels), layer.name
        if expected.kind == "convolution":
            assert (layer.kernel_size[0], layer.strides[0], padding_of(layer)) == (
                expected.kernel,
                expected.stride,
                expected.padding,
            )
            assert layer.kernel.shape == expected.kernel_shape
        if expected.kind == "max pool":
            assert (layer.pool_size[0], layer.strides[0]) == (expected.kernel, expected.stride)
    assert spec.count_params() == model.count_params()
    assert list(squeezenet.named_arrays(model)) == list(spec.weight_shapes()), "the order of the weights in files"


def test_layers_come_after_what_they_read():
    for spec in SPECS:
        seen = {IMAGES}
        for layer in spec.layers():
            assert set(layer.inputs) <= seen
            seen.add(layer.name)


def test_a_fire_module_with_a_complex_bypass():
    layers = [layer for layer in ModelSpec("1.0", "complex").layers() if layer.block == "fire2"]
    assert [(layer.name, layer.kind, layer.inputs, layer.channels) for layer in layers] == [
        ("fire2_squeeze1x1", "convolution", ("pool1",), 16),
        ("fire2_expand1x1", "convolution", ("fire2_squeeze1x1",), 64),
        ("fire2_expand3x3", "convolution", ("fire2_squeeze1x1",), 64),
        ("fire2_concat", "concatenation", ("fire2_expand1x1", "fire2_expand3x3"), 128),
        ("fire2_bypass1x1", "convolution", ("pool1",), 128),
        ("fire2_add", "addition", ("fire2_bypass1x1", "fire2_concat"), 128),
    ]


def test_unknown_bypasses_are_refused():
    with pytest.raises(ValueError, match="bypass must be one of"):
        ModelSpec("1.0", "dense")
