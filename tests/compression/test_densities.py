import numpy as np
import pytest

from sqz_keras import ModelSpec
from sqz_keras.compression.densities import (
    TABLE1,
    count_kept,
    count_nonzeros,
    count_values,
    layer_names,
    measure_densities,
    parse_densities,
    prune_magnitudes,
    sensitivity_densities,
)

LAYERS = ["conv1", "fire2_expand3x3", "conv10"]


def kernels(**named):
    return {f"{layer}/kernel": np.asarray(values, np.float32) for layer, values in named.items()}


def test_table1_gives_the_papers_counts():
    shapes = ModelSpec("1.0").weight_shapes()
    assert list(TABLE1) == layer_names(shapes)

    def after(prefix):
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items() if name.startswith(prefix)}
        kept = (count_kept(size, TABLE1[name[:-7]]) if name.endswith("l") else size for name, size in sizes.items())
        return sum(kept)

    counts = {"conv1/": 14_208, "fire2": 5_746, "fire4": 20_646, "fire6": 44_700, "fire7": 46_236, "fire8": 77_581}
    counts |= {"fire9": 77_581, "conv10": 103_400, "": 421_098}
    for prefix, printed in counts.items():
        assert after(prefix) == pytest.approx(printed, abs=20), prefix


def test_parse():
    assert parse_densities("conv1=0.5, fire2_expand3x3=0.7", LAYERS) == {"conv1": 0.5, "fire2_expand3x3": 0.7}
    assert parse_densities("table1,conv10=0.3", LAYERS) == {"conv1": 1.0, "fire2_expand3x3": 0.33, "conv10": 0.3}
    assert parse_densities("0.4,conv1=1", LAYERS) == {"conv1": 1.0, "fire2_expand3x3": 0.4, "conv10": 0.4}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected 'table1'"),
        ("table2", "table2"),
        ("conv1=a", "conv1=a"),
        ("conv2=0.5", "no layer 'conv2'"),
        ("=0.5", "no layer ''"),
        ("conv1=0", "above 0"),
        ("conv1=1.01", "at most 1"),
        ("conv1=nan", "at most 1"),
        ("0.4,conv1=0.5, conv1 = 0.5", "the layer conv1 occurs twice"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse_densities(text, LAYERS)


def test_measures():
    arrays = kernels(conv1=[[1, 0], [2, 2]], conv10=[0, 0]) | {"conv1/bias": np.zeros(2)}
    assert measure_densities(arrays) == {"conv1": 0.75, "conv10": 0.0}
    assert count_nonzeros(arrays) == {"conv1": 3, "conv10": 0}
    assert count_values(arrays) == {"conv1": 2, "conv10": 0}


def test_magnitudes():
    before = kernels(conv1=[[-4, 1], [3, -2]], conv10=[5, 5, 5, 5])
    after = prune_magnitudes(before, {"conv1": 0.5, "conv10": 0.25})
    np.testing.assert_array_equal(after["conv1/kernel"], [[-4, 0], [3, 0]])
    assert np.count_nonzero(after["conv10/kernel"]) == 1  # one of four equal weights
    assert np.count_nonzero(before["conv1/kernel"]) == 4
    np.testing.assert_array_equal(prune_magnitudes(after, {"conv1": 0.9})["conv1/kernel"], after["conv1/kernel"])


def test_sensitivity_takes_the_weights_that_cost_least():
    """The damage is known: for each layer, a cost times the square of the share that is cut."""
    random = np.random.default_rng(0)
    arrays = kernels(**{layer: random.normal(size=1000) for layer in LAYERS})
    costs = {"conv1": 16.0, "fire2_expand3x3": 1.0, "conv10": 4.0}
    calls = []

    def damage(cut):
        calls.append(cut)
        return 7 + sum(cost * (1 - measure_densities(cut)[layer]) ** 2 for layer, cost in costs.items())

    scanned = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    densities = sensitivity_densities(arrays, 0.6, damage, scanned=scanned)
    assert len(calls) == 1 + 3 * len(scanned)
    assert sum(densities.values()) / 3 == pytest.approx(0.6)
    # At the optimum all slopes are equal, so cuts are as 1/cost; fire2_expand3x3 stops at the lowest density scanned.
    cuts = {layer: 1 - density for layer, density in densities.items()}
    assert cuts["fire2_expand3x3"] == pytest.approx(0.9)
    assert cuts["conv10"] == pytest.approx(0.3 * 0.8, abs=0.1)
    assert cuts["conv1"] == pytest.approx(0.3 * 0.2, abs=0.1)


def test_sensitivity_counts_what_is_pruned_already_and_ignores_a_benefit_once():
    arrays = kernels(conv1=[1, 2, 3, 4, 0, 0, 0, 0], conv10=np.arange(1, 9))
    densities = sensitivity_densities(arrays, 0.5, lambda cut: -measure_densities(cut)["conv10"], scanned=(0.5, 0.25))
    assert densities["conv1"] * 8 + densities["conv10"] * 8 == pytest.approx(8)
    assert densities["conv1"] <= 0.5


@pytest.mark.parametrize("target", [0, 1.5, 0.1])
def test_sensitivity_refuses_a_target_out_of_reach(target):
    with pytest.raises(ValueError, match="target_density"):
        sensitivity_densities(kernels(conv1=np.arange(1, 9)), target, lambda cut: 0.0, scanned=(0.5,))
