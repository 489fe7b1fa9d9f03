"""Trellis codes: the state machine, the encoder's choice, and arrays that come back bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqz_keras import codec
from sqz_keras.codec import container, trellis
from tests.codec import samples, slow_decoder

PROFILES = ["paper", "max"]
SETTINGS = settings(max_examples=80, deadline=None, derandomize=True, database=None)


@st.composite
def codes(draw, max_rank=4):
    """Small arrays of codes with the filters on the last axis, some filters all 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=max_rank).map(tuple))
    reach, density = draw(st.integers(1, 9)), draw(st.sampled_from([0.05, 0.4, 1.0]))
    array = rng.integers(-reach, reach + 1, shape) * (rng.random(shape) < density)
    array[..., rng.random(shape[-1]) < draw(st.sampled_from([0.0, 0.5]))] = 0
    return array


def test_the_next_state_is_that_of_the_standard():
    for s in range(8):
        for b in (0, 1):
            s0, s1, s2 = s & 1, s >> 1 & 1, s >> 2 & 1
            assert trellis.NEXT_STATE[s, b] == (s1 ^ s0) | (s2 ^ b) << 1 | s0 << 2
    assert trellis.NEXT_STATE.shape == (8, 2) and sorted(trellis.NEXT_STATE.ravel()) == sorted([*range(8)] * 2)


@SETTINGS
@given(st.lists(st.tuples(codes(max_rank=2), st.booleans()), min_size=1, max_size=5))
def test_codes_and_integers(arrays):
    """Converting many arrays at once, one array at a time, or one element at a time gives the same."""
    joined = trellis.from_codes([array for array, _ in arrays], [dense for _, dense in arrays])
    for integers, (array, dense) in zip(joined, arrays, strict=True):
        slow = slow_decoder.trellis_integers(array.ravel().tolist(), array.shape[1], 7 if dense else 6)
        assert integers.ravel().tolist() == slow
        np.testing.assert_array_equal(integers, trellis.from_codes([array], [dense])[0])
        np.testing.assert_array_equal(trellis.to_codes(integers, dense), array)
        assert dense or (integers == 0).sum() == (array == 0).sum()


@SETTINGS
@given(codes(), st.booleans(), st.sampled_from(PROFILES), st.sampled_from([1.0, 0.37, 1e-40]))
def test_arrays_come_back(array, dense, profile, step):
    (integers,) = trellis.from_codes([trellis.by_filter(array)], [dense])
    integers = integers.reshape(array.shape)
    values = np.float32(step) * integers.astype(np.float32)
    data = codec.encode({"a": values, "b": values[..., :1]}, {}, profile=profile)
    samples.assert_same(codec.decode(data).arrays, {"a": values, "b": values[..., :1]})


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("dense", "kind"), [(False, "trellis"), (True, "trellis_dense")])
def test_the_encoder_finds_the_trellis(profile, dense, kind):
    values = samples.trellis((3, 3, 16, 24), 21, dense)
    values[..., 5] = 0 if not dense else values[..., 6]
    once = {"layer/kernel": values}
    data = codec.encode(once, {}, profile=profile)
    samples.assert_same(codec.decode(data).arrays, once)
    (layout,) = codec.describe(data).arrays
    assert layout.kind == kind and container.read(data).version == 2
    assert layout.density == np.count_nonzero(values) / values.size
    assert layout.distinct == len(np.unique(values[values != 0])) and 2 ** (layout.bits - 1) < layout.distinct
    assert sum(layout.bytes.values()) == pytest.approx(sum(layout.entropy.values()), rel=0.1)
    plain = codec.encode({"layer/kernel": values.ravel()}, {}, profile=profile)  # one dimension: no trellis
    assert codec.describe(plain).arrays[0].kind == "grid" and container.read(plain).version == 1
    assert len(data) < len(plain) - (50 if not dense else 200)
    values[0, 0, 0, 3] = 1 / 64  # no trellis: the first state is even
    broken = codec.encode(once, {}, profile=profile)
    assert codec.describe(broken).arrays[0].kind == "grid" and container.read(broken).version == 1


def test_a_common_divisor_is_a_plain_grid():
    even = 2 * samples.trellis((8, 9), 3, False) // 2 * 2
    data = codec.encode({"a": even, "zeros": np.zeros((3, 4), np.float32)}, {})
    samples.assert_same(codec.decode(data).arrays, {"a": even, "zeros": np.zeros((3, 4), np.float32)})


@pytest.mark.parametrize("profile", PROFILES)
def test_deltas(profile):
    """An array that is on a trellis in the base, the delta or both is stored as `same` or whole."""
    on_trellis, grid = samples.trellis((3, 3, 6, 10), 7, False), samples.grid((3, 3, 6, 10), 8)
    other = samples.trellis((3, 3, 6, 10), 9, True)
    old = {"same": on_trellis, "to trellis": grid, "to grid": on_trellis, "to another": on_trellis}
    new = {"same": on_trellis, "to trellis": on_trellis, "to grid": grid, "to another": other}
    base = codec.encode(old, {})
    data = codec.encode(new, {}, profile=profile, base=base)
    samples.assert_same(codec.decode(data, base).arrays, new)
    kinds = [array.kind for array in codec.describe(data, base).arrays]
    assert kinds == ["same", "trellis", "grid", "trellis_dense"]
    same = codec.encode(old, {}, profile=profile, base=base)
    samples.assert_same(codec.decode(same, base).arrays, old)


def test_long_filters():
    """The longest allowed filters, filters that are longer, and short filters, all in one file."""
    long = np.zeros((trellis.MAX_FILTER_ELEMENTS, 2), np.float32)
    long[::7] = samples.trellis((len(long[::7]), 2), 5, False, 1)
    longer = np.concatenate([long, long[:1]])
    short = samples.trellis((3, 500), 6, True)
    data = codec.encode({"long": long, "longer": longer, "short": short}, {}, profile="paper")
    samples.assert_same(codec.decode(data).arrays, {"long": long, "longer": longer, "short": short})
    assert [array.kind for array in codec.describe(data).arrays] == ["trellis", "grid", "trellis_dense"]
