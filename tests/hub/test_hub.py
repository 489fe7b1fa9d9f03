"""SqueezeNet for users of KerasHub: presets are saved, loaded by KerasHub's own classes, and trained further."""

import dataclasses
import json

import keras_hub
import numpy as np
import pytest

from sqz_keras import hub, load, prepare_images
from sqz_keras.weights import sqz
from tests.compression.tiny_net import SPEC, tiny_arrays

pytestmark = pytest.mark.large  # KerasHub alone takes seconds to import
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 60, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "net.sqz"
    path.write_bytes(sqz.encode(SPEC, tiny_arrays(SPEC)))
    return path


@pytest.fixture(scope="module")
def preset(path):
    folder = path.parent / "preset"
    hub.SqueezeNetImageClassifier.from_model(path).save_to_preset(str(folder))
    return str(folder)


def probabilities(classifier):
    return classifier.predict(IMAGES, verbose=0)


def test_a_preset_holds_its_weights_as_sqz(path, preset):
    model = sqz.read_model(f"{preset}/model.sqz")
    assert model.spec.to_json() == sqz.read_model(path).spec.to_json()
    for name, array in model.arrays.items():
        np.testing.assert_array_equal(array, tiny_arrays(SPEC)[name])


def test_kerashub_loads_our_net_with_its_preprocessor(path, preset):
    classifier = keras_hub.models.ImageClassifier.from_preset(preset)
    assert type(classifier) is hub.SqueezeNetImageClassifier
    expected = load(path).predict(prepare_images(IMAGES, SPEC), verbose=0)
    np.testing.assert_allclose(probabilities(classifier), expected, atol=1e-6)
    preprocessor = keras_hub.models.ImageClassifierPreprocessor.from_preset(preset)
    np.testing.assert_allclose(preprocessor(IMAGES), prepare_images(IMAGES, SPEC), atol=1e-4)
    untrained = keras_hub.models.ImageClassifier.from_preset(preset, load_weights=False)
    assert np.abs(probabilities(untrained) - expected).max() > 1e-4


def test_the_backbone_alone_keeps_the_classifier_for_later(path, preset, tmp_path):
    backbone = keras_hub.models.Backbone.from_preset(preset)
    assert backbone.output_shape[-1] == SPEC.weight_shapes()["conv10/kernel"][2]
    backbone.save_to_preset(tmp_path / "again")
    arrays = sqz.read_model(tmp_path / "again" / "model.sqz").arrays
    np.testing.assert_array_equal(arrays["conv10/kernel"], tiny_arrays(SPEC)["conv10/kernel"])


def test_a_classifier_replaces_a_backbone_that_was_saved_alone(path, tmp_path):
    hub.SqueezeNetBackbone(SPEC).save_to_preset(tmp_path / "preset")
    assert (tmp_path / "preset" / "model.weights.h5").exists()
    classifier = hub.SqueezeNetImageClassifier.from_model(path)
    classifier.save_to_preset(str(tmp_path / "preset"))
    again = keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "preset"))
    np.testing.assert_allclose(probabilities(again), probabilities(classifier), atol=1e-6)


@pytest.mark.parametrize("classes", [7, SPEC.classes])
def test_num_classes_is_a_new_classifier_that_is_trained_and_saved(preset, tmp_path, classes):
    classifier = keras_hub.models.ImageClassifier.from_preset(preset, num_classes=classes)
    conv10, first = (classifier.get_layer("conv10").get_weights()[0], classifier.backbone.get_layer("conv1"))
    assert conv10.shape[-1] == classes
    assert not np.array_equal(conv10, tiny_arrays(SPEC)["conv10/kernel"])
    np.testing.assert_array_equal(first.get_weights()[0], tiny_arrays(SPEC)["conv1/kernel"])
    classifier.fit(IMAGES, np.array([0, 1]), batch_size=2, verbose=0, shuffle=False)
    classifier.save_to_preset(str(tmp_path / "trained"))
    again = keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "trained"))
    np.testing.assert_allclose(probabilities(again), probabilities(classifier), atol=1e-6)
    spec = sqz.read_model(tmp_path / "trained" / "model.sqz").spec
    assert (spec.classes, spec.labels) == (classes, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer of at least 2, got 0"),
        ({"num_classes": "5"}, "num_classes must be an integer"),
        ({"activation": "sigmoid"}, "no score would be below 0.5"),
    ],
)
def test_heads_that_cannot_work_are_refused(options, message):
    backbone = hub.SqueezeNetBackbone(SPEC)
    assert hub.SqueezeNetImageClassifier(backbone, num_classes=np.int64(4)).output_shape == (None, 4)
    with pytest.raises(ValueError, match=message):
        hub.SqueezeNetImageClassifier(backbone, **options)


def test_records_are_presets(monkeypatch, path):
    classifier = hub.SqueezeNetImageClassifier
    assert "squeezenet1.1_authors" in classifier.presets
    monkeypatch.setattr("sqz_keras.hub.image_classifier.resolve_model", lambda name: (SPEC, tiny_arrays(SPEC)))
    from_record = classifier.from_preset("squeezenet1.1_authors")
    np.testing.assert_array_equal(from_record.get_layer("conv10").get_weights()[0], tiny_arrays(SPEC)["conv10/kernel"])


def test_bfloat16(path, preset):
    expected = probabilities(keras_hub.models.ImageClassifier.from_preset(preset))
    for make, source in (
        (keras_hub.models.ImageClassifier.from_preset, preset),
        (hub.SqueezeNetImageClassifier.from_model, path),
    ):
        classifier = make(source, dtype="bfloat16")
        assert classifier.backbone.get_layer("conv1").compute_dtype == "bfloat16"
        np.testing.assert_allclose(probabilities(classifier), expected, atol=0.02)


def test_weights_of_another_network_are_refused(preset, tmp_path):
    import shutil

    other = shutil.copytree(preset, tmp_path / "other")
    for name in ("config.json", "task.json"):
        text = (other / name).read_text()
        (other / name).write_text(text.replace('"stem_filters": 8', '"stem_filters": 16'))
    with pytest.raises(ValueError, match="conv1/kernel"):
        keras_hub.models.ImageClassifier.from_preset(str(other))
    assert json.loads((other / "model.weights.json").read_text())["weight_map"] == {"/": "model.sqz"}


def test_weights_of_the_same_shapes_may_be_another_networks(preset, tmp_path):
    import shutil

    other = shutil.copytree(preset, tmp_path / "other")
    spec = dataclasses.replace(SPEC, conv10_padding=1)
    (other / "model.sqz").write_bytes(sqz.encode(spec, tiny_arrays(SPEC)))
    with pytest.raises(ValueError, match="another network: expected conv10_padding 0, got 1"):
        keras_hub.models.ImageClassifier.from_preset(str(other))


def test_the_size_of_images_belongs_to_the_weights(preset):
    preprocessor = keras_hub.models.ImageClassifierPreprocessor.from_preset(preset)
    assert preprocessor.image_size == (33, 33)
    with pytest.raises(ValueError, match="33 x 33 pixels"):
        preprocessor.image_size = (64, 64)


@pytest.mark.parametrize("options", [{"classes": 3}, {"image_shape": (48, 48, 3)}])
def test_arguments_that_keras_would_ignore_are_refused(path, preset, options):
    """For example, KerasHub's other image models take an `image_shape`."""
    for make in (hub.SqueezeNetImageClassifier.from_preset, keras_hub.models.ImageClassifier.from_preset):
        with pytest.raises((ValueError, TypeError), match=rf"Unknown arguments \['{next(iter(options))}'\]"):
            make(preset, **options)
    with pytest.raises(ValueError, match="Unknown arguments"):
        hub.SqueezeNetImageClassifier.from_model(path, **options)


def test_only_on_tensorflow(monkeypatch, path):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        hub.SqueezeNetImageClassifier(hub.SqueezeNetBackbone(SPEC))
