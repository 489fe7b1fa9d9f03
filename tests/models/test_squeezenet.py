import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import sqz_keras
from sqz_keras import (
    Metaparameters,
    ModelSpec,
    SqueezeNet,
    SqueezeNetComplexBypass,
    SqueezeNetSimpleBypass,
    SqueezeNetV1_1,
    squeezenet_from_metaparameters,
)
from sqz_keras.applications import squeezenet as applications
from sqz_keras.models.squeezenet import assign, named_arrays

SIX = [(version, bypass) for version in ("1.0", "1.1") for bypass in (None, "simple", "complex")]
SMALL = Metaparameters(base_e=8, incr_e=8, squeeze_ratio=0.5, stem_filters=4, stem_kernel=3)


def small(**options):
    return squeezenet_from_metaparameters(SMALL, **options)


def sample(*shape):
    return np.random.default_rng(0).uniform(-120, 140, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("version", "bypass", "params"),
    [
        ("1.0", None, 1_248_424),
        ("1.0", "simple", 1_248_424),
        ("1.0", "complex", 1_589_672),
        ("1.1", None, 1_235_496),
        ("1.1", "simple", 1_235_496),
        ("1.1", "complex", 1_572_648),
    ],
)
def test_parameter_counts_and_weight_shapes(version, bypass, params):
    model = SqueezeNet(weights=None, version=version, bypass=bypass)
    assert model.count_params() == params
    shapes = {name: array.shape for name, array in named_arrays(model).items()}
    assert shapes == ModelSpec(version, bypass).weight_shapes()


def test_the_variants_are_the_same_builder():
    def layout(model):
        return [(layer.name, layer.output.shape) for layer in model.layers]

    for variant, options in [
        (SqueezeNetV1_1, {"version": "1.1"}),
        (SqueezeNetSimpleBypass, {"bypass": "simple"}),
        (SqueezeNetComplexBypass, {"bypass": "complex"}),
    ]:
        assert layout(variant(weights=None)) == layout(SqueezeNet(weights=None, **options))


def test_output_sizes_are_table_1():
    model = SqueezeNet(weights=None)
    expected = {
        "conv1": (111, 111, 96),
        "pool1": (55, 55, 96),
        "fire2_concat": (55, 55, 128),
        "fire3_concat": (55, 55, 128),
        "fire4_concat": (55, 55, 256),
        "pool4": (27, 27, 256),
        "fire5_concat": (27, 27, 256),
        "fire6_concat": (27, 27, 384),
        "fire7_concat": (27, 27, 384),
        "fire8_concat": (27, 27, 512),
        "pool8": (13, 13, 512),
        "fire9_concat": (13, 13, 512),
        "conv10": (13, 13, 1000),
        "pool10": (1000,),
        "predictions": (1000,),
    }
    assert {name: model.get_layer(name).output.shape[1:] for name in expected} == expected


@pytest.mark.parametrize(
    ("version", "size", "pooled"),
    [("1.0", 227, (55, 27, 13)), ("1.0", 224, (54, 27, 13)), ("1.1", 227, (56, 28, 14)), ("1.1", 224, (55, 27, 13))],
)
def test_pools_are_in_ceil_mode(version, size, pooled):
    model = SqueezeNet(weights=None, version=version, input_shape=(size, size, 3))
    sizes = [layer.output.shape[1] for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert tuple(sizes) == pooled


@pytest.mark.parametrize("size", [6, 7])
def test_pool_against_a_direct_ceil_mode_pool(size):
    """Windows of 3 with stride 2 that may hang over the bottom and right edge, as Caffe's do."""
    from sqz_keras.models.blocks import max_pool

    x = np.random.default_rng(0).uniform(0, 1, (2, size, size, 3)).astype(np.float32)
    out = -(-(size - 3) // 2) + 1
    expected = np.array(
        [
            [[image[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(out)] for i in range(out)]
            for image in x
        ]
    )
    for shape in [(size, size, 3), (None, None, 3)]:
        inputs = keras.Input(shape)
        model = keras.Model(inputs, max_pool(inputs, "pool", "channels_last"))
        np.testing.assert_array_equal(model(x), expected)


@pytest.mark.parametrize(("version", "bypass"), SIX)
def test_every_pooled_map_is_a_relu_output_or_a_sum_of_them(version, bypass):
    """This makes padding with zeros exact. The check is structural: no path reaches a pool without passing a ReLU."""
    model = SqueezeNet(weights=None, version=version, bypass=bypass, input_shape=(48, 48, 3))

    def not_negative(tensor):
        layer = tensor._keras_history.operation
        if isinstance(layer, keras.layers.Conv2D):
            return layer.activation is keras.activations.relu
        passes_on = (keras.layers.Concatenate, keras.layers.Add, keras.layers.MaxPooling2D, keras.layers.ZeroPadding2D)
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        return isinstance(layer, passes_on) and all(not_negative(source) for source in inputs)

    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert len(pools) == 3
    assert all(not_negative(pool.input) for pool in pools)
    values = keras.Model(model.input, [pool.input for pool in pools])(sample(2, 48, 48, 3))
    assert all(float(tf.reduce_min(value)) >= 0 for value in values)


def test_bypasses_stand_where_figure_2_has_them():
    model = SqueezeNetComplexBypass(weights=None)
    names = [layer.name for layer in model.layers]
    assert [name for name in names if name.endswith("_bypass1x1")] == [f"fire{i}_bypass1x1" for i in (2, 4, 6, 8)]
    assert [name for name in names if name.endswith("_add")] == [f"fire{i}_add" for i in range(2, 10)]
    simple = SqueezeNetSimpleBypass(weights=None)
    added = {
        layer.name: [tensor._keras_history.operation.name for tensor in layer.input]
        for layer in simple.layers
        if layer.name.endswith("_add")
    }
    assert added == {
        "fire3_add": ["fire2_concat", "fire3_concat"],
        "fire5_add": ["pool4", "fire5_concat"],
        "fire7_add": ["fire6_concat", "fire7_concat"],
        "fire9_add": ["pool8", "fire9_concat"],
    }


def test_forward_pass_against_numpy():
    """The complex bypass of a small net, written out in numpy."""
    net = Metaparameters(
        base_e=4,
        incr_e=2,
        freq=1,
        squeeze_ratio=0.5,
        num_fire_modules=2,
        stem_filters=3,
        stem_kernel=3,
        pool_after=(1, 3),
    )
    model = squeezenet_from_metaparameters(net, input_shape=(12, 12, 3), classes=5, bypass="complex", conv10_padding=1)
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in named_arrays(model).items()}
    assign(model, weights)
    x = rng.normal(size=(12, 12, 3))

    def conv(x, name, stride=1):
        kernel = weights[f"{name}/kernel"]
        k = kernel.shape[0]
        size = (x.shape[0] - k) // stride + 1
        out = np.array(
            [
                [
                    np.tensordot(x[i * stride : i * stride + k, j * stride : j * stride + k], kernel, 3)
                    for j in range(size)
                ]
                for i in range(size)
            ]
        )
        return np.maximum(out + weights[f"{name}/bias"], 0)

    def pool(x):
        size = -(-(x.shape[0] - 3) // 2) + 1
        return np.array(
            [[x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(size)] for i in range(size)]
        )

    def pad(x):
        return np.pad(x, ((1, 1), (1, 1), (0, 0)))

    expected = pool(conv(x, "conv1", 2))
    for name in ("fire2", "fire3"):
        squeezed = conv(expected, f"{name}_squeeze1x1")
        expanded = [conv(squeezed, f"{name}_expand1x1"), conv(pad(squeezed), f"{name}_expand3x3")]
        expected = np.concatenate(expanded, -1) + conv(expected, f"{name}_bypass1x1")
    averages = conv(pad(pool(expected)), "conv10").mean((0, 1))
    softmax = np.exp(averages - averages.max()) / np.exp(averages - averages.max()).sum()
    np.testing.assert_allclose(model(x[None].astype(np.float32))[0], softmax, atol=1e-5)


def test_signature_is_that_of_keras_applications():
    common = [
        "input_shape",
        "include_top",
        "weights",
        "input_tensor",
        "pooling",
        "classes",
        "classifier_activation",
        "name",
    ]
    for builder in (SqueezeNet, SqueezeNetV1_1, SqueezeNetSimpleBypass, SqueezeNetComplexBypass):
        parameters = inspect.signature(builder).parameters
        assert list(parameters)[:8] == common
        published = builder is not SqueezeNetComplexBypass
        assert parameters["weights"].default == ("imagenet" if published else None)
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters.values())
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(parameters)[8:])
        assert "classifier_activation" in builder.__doc__
    assert list(inspect.signature(SqueezeNet).parameters)[8:] == ["version", "bypass", "dropout_rate", "conv10_padding"]
    theirs = list(inspect.signature(keras.applications.MobileNetV2).parameters)
    assert [name for name in theirs if name != "alpha"] == common


def test_both_faces_export_the_same():
    assert all(getattr(applications, name) is getattr(sqz_keras, name) for name in applications.__all__)
    assert all(hasattr(sqz_keras, name) for name in sqz_keras.__all__)
    builders = set(sqz_keras.applications.__all__) - {"squeezenet"}
    assert "SqueezeNet" in builders
    assert all(getattr(sqz_keras.applications, name) is getattr(sqz_keras, name) for name in builders)


def test_no_top_takes_any_size_and_channel_count():
    model = small(include_top=False, input_shape=(None, None, 5))
    assert model.output.shape == (None, None, None, 32)
    assert model(sample(1, 40, 61, 5)).shape == (1, 2, 3, 32)
    assert SqueezeNet(weights=None, include_top=False).input.shape == (None, None, None, 3)


def test_pooling():
    inputs = sample(2, 40, 40, 3)
    plain = small(include_top=False)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        pooled = small(include_top=False, pooling=pooling)
        assign(pooled, named_arrays(plain))
        np.testing.assert_allclose(pooled(inputs), reduce(plain(inputs), axis=(1, 2)), rtol=1e-5, atol=1e-5)


def test_the_top_takes_unknown_sizes_too():
    model = small(input_shape=(None, None, 3), classes=7)
    assert model(sample(2, 33, 50, 3)).shape == (2, 7)


def test_input_tensor():
    images = keras.Input((64, 64, 3), name="images")
    model = small(input_tensor=keras.layers.Rescaling(2.0)(images), classes=4)
    assert model.input is images
    plain = small(input_shape=(64, 64, 3), classes=4)
    assign(plain, named_arrays(model))
    inputs = sample(1, 64, 64, 3)
    np.testing.assert_allclose(model(inputs), plain(2 * inputs), atol=1e-6)


def test_classifier_activation():
    inputs = sample(2, 40, 40, 3)
    probabilities = small(classes=6, input_shape=(40, 40, 3))
    averages = small(classes=6, input_shape=(40, 40, 3), classifier_activation=None)
    assign(averages, named_arrays(probabilities))
    assert float(tf.reduce_min(averages(inputs))) >= 0
    np.testing.assert_allclose(tf.nn.softmax(averages(inputs)), probabilities(inputs), atol=1e-6)
    assert small(classifier_activation="softplus").layers[-1].activation is keras.activations.softplus


@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid", "log_sigmoid", "sparse_sigmoid"])
def test_what_a_sigmoid_would_give_after_the_relu(activation):
    """The reason why these activations are refused."""
    scores = keras.activations.get(activation)(np.linspace(0, 100, 101, dtype=np.float32))
    least = np.log(0.5) if activation == "log_sigmoid" else 0.5
    assert float(tf.reduce_min(scores)) == pytest.approx(least)


def test_heads_of_ones_own_give_low_scores_too():
    size, images = (24, 24, 3), sample(4, 24, 24, 3)
    averages = small(input_shape=size, classes=8, classifier_activation=None)
    for trunk in (small(input_shape=size, include_top=False, pooling="avg"), averages):
        head = keras.layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.Constant(-1))
        scores = keras.Sequential([trunk, head])(images)
        assert scores.shape == (4, 1) and float(tf.reduce_max(scores)) < 0.5
    assert small(include_top=False, classes=1, classifier_activation="sigmoid").output.shape[-1] == 32  # both unused


def test_where_no_weights_are_published_random_ones_are_the_default():
    assert SqueezeNetComplexBypass(input_shape=(32, 32, 3)).count_params() == 1_589_672
    assert squeezenet_from_metaparameters(SMALL).output.shape == (None, 1000)
    for builder in (SqueezeNetComplexBypass, squeezenet_from_metaparameters):
        assert "No weights are published" in builder.__doc__


def test_every_builder_warns_at_the_callers_line():
    for builder in (SqueezeNet, SqueezeNetV1_1, SqueezeNetSimpleBypass, SqueezeNetComplexBypass):
        with pytest.warns(UserWarning, match="pooling") as warned:
            builder(weights=None, pooling="max", input_shape=(32, 32, 3))
        assert warned[0].filename == __file__


def test_pooling_with_the_top_is_ignored_with_a_warning():
    """keras.applications ignores it too, and scripts pass it."""
    with pytest.warns(UserWarning, match="pooling='avg' has no effect with include_top=True") as warned:
        model = small(pooling="avg", classes=6)
    assert warned[0].filename == __file__
    assert model.layers[-2].name == "pool10" and model.output.shape == (None, 6)


def test_transfer_learning_trains_the_head_alone():
    trunk = small(include_top=False, pooling="avg", input_shape=(32, 32, 3))
    trunk.trainable = False
    model = keras.Sequential([trunk, keras.layers.Dense(3, activation="softmax")])
    before = named_arrays(trunk)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(sample(8, 32, 32, 3), np.arange(8) % 3, verbose=0)
    assert len(model.trainable_variables) == 2
    for name, array in named_arrays(trunk).items():
        np.testing.assert_array_equal(array, before[name])


def test_multi_scale_features_for_detection():
    trunk = SqueezeNet(weights=None, include_top=False)
    outputs = [trunk.get_layer(f"{name}_concat").output for name in ("fire4", "fire8", "fire9")]
    features = keras.Model(trunk.input, outputs)(sample(1, 227, 227, 3))
    assert [tuple(feature.shape) for feature in features] == [(1, 55, 55, 256), (1, 27, 27, 512), (1, 13, 13, 512)]


@pytest.mark.parametrize("bypass", [None, "complex"])
def test_keras_file_and_config_round_trips(tmp_path, bypass):
    model = small(classes=6, input_shape=(40, 40, 3), bypass=bypass, conv10_padding=1)
    inputs = sample(2, 40, 40, 3)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(inputs), model(inputs))
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(inputs), model(inputs))


def test_mixed_precision_ends_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for activation in ("softmax", None):
            model = small(classifier_activation=activation)
            assert model.get_layer("conv1").compute_dtype == "bfloat16"
            assert model.output.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_initialisers_are_the_authors():
    keras.utils.set_random_seed(0)
    arrays = named_arrays(SqueezeNet(weights=None))
    limit = np.sqrt(3 / (7 * 7 * 3))
    assert 0.99 * limit < np.abs(arrays["conv1/kernel"]).max() <= limit
    assert abs(arrays["conv10/kernel"].std() - 0.01) < 1e-4
    assert not any(array.any() for name, array in arrays.items() if name.endswith("/bias"))


def test_smallest_input_is_computed_and_enforced():
    assert SqueezeNet(weights=None, input_shape=(21, 21, 3))(sample(1, 21, 21, 3)).shape == (1, 1000)
    with pytest.raises(ValueError, match=r"at least 21x21.*\(20, 21, 3\)"):
        SqueezeNet(weights=None, input_shape=(20, 21, 3))
    assert SqueezeNetV1_1(weights=None, input_shape=(17, 17, 3))(sample(1, 17, 17, 3)).shape == (1, 1000)
    with pytest.raises(ValueError, match="at least 17x17"):
        SqueezeNetV1_1(weights=None, input_shape=(17, 16, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "2.0"}, "version must be one of"),
        ({"bypass": "dense"}, "bypass must be one of"),
        ({"include_top": "False"}, "include_top must be True or False, got 'False'"),
        ({"pooling": "average", "include_top": False}, "pooling must be None, 'avg' or 'max', got 'average'"),
        ({"classes": 1}, r"at least 2, got 1: the softmax of one class.*Dense\(1, activation='sigmoid'\)"),
        ({"classes": 1, "classifier_activation": None}, "at least 2, got 1"),
        ({"classifier_activation": "sigmoid"}, r"never below 0.*Dense\(classes, activation='sigmoid'\)"),
        ({"classifier_activation": keras.activations.hard_sigmoid}, "no score would be below 0.5"),
        ({"classes": 0}, "classes must be an integer of at least 1"),
        ({"classes": 2.5}, "classes must be"),
        ({"classes": True}, "classes must be an integer"),
        ({"classes": np.array(5)}, "classes must be an integer"),
        ({"dropout_rate": 1.0}, r"dropout_rate must be a number in \[0, 1\)"),
        ({"dropout_rate": np.float32(1)}, "dropout_rate must be"),
        ({"dropout_rate": False}, "dropout_rate must be"),
        ({"dropout_rate": "0.5"}, "dropout_rate must be"),
        ({"conv10_padding": -1}, "conv10_padding.* must be an integer of at least 0"),
        ({"conv10_padding": True}, "conv10_padding.* must be an integer"),
        ({"input_shape": (True, 64, 3)}, "with at least 21x21 pixels"),
        ({"input_shape": (64.0, 64, 3)}, "with at least 21x21 pixels"),
        ({"input_shape": (3, 64, 64)}, r"\(height, width, channels\).* for sides of any length; got \(3, 64, 64\)"),
        ({"input_shape": (64, 64, True)}, "known number of channels"),
        ({"classifier_activation": "nonsense"}, "nonsense"),
        ({"classifier_activation": "softplus", "weights": "imagenet"}, "'softmax' or None"),
        ({"classes": 10, "weights": "imagenet"}, "have 1000 classes, got classes=10.*include_top=False"),
        ({"input_shape": (64, 64)}, r"\(height, width, channels\)"),
        ({"input_shape": (64, 64, None)}, "known number of channels"),
        ({"input_shape": 64}, r"\(height, width, channels\)"),
        ({"input_shape": (227, 227, 1), "weights": "imagenet"}, "need 3 channels, and the input has 1"),
        ({"weights": "imagnet"}, "'imagnet', and no file"),
        ({"weights": "/nowhere/model.keras"}, "no file or folder of this name exists"),
        ({"weights": 3}, "a path; got 3"),
        (
            {"weights": "imagenet", "bypass": "complex"},
            "No ImageNet weights exist for version 1.0 with bypass='complex'",
        ),
        ({"weights": "squeezenet1.1_authors"}, "are of version 1.1"),
        ({"input_tensor": np.zeros((1, 64, 64, 3))}, "Keras tensor.*ndarray"),
        ({"input_tensor": tf.zeros((1, 64, 64, 3))}, "Keras tensor"),
        ({"input_tensor": keras.Input((64, 64, 3), dtype="uint8")}, r"got uint8: give .*keras\.ops\.cast"),
        ({"input_tensor": keras.Input((64, 64, 3)), "input_shape": 64}, r"\(height, width, channels\).*got 64"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SqueezeNet(**({"weights": None} | options))


def test_numpy_numbers_are_numbers(tmp_path):
    model = small(
        input_shape=(np.int64(40), None, np.int32(3)),
        classes=np.int64(6),
        dropout_rate=np.float32(0.25),
        conv10_padding=np.int64(1),
    )
    assert model.get_layer("drop9").rate == 0.25
    assert json.loads(json.dumps(model.get_config())) == json.loads(
        json.dumps(small(input_shape=(40, None, 3), classes=6, dropout_rate=0.25, conv10_padding=1).get_config())
    )
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").output.shape == (None, 6)


@pytest.mark.parametrize("shape", [tf.TensorShape((40, None, 3)), [40, None, 3], np.array((40, 40, 3))])
def test_any_sequence_is_a_shape(shape):
    assert small(input_shape=shape).input_shape[1:] == tuple(shape)


def test_contradicting_input_shape_is_refused():
    with pytest.raises(ValueError, match="is not input_tensor's"):
        small(input_tensor=keras.Input((64, 64, 3)), input_shape=(32, 32, 3))


def test_metaparameters_must_be_metaparameters():
    with pytest.raises(ValueError, match=r"sqz_keras\.Metaparameters, got dict"):
        squeezenet_from_metaparameters({"base_e": 128})
    with pytest.raises(ValueError, match="No ImageNet weights exist for custom metaparameters"):
        small(weights="imagenet")
