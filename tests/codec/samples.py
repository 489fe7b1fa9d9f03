"""Small sets of arrays, made by integer formulas so that they are the same everywhere, and ways to damage a file."""

import zlib

import numpy as np

from sqz_keras.codec import container

HEADER = {"model_spec": {"version": "1.0"}, "provenance": {"from": "a formula"}}


def noise(count, seed):
    """int64 in 0..65535, from a linear congruential generator."""
    state, result = seed * 7919 + 1, np.zeros(count, np.int64)
    for number in range(count):
        state = (state * 1103515245 + 12345) % (1 << 31)
        result[number] = state >> 15
    return result


def bell(count, seed):
    """int64, roughly normal, with a standard deviation of 3."""
    return noise(4 * count, seed).reshape(4, -1).sum(axis=0) * 10 // 65536 - 20


def grid(shape, seed, density=3):
    """Values on a grid of step 1/64; about one in `density` is not 0."""
    count = int(np.prod(shape))
    codes = bell(count, seed) * (noise(count, seed + 1) % density == 0)
    return (codes / 64).astype(np.float32).reshape(shape)


def codebook(shape, seed, density=3):
    """Values of a codebook, not on a grid."""
    values = grid(shape, seed, density).astype(np.float64)
    # Products and roots of float64 are rounded alike by every processor; powers of float32 are not.
    return (values * np.sqrt(np.abs(values))).astype(np.float32)


def trellis(shape, seed, dense, density=3):
    """Values on a trellis of step 1/64; unless `dense`, zeros are kept apart and about one in `density` is not 0."""
    count, filters = int(np.prod(shape)), shape[-1]
    goals = bell(count, seed) * (1 if dense else noise(count, seed + 1) % density == 0)
    integers, states = np.zeros(count, np.int64), [0] * filters
    for number, goal in enumerate(goals):
        s = states[number % filters]
        if goal == 0 and not dense:
            continue
        integers[number] = v = goal + (goal - s) % 2
        if v or dense:
            s0, s1, s2, b = s & 1, s >> 1 & 1, s >> 2 & 1, v >> 1 & 1
            states[number % filters] = (s1 ^ s0) | (s2 ^ b) << 1 | s0 << 2
    return (integers / 64).astype(np.float32).reshape(shape)


def floats(shape, seed):
    """Values with 5 mantissa bits (one in the third byte) or none; those with the same last two indices are alike."""
    count, slices = int(np.prod(shape)), int(np.prod(shape[-2:]))
    slice_noise = noise(slices, seed)[np.arange(count) % slices]
    magnitudes = (noise(count, seed + 1) + 1.0) * 2.0 ** (slice_noise % 5 * 2 - 24)
    signs = np.where((slice_noise // 8 + (noise(count, seed + 2) % 8 == 0)) % 2 == 0, 1, -1)
    mask = np.where(slice_noise % 5 < 2, np.uint32(0xFF800000), np.uint32(0xFFF84000))
    bits = (magnitudes * signs).astype(np.float32).view(np.uint32) & mask
    return bits.view(np.float32).reshape(shape)


def arrays_of_version_2():
    """A small net with both kinds of trellis codes, and enough floats for their planes to be modelled."""
    return {
        "conv1/kernel": trellis((3, 3, 3, 8), 11, True),
        "conv1/bias": (bell(8, 2) / 8).astype(np.float32),
        "fire2/kernel": trellis((1, 1, 12, 16), 12, False),
        "fire3/kernel": trellis((3, 3, 6, 10), 13, False, 2),
        "fire3/bias": (noise(10, 4) / 40503 - 0.5).astype(np.float32),
        "fire4/kernel": floats((3, 3, 12, 20), 14),
        "fire5/kernel": floats((40, 30), 15),
        "head": trellis((24, 5), 16, True),
        "table": grid((6, 5, 4), 17),
        "empty": np.zeros((0, 4), np.float32),
    }


def arrays():
    """A small net with every kind of array."""
    return {
        "conv1/kernel": codebook((3, 3, 3, 8), 1, 1),
        "conv1/bias": (bell(8, 2) / 8).astype(np.float32),
        "fire2/kernel": grid((1, 1, 8, 16), 3),
        "fire2/bias": (noise(16, 4) / 40503 - 0.5).astype(np.float32),
        "fire3/kernel": codebook((3, 3, 6, 10), 5),
        "fire3/bias": np.zeros(10, np.float32),
        "scalar": np.array(0.1, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "one": np.array([-2.5], np.float32),
        "constant": np.full((7, 9), 3.25, np.float32),
        "signed zeros": np.array([0.0, -0.0, 1e-42, -1e-42] * 12, np.float32),
    }


def changed(old):
    """The arrays after fine-tuning: some codes and one bias are different, the rest is the same."""
    differences = {name: ((noise(old[name].size, 9) % 7 == 0) * (old[name].ravel() != 0)) for name in ("fire2/kernel",)}
    new = dict(old)
    for name, difference in differences.items():
        new[name] = (old[name].ravel() + difference / 64).astype(np.float32).reshape(old[name].shape)
    return {**new, "fire2/bias": old["fire2/bias"] + np.float32(0.25)}


def changed_in_every_way(old):
    """The arrays after changes of every sort, so that a delta of version 2 has every kind of array that it can have."""
    new = {name: array for name, array in changed(old).items() if name != "empty"}
    for name in ("conv1/kernel", "fire3/kernel"):  # codes of a codebook: some odd codes move up by one
        values = np.unique(old[name])
        places = np.searchsorted(values, old[name].ravel())
        moved = places + np.where((places % 2 == 1) & (noise(places.size, 10) % 4 > 0), 1 - places % 4 % 3, 0)
        new[name] = values[np.clip(moved, 0, len(values) - 1)].reshape(old[name].shape)
    kernel = new["fire2/kernel"].ravel().copy()  # a grid: some of its zeros are no longer 0
    kernel[::37] += np.float32(1 / 64)
    new["fire2/kernel"] = kernel.reshape(old["fire2/kernel"].shape)
    moves = (bell(16, 11) / 1024).astype(np.float32)
    return {**new, "fire2/bias": old["fire2/bias"] + moves, "new": trellis((4, 5, 6), 18, True)}


def assert_same(actual, expected):
    """Compares names, their order, shapes and every bit."""
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == np.float32 and actual[name].shape == array.shape
        assert actual[name].tobytes() == array.tobytes(), name


def sealed(data):
    """The damaged file with its size and all checksums corrected, so that the reader gets past them."""
    data = bytearray(data)
    data[8:12] = len(data).to_bytes(4, "little")
    data[12:16] = zlib.crc32(data[:12]).to_bytes(4, "little")
    start = 16
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start + 4 : start + 8], "little")
        checksum = zlib.crc32(data[start + 12 : end], zlib.crc32(data[start : start + 8]))
        data[start + 8 : start + 12] = checksum.to_bytes(4, "little")
        start = end
    return bytes(data)


def sections(data):
    """The payloads by tag."""
    return {tag: cursor.rest() for tag, cursor in container.read(data).sections.items()}


def with_section(data, tag, payload):
    """The file with another payload for one section and everything else correct."""
    frame = container.read(data)
    return container.write(frame.version, frame.profile, {**sections(data), tag: payload})
