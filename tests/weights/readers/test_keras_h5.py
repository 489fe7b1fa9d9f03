import io
import zipfile
import zlib

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from sqz_keras.weights.readers import WeightsFileError, keras_h5
from tests.weights.readers.mutations import (
    SHAPES,
    assert_equal,
    broken_arrays,
    check_harmless,
    check_refused,
    check_refused_in_little_memory,
    flips,
    layers_of,
    load,
    random_arrays,
    truncations,
)


def keras3(arrays, edit=lambda file: None):
    """A `.weights.h5` as Keras 3 writes it."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for i, (layer, parts) in enumerate(layers_of(arrays).items()):
            variables = file.create_group(f"layers/conv2d_{i}/vars")
            variables.attrs["name"] = layer
            for j, array in enumerate(parts.values()):
                variables[str(j)] = array
        file.create_group("layers/dropout/vars").attrs["name"] = "drop9"
        file.create_group("vars").attrs["name"] = "squeezenet"
        file.create_group("optimizer/vars")["0"] = np.int64(3)
        file.create_group("metrics/mean/vars")["0"] = np.float32(3)
        edit(file)
    return stream.getvalue()


def legacy(arrays, edit=lambda file: None, rename=lambda layer: layer):
    """A legacy `.h5`, as Keras 1, 2 and tf_keras write it."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        layers = layers_of(arrays)
        file.attrs["layer_names"] = np.array([*(rename(layer).encode() for layer in layers), b"drop9"])
        file.create_group("drop9").attrs["weight_names"] = np.zeros(0)
        for layer, parts in layers.items():
            group = file.create_group(rename(layer))
            names = [f"{rename(layer)}/{part}:0" for part in parts]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, array in zip(names, parts.values(), strict=True):
                group[name] = array
        edit(file)
    return stream.getvalue()


def archived(data, name="model.weights.h5", compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("config.json", '{"class_name": "Lambda", "config": "never looked at"}')
        archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def a_process_for_each_file(ask_worker, monkeypatch):
    """Reads every file in a process of its own, as for users: some of these files make the process crash."""
    monkeypatch.setattr(keras_h5, "ask_worker", ask_worker)


WRITERS = {"net.weights.h5": keras3, "net.h5": legacy, "net.keras": lambda arrays: archived(keras3(arrays))}


@pytest.mark.parametrize("name", WRITERS)
def test_reads_what_was_written(tmp_path, name):
    (tmp_path / name).write_bytes(WRITERS[name](random_arrays()))
    assert_equal(load(tmp_path / name), random_arrays())


def test_names_of_keras_squeezenet(tmp_path):
    path = tmp_path / "squeezenet_weights_tf_dim_ordering_tf_kernels.h5"
    path.write_bytes(legacy(random_arrays(), rename=lambda layer: layer.replace("_", "/")))
    assert_equal(load(path), random_arrays())


def build(module, arrays, rename=lambda layer: layer):
    """A model of `SPEC`'s convolutions, in Keras or tf_keras, whose fire modules are made in an unusual order."""

    def conv(x, layer):
        height, _, _, filters = SHAPES[f"{layer}/kernel"]
        return module.layers.Conv2D(filters, height, padding="same", name=rename(layer))(x)

    inputs = module.Input((8, 8, 3))
    x = conv(inputs, "conv1")
    for number in range(2, 10):
        squeezed = conv(x, f"fire{number}_squeeze1x1")
        expanded3x3 = conv(squeezed, f"fire{number}_expand3x3")
        x = module.layers.Concatenate()([conv(squeezed, f"fire{number}_expand1x1"), expanded3x3])
    x = module.layers.Dropout(0.5, name="drop9")(x)
    model = module.Model(inputs, module.layers.GlobalAveragePooling2D()(conv(x, "conv10")))
    for layer, parts in layers_of(arrays).items():
        model.get_layer(rename(layer)).set_weights(list(parts.values()))
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.filterwarnings("ignore:.*HDF5.*")
def test_reads_what_keras_writes(tmp_path):
    model = build(keras, random_arrays())
    model.save_weights(tmp_path / "net.weights.h5")
    model.save(tmp_path / "net.keras")
    model.save(tmp_path / "whole.h5")
    for name in ("net.weights.h5", "net.keras", "whole.h5"):
        assert_equal(load(tmp_path / name), random_arrays())


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras"])
def test_bfloat16_is_read(tmp_path, name):
    """Keras writes each value as two opaque bytes, and the type as an attribute."""
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = build(keras, random_arrays())
    finally:
        keras.config.set_dtype_policy("float32")
    (model.save if name.endswith(".keras") else model.save_weights)(tmp_path / name)
    rounded = {name: array.astype(ml_dtypes.bfloat16).astype(np.float32) for name, array in random_arrays().items()}
    assert_equal(load(tmp_path / name), rounded)


@pytest.mark.filterwarnings("ignore:.*HDF5.*")
@pytest.mark.parametrize("separator", ["_", "/"])
def test_reads_what_tf_keras_writes(tmp_path, separator):
    tf_keras = pytest.importorskip("tf_keras", reason="the compression extra is not installed")
    model = build(tf_keras, random_arrays(), lambda layer: layer.replace("_", separator))
    model.save_weights(tmp_path / "weights.h5")
    model.save(tmp_path / "whole.h5")
    for name in ("weights.h5", "whole.h5"):
        assert_equal(load(tmp_path / name), random_arrays())
    if separator == "_":
        model.save_weights(tmp_path / "net.weights.h5")
        with pytest.raises(WeightsFileError, match=r"does not say which layer .* save it again"):
            keras_h5.read(tmp_path / "net.weights.h5")


def replace(name, make):
    """An edit that replaces a dataset with what `make` creates."""

    def edit(file):
        group, _, key = name.rpartition("/")
        del file[name]
        make(file[group or "/"], key, file)

    return edit


FIRST = "layers/conv2d_0/vars/1"
ARRAY = random_arrays()["conv1/bias"]
EDITS = {
    "soft link": replace(FIRST, lambda group, key, _: group.__setitem__(key, h5py.SoftLink("/layers/conv2d_1/vars/1"))),
    "external link": replace(FIRST, lambda group, key, _: group.__setitem__(key, h5py.ExternalLink("other.h5", "/x"))),
    "external storage": replace(
        FIRST, lambda group, key, _: group.create_dataset(key, (4,), "f4", external=[("/etc/hostname", 0, 16)])
    ),
    "virtual": replace(FIRST, lambda group, key, _: group.create_virtual_dataset(key, h5py.VirtualLayout((4,), "f4"))),
    "chunked": replace(FIRST, lambda group, key, _: group.create_dataset(key, data=ARRAY, chunks=(2,))),
    "compressed": replace(FIRST, lambda group, key, _: group.create_dataset(key, data=ARRAY, compression="gzip")),
    "without values": replace(FIRST, lambda group, key, _: group.create_dataset(key, (4,), "f4")),
    "huge": replace(FIRST, lambda group, key, _: group.create_dataset(key, (2**40,), "f4")),
    "integers": replace(FIRST, lambda group, key, _: group.__setitem__(key, ARRAY.astype(np.int32))),
    "halves without a type": replace(FIRST, lambda group, key, _: group.__setitem__(key, np.zeros(ARRAY.shape, "V2"))),
    "text": replace(FIRST, lambda group, key, _: group.__setitem__(key, "weights")),
    "empty": replace(FIRST, lambda group, key, _: group.__setitem__(key, h5py.Empty("f4"))),
    "scalar": replace(FIRST, lambda group, key, _: group.__setitem__(key, np.float32(1))),
    "group": replace(FIRST, lambda group, key, _: group.create_group(key)),
    "third weight": lambda file: file["layers/conv2d_0/vars"].__setitem__("2", ARRAY),
    "no name": lambda file: file["layers/conv2d_0/vars"].attrs.__delitem__("name"),
    "number as name": lambda file: file["layers/conv2d_0/vars"].attrs.__setitem__("name", 3),
    "two names": lambda file: file["layers/conv2d_0/vars"].attrs.__setitem__("name", ["conv1", "conv10"]),
    "other name": lambda file: file["layers/conv2d_0/vars"].attrs.__setitem__("name", "dense"),
    "name twice": lambda file: file["layers/conv2d_0/vars"].attrs.__setitem__("name", "conv10"),
    "own head": lambda file: file.create_dataset("layers/dense/vars/0", data=ARRAY),
    "stray dataset": lambda file: file.__setitem__("layers/stray", ARRAY),
    "cycle": lambda file: file["layers"].__setitem__("again", file["/"]),
    "no layers": lambda file: file.__delitem__("layers"),
}


LEGACY_EDITS = {
    "layer missing": lambda file: file.__delitem__("conv1"),
    "weight missing": lambda file: file.__delitem__("conv1/conv1/bias:0"),
    "no list of weights": lambda file: file["conv1"].attrs.__delitem__("weight_names"),
    "one weight": lambda file: file["conv1"].attrs.__setitem__("weight_names", [b"conv1/kernel:0"]),
    "other order": lambda file: file["conv1"].attrs.__setitem__("weight_names", [b"conv1/bias:0", b"conv1/kernel:0"]),
    "numbers for names": lambda file: file["conv1"].attrs.__setitem__("weight_names", [1.0, 2.0]),
    "layer twice": lambda file: file.attrs.__setitem__("layer_names", [b"conv1", b"conv1"]),
    "soft link": replace("conv1/conv1/bias:0", lambda group, key, _: group.__setitem__(key, h5py.SoftLink("/conv10"))),
    "link to a file": replace("conv1", lambda group, key, file: file.__setitem__(key, h5py.ExternalLink("x.h5", "/"))),
}


def structural(write, arrays):
    data = write(arrays)
    yield from truncations(data, 12)
    yield from (data + extra for extra in (b"\0", b"\0" * 4096, data))
    yield from (write(broken) for broken in list(broken_arrays(arrays))[::5])


def contained(copy):
    """The bytes that `read` would pass to the worker, or None if it refuses the file before that."""
    if not copy.startswith(b"PK"):
        return copy
    try:
        with zipfile.ZipFile(io.BytesIO(copy)) as archive:
            return archive.read("model.weights.h5")
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return None


@pytest.fixture
def one_worker(ask_worker, monkeypatch):
    """Lets one process read many files, and a new one take over after a crash, since a process per file is slow."""

    def answer_beforehand(copies):
        answers = {}
        waiting = list(dict.fromkeys(data for copy in copies if (data := contained(copy)) is not None))
        while waiting:
            replies = ask_worker(waiting)
            answers.update(zip(waiting, replies, strict=False))
            answers.update(dict.fromkeys(waiting[len(replies) : len(replies) + 1]))
            waiting = waiting[len(replies) + 1 :]
        monkeypatch.setattr(keras_h5, "ask_worker", lambda files: [answers[files[0]]] if answers[files[0]] else [])
        return copies

    return answer_beforehand


@pytest.mark.parametrize("name", ["net.weights.h5", "net.h5"])
def test_structural_damage_is_refused(tmp_path, name, one_worker):
    copies = one_worker(list(structural(WRITERS[name], random_arrays())))
    assert check_refused(tmp_path / name, copies) > 50


@pytest.mark.parametrize("name", WRITERS)
def test_random_damage_is_refused_or_gives_finite_weights(tmp_path, name, one_worker):
    copies = one_worker(list(flips(WRITERS[name](random_arrays()), 70, seed=8)))
    assert check_harmless(tmp_path / name, copies) == 70


@pytest.mark.parametrize("edits", [EDITS, LEGACY_EDITS], ids=["Keras 3", "legacy"])
def test_an_edited_file_is_refused(tmp_path, edits, one_worker):
    write = keras3 if edits is EDITS else legacy
    copies = [write(random_arrays(), edit) for edit in edits.values()]
    assert check_refused(tmp_path / "net.h5", one_worker(copies)) == len(edits)


def test_a_crash_of_the_hdf5_library_is_an_error_like_any_other(tmp_path, monkeypatch):
    script = tmp_path / "crash.py"
    script.write_text("import os; os.abort()")
    monkeypatch.setattr(keras_h5, "_WORKER", script)
    assert check_refused(tmp_path / "net.h5", [legacy(random_arrays())]) == 1


def test_a_worker_that_hangs_is_ended(tmp_path, monkeypatch):
    script = tmp_path / "hang.py"
    script.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(keras_h5, "_WORKER", script)
    monkeypatch.setattr(keras_h5, "_SECONDS", 0.5)
    assert check_refused(tmp_path / "net.h5", [legacy(random_arrays())]) == 1


def test_archives_that_are_no_keras_file_are_refused(tmp_path):
    data = keras3(random_arrays())
    copies = [
        archived(data, name="weights.h5"),
        archived(data, name="../model.weights.h5"),
        archived(data, compression=zipfile.ZIP_DEFLATED),
        archived(b"PK"),
        archived(archived(data)),
        *truncations(archived(data), 30),
    ]
    assert check_refused(tmp_path / "net.keras", copies) == 35


def test_declared_sizes_are_bounded(tmp_path):
    path = tmp_path / "net.weights.h5"
    path.write_bytes(keras3(random_arrays(), EDITS["huge"]))
    check_refused_in_little_memory(path)
    path = tmp_path / "net.keras"
    path.write_bytes(archived(b"\0" * (64 << 20), compression=zipfile.ZIP_DEFLATED))
    check_refused_in_little_memory(path)
