import dataclasses
import json

import numpy as np
import pytest

from sqz_keras import Metaparameters, ModelSpec, Preprocessing
from sqz_keras.architecture.spec import hash_arrays, imagenet_classes, imagenet_wnids

# Parameters of each layer group in the paper's Table 1, before pruning.
TABLE_1_PARAMS = {
    "conv1": 14_208,
    "fire2": 11_920,
    "fire3": 12_432,
    "fire4": 45_344,
    "fire5": 49_440,
    "fire6": 104_880,
    "fire7": 111_024,
    "fire8": 188_992,
    "fire9": 197_184,
    "conv10": 513_000,
}


def test_parameters_of_every_layer_are_table_1():
    counts = dict.fromkeys(TABLE_1_PARAMS, 0)
    for name, shape in ModelSpec().weight_shapes().items():
        counts[name.split("/")[0].split("_")[0]] += int(np.prod(shape))
    assert counts == TABLE_1_PARAMS


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
def test_count_params(version, bypass, params):
    assert ModelSpec(version, bypass).count_params() == params


def test_json_round_trip():
    custom = ModelSpec(
        version=None,
        bypass="complex",
        metaparameters=Metaparameters(base_e=16, incr_e=8, freq=3, pool_after=(1, 2)),
        classes=3,
        labels=("ä", "b", "c"),
        input_size=48,
        preprocessing=Preprocessing("torch", "shortest_side", 50, True),
        conv10_padding=1,
        weights_sha256="00ff",
    )
    imagenet = ModelSpec(labels=imagenet_wnids())
    for spec in (custom, imagenet, ModelSpec("1.1", "simple")):
        assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert imagenet.to_json()["labels"] == "imagenet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"unknown fields \['colour'\]"),
        ({"classes": "1000"}, "classes must be"),
        ({"classes": True}, "classes must be"),
        ({"version": "2.0"}, "must be one of"),
        ({"labels": ["a"]}, "1000 different names"),
        ({"labels": [1] * 1000}, "labels must be"),
        ({"metaparameters": {"freq": 1}}, "not version 1.0's"),
        ({"metaparameters": 3}, "metaparameters must be"),
        ({"preprocessing": {"mode": "bgr"}}, "mode must be one of"),
        ({"preprocessing": {"resize": None}}, "resize must be"),
        ({"input_size": 300}, "resize_to >= input_size"),
        ({"conv10_padding": -1}, "conv10_padding"),
        ({"conv10_padding": 10**9}, "conv10_padding must be an integer of at least 0 and at most 16"),
        ({"input_size": 4097}, "input_size must be an integer of at least 1 and at most 4,096"),
        ({"preprocessing": {"resize_to": 10**6}}, "resize_to must be an integer of at least 1 and at most 4,096"),
        (
            {"classes": 2, "labels": ["a", " "]},
            "labels must be names without control characters, and not blank; got ' '",
        ),
        ({"classes": 2, "labels": ["a", "\x1b[2J"]}, "labels must be names without control characters"),
        ({"classes": 2, "labels": ["a", "caf\udce9"]}, r"got 'caf\\udce9'\. Name its class, in UTF-8"),
    ],
)
def test_bad_json_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec.from_json(ModelSpec().to_json() | change)


def test_json_that_is_no_object_is_refused():
    with pytest.raises(ValueError, match="expected a JSON object, got list"):
        ModelSpec.from_json([])


def test_custom_metaparameters_need_no_version():
    with pytest.raises(ValueError, match="needs metaparameters"):
        ModelSpec(version=None)
    with pytest.raises(ValueError, match="as many input as output channels"):
        ModelSpec(version=None, bypass="simple", metaparameters=Metaparameters(freq=1))


def test_numpy_numbers_become_plain_ones():
    sizes = {"classes": np.int32(5), "input_size": np.uint8(64), "channels": np.int64(1), "conv10_padding": np.int8(1)}
    spec = ModelSpec(preprocessing=Preprocessing(resize_to=np.int64(70)), **sizes)
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(ValueError, match="conv10_padding must be an integer of at least 0"):
        ModelSpec(conv10_padding=True)
    with pytest.raises(ValueError, match="resize_to must be an integer of at least 1"):
        Preprocessing(resize_to=256.0)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"at least 2, got 1: the softmax of one class is 1 for every image"):
        ModelSpec(classes=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelSpec(classes=3, labels="abc"), "labels must be a tuple of strings, got 'abc'"),
        (lambda: ModelSpec(classes=2, labels=(1, 2)), "labels must be a tuple of strings"),
        (lambda: ModelSpec(classes=2, labels=("a", None)), "labels must be a tuple of strings"),
        (lambda: ModelSpec(classes=2, labels={"a", "b"}), "labels must be a tuple of strings"),  # has no order
        (lambda: ModelSpec(labels=5), "labels must be a tuple of strings, got 5"),
        (lambda: ModelSpec(None, metaparameters={"freq": 2}), r"a Metaparameters; got \{'freq': 2\}"),
        (lambda: Preprocessing(antialias="no"), "antialias must be True or False, got 'no'"),
        (lambda: ModelSpec(preprocessing={"mode": "torch"}), "preprocessing must be a Preprocessing"),
    ],
)
def test_what_no_file_could_hold_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_of_numpy_are_texts():
    spec = ModelSpec(classes=2, labels=np.array(["a", "b"]), preprocessing=Preprocessing(antialias=np.False_))
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_labels_are_distinct_and_one_a_class():
    with pytest.raises(ValueError, match="2 different names"):
        ModelSpec(classes=2, labels=("a", "a"))


def test_imagenet_classes():
    assert len(imagenet_classes()) == 1000
    assert imagenet_wnids() == tuple(sorted(imagenet_wnids()))
    assert imagenet_classes()[0] == ("n01440764", "tench")
    assert imagenet_classes()[281][1] == "tabby"
    names = ModelSpec(labels=imagenet_wnids()).class_names()
    assert names[999] == imagenet_classes()[999][1]
    assert ModelSpec(classes=2).class_names() == ("0", "1")
    assert ModelSpec(classes=2, labels=("cat", "dog")).class_names() == ("cat", "dog")


def test_hash_covers_names_shapes_and_values():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}
    original = hash_arrays(arrays)
    assert hash_arrays(dict(reversed(arrays.items()))) == original
    assert hash_arrays(arrays | {"a": arrays["a"].reshape(3, 2)}) != original
    assert hash_arrays({"a": arrays["a"], "c": arrays["b"]}) != original
    changed = arrays["a"].copy()
    changed[1, 2] = np.nextafter(np.float32(5), np.float32(6))
    assert hash_arrays(arrays | {"a": changed}) != original


def test_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelSpec().classes = 10
