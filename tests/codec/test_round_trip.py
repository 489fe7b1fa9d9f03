"""Whatever finite arrays go in come back bit for bit, in both profiles and as deltas."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqz_keras import codec
from sqz_keras.codec import container, decoder, trellis
from sqz_keras.codec.planes import MODELLED
from sqz_keras.codec.profile_max import scan_order
from tests.codec.samples import HEADER, assert_same, floats, noise

PROFILES = ["paper", "max"]
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def clustered(draw):
    """Sparse arrays with few distinct values, on a grid or not."""
    shape = draw(st.lists(st.integers(0, 7), max_size=5).map(tuple))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits, density = draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.0]))
    if draw(st.booleans()):
        values = np.arange(-(2**bits), 2**bits + 1).astype(np.float32) * np.float32(
            draw(st.sampled_from([0.37, 1e-40]))
        )
    else:
        values = rng.normal(size=2**bits).astype(np.float32)
    array = rng.choice(values, size=shape) * (rng.random(shape) < density)
    return np.asarray(array, np.float32)


@st.composite
def anything(draw):
    """Arrays of any finite floats, or of floats with few mantissa bits."""
    shape = draw(st.lists(st.integers(0, 9), max_size=3).map(tuple))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
    bits &= np.uint32(draw(st.sampled_from([0xFFFFFFFF, 0xFFFF0000, 0xBF800000])))
    array = np.array(bits, np.uint32).view(np.float32).copy()
    array[~np.isfinite(array)] = -0.0
    return array


@st.composite
def on_trellis(draw):
    """Arrays of trellis codes, of any shape that can have them."""
    shape = draw(st.lists(st.integers(0, 7), min_size=2, max_size=4).map(tuple))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = rng.integers(-5, 6, shape) * (rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 1.0])))
    (integers,) = trellis.from_codes([trellis.by_filter(codes)], [draw(st.booleans())])
    return np.float32(0.37) * integers.astype(np.float32).reshape(shape)


SETS = st.dictionaries(st.text(min_size=1, max_size=20), clustered() | anything() | on_trellis(), max_size=5)


@SETTINGS
@given(SETS, st.sampled_from(PROFILES))
def test_any_arrays(arrays, profile):
    data = codec.encode(arrays, HEADER, profile=profile)
    contents = codec.decode(data)
    assert_same(contents.arrays, arrays)
    assert contents.header == HEADER and contents.profile == profile
    assert [array.shape for array in codec.describe(data).arrays] == [array.shape for array in arrays.values()]


def test_names_that_are_no_text():
    arrays, header = {"k\udce9": np.ones(3, np.float32)}, {"model": "caf\udce9.keras", "\udce9": "é"}
    contents = codec.decode(codec.encode(arrays, header))
    assert_same(contents.arrays, arrays)
    assert contents.header == header


@SETTINGS
@given(SETS, SETS, st.sampled_from(PROFILES), st.randoms(use_true_random=False))
def test_any_delta(old, new, profile, random):
    base = codec.encode(old, {}, profile=random.choice(PROFILES))
    for name, array in old.items():  # most arrays stay, or change in a few places
        if random.random() < 0.7:
            changed = array.copy()
            if array.size and random.random() < 0.7:
                changed.flat[random.randrange(array.size)] = array.flat[random.randrange(array.size)]
            new[name] = changed
    data = codec.encode(new, {}, profile=profile, base=base)
    assert_same(codec.decode(data, base).arrays, new)
    codec.describe(data, base)


@pytest.mark.parametrize("profile", PROFILES)
def test_larger_arrays_of_each_kind(profile):
    """Several rounds, lanes and tables; also an array with a single zero, and one with long gaps."""
    rng = np.random.default_rng(3)
    gaps = np.zeros(70_000, np.float32)
    gaps[[0, 40_000, 69_999]] = 1.5, -2.5, 1.5
    dense = rng.integers(1, 9, 5000).astype(np.float32)
    dense[77] = 0
    arrays = {
        "kernel": (np.rint(rng.laplace(0, 2, (3, 3, 16, 40))) * (rng.random((3, 3, 16, 40)) < 0.4)).astype(np.float32),
        "gaps": gaps,
        "dense": dense,
        "wide": rng.integers(-2000, 2000, 30_000).astype(np.float32),
        "floats": rng.normal(size=(70, 90)).astype(np.float32),
    }
    data = codec.encode(arrays, HEADER, profile=profile)
    assert_same(codec.decode(data).arrays, arrays)
    spent = {array.name: sum(array.bytes.values()) / array.shape[0] for array in codec.describe(data).arrays}
    assert spent["gaps"] * 70_000 < 60 and spent["wide"] < 1.6


@pytest.mark.parametrize("profile", PROFILES)
def test_floats_of_few_bits_are_cheap(profile):
    rounded = np.random.default_rng(4).normal(size=20_000).astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    arrays = {"rounded": rounded.view(np.float32).copy()}
    data = codec.encode(arrays, {}, profile=profile)
    assert_same(codec.decode(data).arrays, arrays)
    assert len(data) < 1.55 * 20_000  # 7 bits of mantissa, a sign, and an exponent of fewer than 4 bits
    (layout,) = codec.describe(data).arrays
    assert layout.kind in ("planes", "codebook") and sum(layout.bytes.values()) == pytest.approx(len(data), rel=0.03)


def test_modelled_planes_in_batches(monkeypatch):
    """Arrays of every rank, empty ones too, in batches of at most 500 elements."""
    monkeypatch.setattr(scan_order, "BATCH_ELEMENTS", 500)
    shapes = [(3, 3, 5, 7), (40, 30), (700,), (2, 2, 2, 3, 20), (), (1, 1, 9, 9), (3, 3, 12, 20)]
    arrays = {str(number): floats(shape, number) for number, shape in enumerate(shapes)}
    data = codec.encode(arrays, {})
    assert container.read(data).version == 2 and MODELLED in decoder.decode_file(data).modes
    assert_same(codec.decode(data).arrays, arrays)


@pytest.mark.parametrize("shape", [(0, 3_000_000), (3_000_000, 0), (3_000_000, 1, 1, 0)])
def test_arrays_without_elements_take_no_memory(shape):
    """This holds both among floats in modelled planes and among codes."""
    arrays = {"empty": np.zeros(shape, np.float32), "floats": floats((3, 3, 20, 30), 7)}
    data = codec.encode(arrays, {})
    tracemalloc.start()
    try:
        assert_same(codec.decode(data).arrays, arrays)
        scan_order.scan_arrays([shape], [False])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert MODELLED in decoder.decode_file(data).modes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="layer/kernel: holds NaN or infinite"):
        codec.encode({"layer/kernel": np.array([0, value], np.float32)}, {})


def test_what_cannot_be_written_is_refused():
    one = np.ones(1, np.float32)
    for arrays, header, message in [
        ({"a": np.ones(1)}, {}, "float32"),
        ({"a": [1.0]}, {}, "float32"),
        ({"": one}, {}, "names"),
        ({"a" * 256: one}, {}, "names"),
        ({"a": one.reshape((1,) * 9)}, {}, "dimensions"),
        ({str(number): one for number in range(1025)}, {}, "1024"),
        ({"a": np.broadcast_to(one, (1 << 13, 1 << 14))}, {}, "bytes"),
        ({"a": one}, {"n": float("nan")}, "JSON compliant"),
        ({"a": one}, {1: "a", "1": "b"}, "keys"),  # `decode` would refuse the file: a key occurs twice
        ({"a": one}, {"n": [{None: 1}]}, "keys"),
    ]:
        with pytest.raises(ValueError, match=message):
            codec.encode(arrays, header)
    with pytest.raises(ValueError, match="profile"):
        codec.encode({"a": one}, {}, profile="best")


def test_a_delta_takes_only_its_base():
    one, two = ({"a": np.full(50, value, np.float32)} for value in (1, 2))
    base, other = codec.encode(one, {}), codec.encode(two, {})
    delta = codec.encode(one, {}, base=base)
    assert_same(codec.decode(delta, base).arrays, one)
    for given_base in (None, other, delta):
        with pytest.raises(codec.BaseFileError, match="delta"):
            codec.decode(delta, given_base)
    with pytest.raises(codec.BaseFileError, match="not a delta"):
        codec.decode(base, other)
    with pytest.raises(codec.BaseFileError, match="whole files"):
        codec.encode(one, {}, base=delta)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.0, -0.0),
        (-0.0, 1.0),
        (3e38, -3e38),
        (1e-45, 3e-45),
        (1e30, 1e-30),
    ],
)
def test_deltas_of_extreme_floats(old, new):
    """A float that no step leads to is stored as it is, and nothing warns."""
    others = (noise(40, 3) / 40503 - 0.5).astype(np.float32)
    before, after = (np.append(others, np.float32(value)) for value in (old, new))
    base = codec.encode({"f": before}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        delta = codec.encode({"f": after}, {}, base=base)
        assert codec.decode(delta, base).arrays["f"].tobytes() == after.tobytes()
