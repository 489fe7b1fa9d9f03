"""Table 1, multiply-accumulates, receptive fields and memory, against the paper and against Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sqz_keras import Metaparameters, ModelSpec
from sqz_keras.architecture import summary
from sqz_keras.compression.densities import TABLE1
from sqz_keras.models import squeezenet

OTHER = Metaparameters(num_fire_modules=3, base_e=8, incr_e=8, freq=1, stem_filters=8, stem_kernel=5, pool_after=(2, 3))
# The paper's Table 1: output, parameters, parameters after pruning.
TABLE_1 = [
    ("conv1", (111, 96), 14_208, 14_208),
    ("pool1", (55, 96), 0, 0),
    ("fire2", (55, 128), 11_920, 5_746),
    ("fire3", (55, 128), 12_432, 6_258),
    ("fire4", (55, 256), 45_344, 20_646),
    ("pool4", (27, 256), 0, 0),
    ("fire5", (27, 256), 49_440, 24_742),
    ("fire6", (27, 384), 104_880, 44_700),
    ("fire7", (27, 384), 111_024, 46_236),
    ("fire8", (27, 512), 188_992, 77_581),
    ("pool8", (13, 512), 0, 0),
    ("fire9", (13, 512), 197_184, 77_581),
    ("conv10", (13, 1000), 513_000, 103_400),
    ("pool10", (1, 1000), 0, 0),
]


def test_table_1():
    rows = summary.table(ModelSpec("1.0"), TABLE1)
    assert [(row.name, (row.size, row.channels), row.parameters, row.kept) for row in rows] == TABLE_1
    assert sum(row.kept for row in rows) == 421_098


def test_multiply_accumulates_are_those_of_the_releases():
    assert round(summary.count_multiply_accumulates(ModelSpec("1.0")) / 1e6, 1) == 832.7
    assert round(summary.count_multiply_accumulates(ModelSpec("1.1")) / 1e6, 1) == 387.7


def test_a_value_depends_on_the_pixels_of_its_receptive_field():
    spec = ModelSpec(None, "complex", OTHER, classes=7, input_size=101)
    model = squeezenet.build(spec)
    for layer in model.layers:  # all positive, so that no ReLU cuts anything off and every pixel counts
        if layer.get_weights():
            layer.set_weights([np.abs(weights) + 0.01 for weights in layer.get_weights()])
    fields = {row.name: row.receptive_field for row in summary.table(spec, {}) if row.name != "pool10"}
    # A max pool passes the gradient on to one of equal pixels only, so these layers are before the first pool.
    for name in ("conv1", "fire2_add"):
        part = keras.Model(model.inputs, model.get_layer(name).output)
        images = tf.ones((1, 101, 101, 3))
        with tf.GradientTape() as tape:
            tape.watch(images)
            out = part(images)
            middle = out[:, out.shape[1] // 2, out.shape[2] // 2]
        seen = np.flatnonzero(tape.gradient(middle, images).numpy()[0].any(axis=(1, 2)))
        assert seen[-1] - seen[0] + 1 == fields[name.removesuffix("_add")]


def test_peak_activations_of_a_net_that_can_be_counted_by_hand():
    net = Metaparameters(num_fire_modules=1, base_e=4, stem_filters=4, stem_kernel=1, pool_after=())
    spec = ModelSpec(None, "complex", net, classes=2, input_size=9)
    # conv1 5x5x4 = 100 values, squeeze 1 channel, both expands 2; "complex" adds an identity, as 4 channels stay 4.
    # The peak is at conv1, which reads 9x9x3 = 243 values and writes 100.
    assert summary.peak_activations(spec) == 343
    wide = Metaparameters(num_fire_modules=1, base_e=40, stem_filters=4, stem_kernel=1, pool_after=())
    # At the addition: both halves, the bypass convolution's 1000, and the sum of 1000.
    assert summary.peak_activations(ModelSpec(None, "complex", wide, classes=2, input_size=9)) == 3000


def test_an_input_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 21 pixels, got 20"):
        summary.table(ModelSpec("1.0", input_size=20), {})


def test_codebook_bytes():
    net = Metaparameters(num_fire_modules=1, base_e=2, stem_filters=1, stem_kernel=1, pool_after=())
    spec = ModelSpec(None, None, net, classes=2, input_size=3)
    # Kernels of 3, 1, 1, 9 and 4 weights at 6 bits, five codebooks of 64 values, 6 biases.
    assert summary.codebook_bytes(spec, 6) == (3 + 1 + 1 + 7 + 3) + 5 * 256 + 4 * 6
