import dataclasses
import json
import warnings

import numpy as np
import pytest

from sqz_keras import Metaparameters, ModelSpec
from sqz_keras.architecture.layers import bypass_kinds
from sqz_keras.architecture.metaparameters import VERSIONS, parse_metaparameters

# The paper's Table 1: s1x1, e1x1, e3x3 of fire2 to fire9.
TABLE_1 = [
    (16, 64, 64),
    (16, 64, 64),
    (32, 128, 128),
    (32, 128, 128),
    (48, 192, 192),
    (48, 192, 192),
    (64, 256, 256),
    (64, 256, 256),
]


def count(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ModelSpec(version=None, metaparameters=Metaparameters(**options)).count_params()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_fire_modules_are_table_1(version):
    modules = VERSIONS[version].fire_modules()
    assert [(fire.squeeze1x1, fire.expand1x1, fire.expand3x3) for fire in modules] == TABLE_1
    assert [fire.name for fire in modules] == [f"fire{number}" for number in range(2, 10)]


@pytest.mark.parametrize(
    ("squeeze_ratio", "params"),
    [(0.125, 1_248_424), (0.25, 1_967_080), (0.5, 3_404_392), (0.75, 4_841_704), (1.0, 6_279_016)],
)
def test_squeeze_ratio_sweep_counts(squeeze_ratio, params):
    assert count(squeeze_ratio=squeeze_ratio) == params


@pytest.mark.parametrize(
    ("pct_3x3", "params"),
    [
        (0.01, 1_478_248),
        (0.125, 1_929_832),
        (0.25, 2_421_352),
        (0.375, 2_912_872),
        (0.5, 3_404_392),
        (0.625, 3_895_912),
        (0.75, 4_387_432),
        (0.875, 4_878_952),
        (0.99, 5_330_536),
    ],
)
def test_pct_3x3_sweep_counts(pct_3x3, params):
    assert count(squeeze_ratio=0.5, pct_3x3=pct_3x3) == params


def test_counts_round_half_up_and_are_at_least_1():
    fire = Metaparameters(base_e=5, pct_3x3=0.5, squeeze_ratio=0.3).fire_modules()[0]
    assert (fire.squeeze1x1, fire.expand1x1, fire.expand3x3) == (2, 2, 3)  # 1.5 -> 2, 2.5 -> 3
    fire = Metaparameters(base_e=4, pct_3x3=0.0, squeeze_ratio=0.01).fire_modules()[0]
    assert (fire.squeeze1x1, fire.expand1x1, fire.expand3x3) == (1, 3, 1)
    fire = Metaparameters(base_e=4, pct_3x3=1.0).fire_modules()[0]
    assert (fire.expand1x1, fire.expand3x3) == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_e": 1}, "base_e must be an integer of at least 2 and at most 65,536, got 1"),
        ({"base_e": 128.0}, "base_e must be an integer"),
        ({"freq": 0}, "freq must be"),
        ({"incr_e": -1}, "incr_e must be"),
        ({"pct_3x3": 1.5}, r"fraction in \[0, 1\], got 1.5"),
        ({"pct_3x3": "0.5"}, "finite number"),
        ({"squeeze_ratio": 0.0}, "above 0"),
        ({"squeeze_ratio": float("nan")}, "finite number"),
        ({"pool_after": (1, 10)}, r"from 1 \(conv1\) to 9"),
        ({"pool_after": (4, 1)}, "ascending"),
        ({"pool_after": (1, 1)}, "each once"),
        ({"pool_after": (1.0, 3.0)}, "pool_after must name layers"),
        ({"pool_after": (True, 3)}, "pool_after must name layers"),
        ({"pool_after": 4}, r"pool_after must name layers .* such as \(1, 4, 8\), got 4"),
        ({"base_e": np.array(128)}, "base_e must be an integer"),
        ({"base_e": np.bool_(True)}, "base_e must be an integer"),
        ({"incr_e": True}, "incr_e must be an integer"),
        ({"pct_3x3": True}, "finite number"),
        ({"squeeze_ratio": np.float32("inf")}, "finite number"),
        ({"squeeze_ratio": 10**400}, "finite number"),
        ({"num_fire_modules": 0}, "num_fire_modules"),
        ({"num_fire_modules": 10**9}, "at most 1,000"),
        ({"base_e": 10**310}, "at most 65,536"),
        ({"squeeze_ratio": 1e308}, "at most 1,000"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Metaparameters(**options)


def test_a_metaparameter_is_given_once():
    assert parse_metaparameters("base_e=64, freq = 3") == {"base_e": 64, "freq": 3}
    with pytest.raises(ValueError, match=r"The metaparameter base_e occurs twice in .* give it once"):
        parse_metaparameters("base_e=64,freq=3, base_e=64")


def test_numpy_numbers_become_plain_ones():
    """A search passes NumPy numbers, which JSON does not accept."""
    integers = ("base_e", "incr_e", "freq", "num_fire_modules", "stem_filters", "stem_kernel")
    values = {name: np.int64(getattr(Metaparameters(), name)) for name in integers}
    values |= {"pct_3x3": np.float32(0.5), "squeeze_ratio": np.float16(0.125), "pool_after": np.array([1, 4, 8])}
    net = Metaparameters(**values)
    assert net == Metaparameters()
    assert json.loads(json.dumps(dataclasses.asdict(net))) == dataclasses.asdict(net) | {"pool_after": [1, 4, 8]}


def test_wide_squeeze_layer_warns():
    with pytest.warns(UserWarning, match="no narrower than its expand layers"):
        Metaparameters(squeeze_ratio=1.0)


def test_bypasses():
    assert bypass_kinds(VERSIONS["1.0"], None) == (None,) * 8
    assert bypass_kinds(VERSIONS["1.0"], "simple") == (None, "identity") * 4
    assert bypass_kinds(VERSIONS["1.1"], "complex") == ("convolution", "identity") * 4
    every_third = Metaparameters(freq=3)
    assert bypass_kinds(every_third, "simple") == (None, "identity", "identity") * 2 + (None, "identity")
    assert bypass_kinds(Metaparameters(stem_filters=128), "simple")[0] == "identity"
    with pytest.raises(
        ValueError, match=r"needs a fire module with as many input as output channels.*bypass='complex'"
    ):
        bypass_kinds(Metaparameters(freq=1), "simple")
    assert bypass_kinds(Metaparameters(freq=1), "complex") == ("convolution",) * 8
    with pytest.raises(ValueError, match="'dense'"):
        bypass_kinds(VERSIONS["1.0"], "dense")


def test_min_input_size():
    assert VERSIONS["1.0"].min_input_size() == 21
    assert VERSIONS["1.1"].min_input_size() == 17
    assert Metaparameters(stem_kernel=3, pool_after=()).min_input_size() == 3
    for net in (VERSIONS["1.0"], VERSIONS["1.1"], Metaparameters(stem_kernel=2, pool_after=(1, 2, 3, 4, 5))):
        least = net.min_input_size()
        assert ModelSpec(None, metaparameters=net, input_size=least).layers()[-2].size == 1
