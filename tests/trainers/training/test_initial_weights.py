import dataclasses

import keras
import numpy as np

from sqz_keras import Metaparameters, ModelSpec
from sqz_keras.models.squeezenet import build, named_arrays
from tests.weights.readers import test_caffe
from tests.weights.readers.mutations import random_arrays
from trainers.configs import load_config
from trainers.training.config import TrainConfig
from trainers.training.initial_weights import initialise

TINY = Metaparameters(8, 4, squeeze_ratio=0.5, num_fire_modules=3, stem_filters=4, stem_kernel=3, pool_after=(1,))
SPEC = ModelSpec(None, "complex", TINY, classes=10, labels=tuple("0123456789"), input_size=16)


def begun(spec, **options):
    """The initial weights of a run."""
    keras.utils.set_random_seed(0)
    model = build(spec)
    initialise(model, TrainConfig(spec, "digits", **options), spec)
    return named_arrays(model)


def test_bypass_scale_touches_the_bypasses_convolutions_alone():
    authors, smaller = begun(SPEC), begun(SPEC, bypass_scale=0.25)
    scaled = {name for name in authors if not np.array_equal(authors[name], smaller[name])}
    assert scaled == {"fire2_bypass1x1/kernel", "fire4_bypass1x1/kernel"}
    for name in scaled:
        np.testing.assert_array_equal(smaller[name], authors[name] / 4)
    plain = dataclasses.replace(SPEC, bypass="simple")
    for name, array in begun(plain).items():
        np.testing.assert_array_equal(array, begun(plain, bypass_scale=0.25)[name])


def test_conv10_bias_touches_conv10s_biases_alone():
    authors, raised = begun(SPEC), begun(SPEC, conv10_bias=1.0)
    np.testing.assert_array_equal(raised.pop("conv10/bias"), np.ones(10, np.float32))
    np.testing.assert_array_equal(authors.pop("conv10/bias"), np.zeros(10, np.float32))
    for name, array in authors.items():
        np.testing.assert_array_equal(array, raised[name])


def test_heads_of_other_nets_do_not_matter(tmp_path):
    """A file whose heads are not conv10 gives its trunk; conv10 is then random."""
    spec = ModelSpec("1.1", classes=10, labels=tuple("0123456789"))
    pretrained = random_arrays(spec.weight_shapes())
    kernel = pretrained.pop("conv10/kernel")
    bias = pretrained.pop("conv10/bias")
    heads = {"one/kernel": kernel, "one/bias": bias, "two/kernel": kernel, "two/bias": bias}
    path = tmp_path / "net.caffemodel"
    path.write_bytes(test_caffe.encode(pretrained | heads, rename=str))
    arrays, authors = begun(spec, weights=str(path)), begun(spec)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, (authors if name.startswith("conv10/") else pretrained)[name])


def test_the_recipe_for_ten_classes_keeps_the_signals_size_in_a_complex_bypass():
    """With the authors' weights, conv10's input is several times conv1's output, and then no class learns."""
    recipe = load_config("imagenette")
    spec = dataclasses.replace(recipe.model, bypass="complex", classes=10, labels=tuple("0123456789"))
    noise = np.random.default_rng(0).normal(0, 60, (2, spec.input_size, spec.input_size, 3)).astype(np.float32)
    growth = []
    for scale in (recipe.bypass_scale, 1.0):
        keras.utils.set_random_seed(0)
        model = build(spec)
        initialise(model, dataclasses.replace(recipe, bypass_scale=scale), spec)
        probe = keras.Model(model.inputs, [model.get_layer(name).output for name in ("conv1", "drop9")])
        first, last = (float(np.square(maps).mean() ** 0.5) for maps in probe.predict(noise, verbose=0))
        growth.append(last / first)
    assert growth[0] < 1 < growth[1] / 3
