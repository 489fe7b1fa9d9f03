import io
import shutil

import numpy as np
import pytest

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.readers import WeightsFileError, npy_folder
from tests.weights.readers.mutations import (
    assert_equal,
    assert_refused,
    broken_arrays,
    check_refused_in_little_memory,
    flips,
    load,
    oihw,
    random_arrays,
    truncations,
)

LAYERS = [name.split("/")[0] for name in random_arrays() if name.endswith("/kernel")]


def file_name(name):
    layer, part = name.split("/")
    number = LAYERS.index(layer) if layer in LAYERS else len(LAYERS)
    return f"net_conv{number}_{'weight' if part == 'kernel' else part}.npy"


def write(folder, arrays):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / file_name(name), np.ascontiguousarray(oihw(array)))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "weights", random_arrays())
    return tmp_path / "weights"


def test_reads_what_was_written_from_the_folder_or_its_parent(folder):
    (folder / "README.txt").write_text("not a weight")
    assert_equal(load(folder), random_arrays())
    assert_equal(load(folder.parent), random_arrays())


def test_suffixes_in_upper_case(folder):
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(".NPY"))
    assert_equal(load(folder), random_arrays())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_dtypes_and_orders(folder, dtype, order):
    array = np.arange(4, dtype=dtype)
    np.save(folder / file_name("conv1/bias"), array)
    kernel = np.asarray(oihw(random_arrays()["conv1/kernel"]), order=order)
    np.save(folder / file_name("conv1/kernel"), kernel)
    assert_equal(load(folder), {**random_arrays(), "conv1/bias": array.astype(np.float32)})


def test_gluon_release(test_data):
    root = test_data / "weights/squeezenet1.1_gluon"
    arrays = load(root, ModelSpec(version="1.1").weight_shapes())
    for number, layer in enumerate(LAYERS):
        kernel = np.load(root / f"weights/squeezenet0_conv{number}_weight.npy")
        np.testing.assert_array_equal(oihw(arrays[f"{layer}/kernel"]), kernel)
        bias = np.load(root / f"weights/squeezenet0_conv{number}_bias.npy")
        np.testing.assert_array_equal(arrays[f"{layer}/bias"], bias)


def put(folder, name, arrays):
    """Writes the array called `name`, or removes its file if there is no such array."""
    path = folder / file_name(name)
    path.unlink(missing_ok=True)
    if name in arrays:
        np.save(path, np.ascontiguousarray(oihw(arrays[name])))


def test_sets_of_files_that_are_no_net_are_refused(folder):
    arrays = random_arrays()
    sets = list(broken_arrays(arrays))
    assert len(sets) > 200
    for broken in sets:
        differing = [name for name in {**arrays, **broken} if broken.get(name) is not arrays.get(name)]
        for name in differing:
            put(folder, name, broken)
        assert_refused(folder)
        for name in differing:
            put(folder, name, arrays)
    assert_equal(load(folder), arrays)


def broken_files(data, array):
    yield from truncations(data, 40)
    yield from (data + extra for extra in (b"\0", data))
    for saved in (array.astype(np.int32), array.astype("c8"), array.astype("U8"), array.view("V4"), np.float32(1)):
        stream = io.BytesIO()
        np.save(stream, saved)
        yield stream.getvalue()
    for old, new in [
        (b"(4,)", b"(5,)"),
        (b"(4,)", b"(-4)"),
        (b"(4,)", b"[4,]"),
        (b"<f4", b"|O8"),
        (b"<f4", b"<x4"),
        (b"'descr'", b"'other'"),
        (b"False", b"Wrong"),
        (b"NUMPY\x01", b"NUMPY\x02"),
        (b"NUMPY\x01", b"NUMPY\x09"),
        (b"(4,)", b"(" * 4),
    ]:
        assert old in data
        yield data.replace(old, new)


def test_damaged_files_are_refused(folder):
    path = folder / file_name("conv1/bias")
    data = path.read_bytes()
    copies = list(broken_files(data, random_arrays()["conv1/bias"]))
    assert len(copies) >= 57
    for copy in copies:
        path.write_bytes(copy)
        assert_refused(folder)


def test_random_damage_is_refused_or_gives_finite_weights(folder):
    path = folder / file_name("conv1/bias")
    for copy in flips(path.read_bytes(), 300, seed=6):
        path.write_bytes(copy)
        try:
            arrays = load(folder)
        except WeightsFileError as error:
            assert str(folder) in str(error)
        else:
            assert np.isfinite(arrays["conv1/bias"]).all()


def test_pickled_arrays_are_refused(folder):
    np.save(folder / file_name("conv1/bias"), np.array([{}, []], dtype=object), allow_pickle=True)
    assert_refused(folder)


def test_declared_sizes_are_bounded(folder):
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32))
    with open(folder / file_name("conv1/bias"), "wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (2**45,)})
    check_refused_in_little_memory(folder)


@pytest.mark.parametrize("name", ["extra.npy", "conv0_weight.npy", "net_conv99_weight.npy", "net_convx_bias.npy"])
def test_files_that_belong_to_no_convolution_are_refused(folder, name):
    np.save(folder / name, np.zeros(3, np.float32))
    assert_refused(folder)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(WeightsFileError, match="got 0"):
        npy_folder.read(tmp_path)
