"""The heads are trained on the drawn images and evaluated on the others, with the features of the guide's trunk."""

import numpy as np
import pytest
from PIL import Image

from experiments import transfer_head
from sqz_keras import Metaparameters, ModelSpec, Preprocessing, squeezenet_from_metaparameters
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights import sqz

NET = Metaparameters(base_e=8, incr_e=8, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,))


def test_the_features_are_those_of_the_guides_trunk(tmp_path):
    spec = ModelSpec(None, metaparameters=NET, classes=4, input_size=32)
    model = build(spec)
    inputs = np.random.default_rng(0).uniform(-120, 140, (3, 32, 32, 3)).astype(np.float32)
    model.save_weights(tmp_path / "model.weights.h5")
    options = {"weights": tmp_path / "model.weights.h5", "include_top": False, "pooling": "avg"}
    trunk = squeezenet_from_metaparameters(NET, (32, 32, 3), **options)
    features = transfer_head.trunk_features(spec, named_arrays(model), inputs)
    np.testing.assert_allclose(features, trunk(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "head", [transfer_head.HEADS[0], *(pytest.param(head, marks=pytest.mark.large) for head in transfer_head.HEADS[1:])]
)
def test_a_head_learns_to_tell_the_classes_apart(head):
    labels, features = two_classes()
    assert transfer_head.train(head, features, labels, per_class=4, epochs=40, seed=0) == 1


@pytest.mark.large
def test_only_the_drawn_images_are_trained_on_and_only_the_others_are_for_test():
    """The images that are not drawn look like the other class."""
    labels, features = two_classes()
    order = np.random.default_rng(0).permutation(len(labels))
    drawn = np.concatenate([order[labels[order] == label][:4] for label in (0, 1)])
    opposite = features[::-1].copy()
    opposite[drawn] = features[drawn]
    assert transfer_head.train(transfer_head.HEADS[1], opposite, labels, per_class=4, epochs=40, seed=0) == 0


@pytest.mark.large
def test_the_command_prints_each_head(tmp_path, run_command, capsys):
    spec = ModelSpec(None, metaparameters=NET, classes=4, input_size=32, preprocessing=Preprocessing(resize_to=36))
    (tmp_path / "model.sqz").write_bytes(sqz.encode(spec, named_arrays(build(spec))))
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 40), (80 * number, 0, 0)).save(tmp_path / "images" / label / f"{number}.png")
    options = ["--images_per_class=1", "--epochs=1", "--seeds=1"]
    run_command(transfer_head, f"--model={tmp_path / 'model.sqz'}", f"--image_dir={tmp_path / 'images'}", *options)
    printed = capsys.readouterr().out
    assert "6 images, 2 classes; features: mean" in printed
    assert all(f"{head}: top-1 " in printed for head in transfer_head.HEADS)


def two_classes():
    """Labels and features: the first 32 features belong to class 0, the others to class 1."""
    labels = np.repeat([0, 1], 20)
    return labels, 40 * np.repeat(np.eye(2, dtype=np.float32), 32, axis=1)[labels]
