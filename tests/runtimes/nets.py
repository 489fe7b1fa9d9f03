"""Networks for the files that tests write: the paper's six and others, small enough to run in Keras."""

import keras
import numpy as np

from sqz_keras import Metaparameters, ModelSpec, Preprocessing, preprocess_input
from sqz_keras.models import squeezenet
from tests.export.samples import random_arrays, random_image, small_spec

SIX = [(version, bypass) for version in ("1.0", "1.1") for bypass in (None, "simple", "complex")]


def paper_net(version: str, bypass: str | None, input_size: int = 99) -> ModelSpec:
    """A net of the paper with ten classes, so that the probabilities differ; pools get odd and even sizes."""
    return ModelSpec(version, bypass, classes=10, input_size=input_size, conv10_padding=int(version == "1.0"))


def odd_net(bypass: str | None, conv10_padding: int, input_size: int) -> ModelSpec:
    """A net with metaparameters that the paper does not have."""
    net = Metaparameters(num_fire_modules=3, base_e=8, incr_e=8, freq=2, stem_filters=4, pool_after=(1, 3))
    return small_spec(metaparameters=net, bypass=bypass, conv10_padding=conv10_padding, input_size=input_size)


def coloured_net(mode: str) -> ModelSpec:
    """A net with the preprocessing of the given mode."""
    return small_spec(preprocessing=Preprocessing(mode, resize_to=36))


def telling_arrays(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Random weights whose conv10 is scaled so that the probabilities are neither all equal nor all 0 and 1."""
    arrays = random_arrays(spec)
    if spec.preprocessing.mode in ("torch", "tf"):  # inputs of about 1
        arrays["conv1/kernel"] *= 60
    model = squeezenet.build(spec, arrays)
    averages = keras.Model(model.input, model.get_layer("pool10").output)
    inputs = preprocess_input(random_images(spec), "channels_last", spec.preprocessing.mode)
    scale = 6 / averages.predict_on_batch(inputs).max()
    return arrays | {name: np.float32(scale) * arrays[name] for name in ("conv10/kernel", "conv10/bias")}


def random_images(spec: ModelSpec, count: int = 3) -> np.ndarray:
    """Float32 (count, S, S, 3), RGB in 0..255."""
    size = spec.input_size
    return np.stack([np.asarray(random_image(size, size, seed=seed), np.float32) for seed in range(count)])


def keras_answers(spec: ModelSpec, arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) by Keras; they differ from image to image."""
    inputs = preprocess_input(images, "channels_last", spec.preprocessing.mode)
    answers = squeezenet.build(spec, arrays).predict_on_batch(inputs)
    assert np.ptp(answers, axis=0).max() > 0.01, "the images must differ"
    return answers
