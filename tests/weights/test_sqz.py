"""A `.sqz` file as a model: whatever takes weights takes it, and a file that holds no model is refused by name."""

import dataclasses

import numpy as np
import pytest

import sqz_keras
from sqz_keras import Metaparameters, ModelSpec, codec
from sqz_keras.architecture.spec import hash_arrays
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights import sqz
from sqz_keras.weights.readers import WeightsFileError, read_arrays

SMALL = Metaparameters(base_e=8, incr_e=8, squeeze_ratio=0.5, stem_filters=4, stem_kernel=3)
SPEC = ModelSpec(version=None, metaparameters=SMALL, classes=3, labels=("a", "b", "c"), input_size=40)


@pytest.fixture(scope="module")
def arrays():
    return kmeans(named_arrays(build(SPEC)), 4)


def write(path, arrays, header=None, **options):
    header = sqz.header(SPEC, arrays, {"stages": []}) if header is None else header
    path.write_bytes(codec.encode(arrays, header, **options))
    return path


@pytest.mark.parametrize("profile", ["paper", "max"])
def test_a_file_is_a_model(tmp_path, arrays, profile):
    path = write(tmp_path / "model.sqz", arrays, profile=profile)
    spec, read = sqz_keras.resolve_model(path)
    assert dataclasses.replace(spec, weights_sha256=None) == SPEC
    assert spec.weights_sha256 == hash_arrays(arrays)
    assert list(read) == list(arrays) == list(read_arrays(path))
    for name in arrays:
        np.testing.assert_array_equal(read[name], arrays[name])
    assert sqz.read_model(path).profile == profile


def test_builders_take_it(tmp_path, arrays):
    path = write(tmp_path / "model.sqz", arrays)
    inputs = np.ones((1, 40, 40, 3), np.float32)
    expected = build(SPEC, arrays)(inputs)
    np.testing.assert_array_equal(sqz_keras.load(path)(inputs), expected)
    model = sqz_keras.squeezenet_from_metaparameters(SMALL, (40, 40, 3), classes=3, weights=path)
    np.testing.assert_array_equal(model(inputs), expected)
    trunk = sqz_keras.squeezenet_from_metaparameters(SMALL, include_top=False, weights=str(path))
    assert "conv10/kernel" not in named_arrays(trunk)
    with pytest.raises(ValueError, match=r"the model is of version 1\.1"):
        sqz_keras.SqueezeNet(weights=path, classes=3, version="1.1")
    with pytest.raises(ValueError, match=r"holds Metaparameters\(.* with bypass=None, but version"):
        sqz_keras.resolve_model(path, version="1.0")


def test_every_damage_names_the_file(tmp_path, arrays):
    data = write(tmp_path / "model.sqz", arrays).read_bytes()
    damaged = {"empty": b"", "short": data[: len(data) // 2], "long": data + b"\0", "other": b"text" * 99}
    damaged["flipped"] = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    for name, content in damaged.items():
        path = tmp_path / f"{name}.sqz"
        path.write_bytes(content)
        with pytest.raises(WeightsFileError, match=rf"{name}\.sqz: .*at byte \d+"):
            sqz_keras.resolve_model(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "describes no model"),
        ({"model_spec": {"classes": 3}}, "describes no model"),
        ({"model_spec": {"classes": "x"}, "provenance": {}}, "describes no model"),
        ({"model_spec": [], "provenance": {}}, "describes no model"),
        ({"model_spec": {"version": "1.0"}, "provenance": []}, "provenance must be"),
        ({"model_spec": {"version": "1.0"}, "provenance": {}}, "do not fit the network"),
        ({"model_spec": SPEC.to_json() | {"weights_sha256": "0" * 64}, "provenance": {}}, "whose hash the file states"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, arrays, header, message):
    path = write(tmp_path / "model.sqz", arrays, header)
    with pytest.raises(WeightsFileError, match=rf"model\.sqz: .*{message}"):
        sqz_keras.resolve_model(path)


def test_a_delta_needs_its_base(tmp_path, arrays):
    base = write(tmp_path / "old.sqz", arrays)
    changed = arrays | {"conv10/bias": arrays["conv10/bias"] + 1}
    delta = write(tmp_path / "delta.sqz", changed, base=base.read_bytes())
    with pytest.raises(WeightsFileError, match=r"delta\.sqz: .*sqz-receive .*delta\.sqz --base=OLD\.sqz"):
        sqz_keras.resolve_model(delta)
    read = sqz.read_model(delta, base).arrays
    for name in changed:
        np.testing.assert_array_equal(read[name], changed[name])
