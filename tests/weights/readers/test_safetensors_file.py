import json

import ml_dtypes
import numpy as np
import pytest

from sqz_keras.weights.readers import WeightsFileError, safetensors_file
from tests.weights.readers.mutations import (
    assert_equal,
    broken_arrays,
    check_harmless,
    check_refused,
    check_refused_in_little_memory,
    flips,
    load,
    random_arrays,
    truncations,
)
from tests.weights.readers.test_torch_file import state_dict

FILE_NAME = "net.safetensors"
DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "int8": "I8", "int64": "I64"}


def build(state, edit=lambda header: None, metadata=True):
    """The bytes of a file; `edit` may change its header."""
    header, values = {"__metadata__": {"format": "pt"}} if metadata else {}, b""
    for name, array in state.items():
        offsets = [len(values), len(values) + array.nbytes]
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        values += array.tobytes()
    edit(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_reads_what_was_written(path, dtype, prefix):
    arrays = {name: array.astype(dtype).astype(np.float32) for name, array in random_arrays().items()}
    state = {f"{prefix}{name}": array.astype(dtype) for name, array in state_dict(arrays).items()}
    path.write_bytes(build(state, metadata=not prefix))
    assert_equal(load(path), arrays)


def test_counters_are_left_out_and_other_integers_refused(path):
    state = state_dict(random_arrays())
    path.write_bytes(build(state | {"num_batches_tracked": np.array(5)}))
    assert_equal(load(path), random_arrays())
    path.write_bytes(build(state | {"features.0.bias": state["features.0.bias"].astype(np.int64)}))
    with pytest.raises(WeightsFileError, match=r"'features\.0\.bias' must be one of .*, got 'I64'; quantised"):
        load(path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_reads_what_the_package_writes(path, dtype):
    package = pytest.importorskip("safetensors.numpy", reason="the package writes the file of this test")
    arrays = {name: array.astype(dtype).astype(np.float32) for name, array in random_arrays().items()}
    state = {name: array.astype(dtype) for name, array in state_dict(arrays).items()}
    path.write_bytes(package.save(state, {"format": "pt"}))
    assert_equal(load(path), arrays)


def entry(**changes):
    return lambda header: header["features.0.bias"].update(changes)


def swapped(header):
    header["features.0.bias"], header["classifier.1.bias"] = header["classifier.1.bias"], header["features.0.bias"]
    header["features.0.bias"]["data_offsets"], header["classifier.1.bias"]["data_offsets"] = (
        header["classifier.1.bias"]["data_offsets"],
        header["features.0.bias"]["data_offsets"],
    )


EDITS = {
    "other dtype": entry(dtype="F16"),
    "integers": entry(dtype="I32"),
    "8 bits": entry(dtype="F8_E4M3"),
    "no dtype": lambda header: header["features.0.bias"].pop("dtype"),
    "a list as dtype": entry(dtype=["F32"]),
    "more fields": entry(strides=[1]),
    "huge": entry(shape=[2**40]),
    "product of nothing": entry(shape=[]),
    "zero": entry(shape=[0]),
    "negative": entry(shape=[-4]),
    "a boolean": entry(shape=[True]),
    "a float": entry(shape=[4.0]),
    "many dimensions": entry(shape=[1] * 1000 + [4]),
    "text as shape": entry(shape="4"),
    "offsets beyond the end": entry(data_offsets=[2**40, 2**40 + 16]),
    "negative offsets": entry(data_offsets=[-16, 0]),
    "offsets of another": lambda header: header["features.0.bias"].update(
        data_offsets=header["classifier.1.bias"]["data_offsets"], shape=[10]
    ),
    "three offsets": entry(data_offsets=[0, 16, 32]),
    "a hole": lambda header: header.pop("features.3.squeeze.bias"),
    "entries swapped": swapped,
    "no object": lambda header: header.update({"features.0.bias": 3}),
    "no tensors": lambda header: header.clear(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_header_is_refused(path, edit):
    assert check_refused(path, [build(state_dict(random_arrays()), EDITS[edit])]) == 1


@pytest.mark.parametrize("text", [b"[]", b"{", b"3", b"", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000])
def test_headers_that_are_no_header_are_refused(path, text):
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(WeightsFileError, match=path.name):
        safetensors_file.read(path)


def test_a_name_that_is_there_twice_is_refused(path):
    data = build(state_dict(random_arrays()))
    size = int.from_bytes(data[:8], "little")
    twice = data[8 : 8 + size].replace(b"features.3.squeeze.bias", b"features.4.squeeze.bias")
    path.write_bytes(data[:8] + twice + data[8 + size :])
    with pytest.raises(WeightsFileError, match=r"'features.4.squeeze.bias' occurs twice"):
        safetensors_file.read(path)


def structural(arrays):
    data = build(state_dict(arrays))
    yield from truncations(data, 80)
    yield from (data + extra for extra in (b"\0", b"\0" * 100, data, data[: len(data) // 2]))
    yield from (build(state_dict(broken)) for broken in broken_arrays(arrays))
    yield build({**state_dict(arrays), "features.1.weight": np.ones((4, 4, 1, 1), np.float32)})


def test_structural_damage_is_refused(path):
    assert check_refused(path, structural(random_arrays())) > 250


def test_random_damage_is_refused_or_gives_finite_weights(path):
    data = build(state_dict(random_arrays()))
    assert check_harmless(path, flips(data, 300, seed=6)) == 300
    header = 8 + int.from_bytes(data[:8], "little")
    assert check_harmless(path, (copy + data[header:] for copy in flips(data[:header], 300, seed=7))) == 300


def test_declared_sizes_are_bounded_before_anything_is_allocated(path):
    for shape in ([2**29], [2**20, 2**20], [3, 2**40]):
        path.write_bytes(build(state_dict(random_arrays()), entry(shape=shape)))
        check_refused_in_little_memory(path)
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    check_refused_in_little_memory(path)
