"""The self-test passes for the right model in any runtime, and fails for a wrong model."""

import numpy as np
import pytest

from sqz_keras.runtimes import litert_file, onnx_file, self_test
from sqz_keras.runtimes.run import run_litert, run_onnx
from sqz_keras.weights import sqz
from tests.export.samples import small_spec
from tests.runtimes.nets import telling_arrays

SPEC = small_spec()


@pytest.fixture(scope="module")
def arrays():
    return telling_arrays(SPEC)


def litert(arrays, **options):
    data = litert_file.convert(SPEC, arrays, **options)
    return lambda images: run_litert(data, images)


@pytest.fixture(scope="module")
def made(arrays):
    return self_test.make(SPEC, litert(arrays))


def test_it_travels_in_the_header(arrays, made, tmp_path):
    path = tmp_path / "net.sqz"
    path.write_bytes(sqz.encode(SPEC, arrays, self_test=made))
    assert sqz.read_model(path).header[sqz.SELF_TEST_KEY] == made
    assert len(sqz.encode(SPEC, arrays, self_test=made)) - len(sqz.encode(SPEC, arrays)) < 500


def test_every_runtime_passes(arrays, made):
    onnx = onnx_file.convert(SPEC, arrays)
    for run in (litert(arrays), litert(arrays, float16=True), lambda images: run_onnx(onnx, images)):
        self_test.check(made, SPEC, run)


def test_another_model_fails(arrays, made):
    other = arrays | {"conv10/bias": arrays["conv10/bias"] + np.arange(10, dtype=np.float32)}
    with pytest.raises(self_test.SelfTestError, match="expected the probabilities"):
        self_test.check(made, SPEC, litert(other))
    with pytest.raises(self_test.SelfTestError, match="nan"):
        self_test.check(made, SPEC, lambda images: np.full((1, 10), np.nan, np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"tiles": "AAAA"},
        {"tiles": "~"},
        {"tiles": 1},
        {"classes": [10]},
        {"classes": [-1]},
        {"classes": [True]},
        {"classes": []},
        {"classes": None},
        {"probabilities": [0.5]},
        {"probabilities": ["0.5"] * 5},
        {"more": 1},
    ],
)
def test_what_is_none_is_refused(arrays, made, change):
    with pytest.raises(self_test.SelfTestError, match=r"malformed|contains no self-test"):
        self_test.check(made | change, SPEC, litert(arrays))
    with pytest.raises(self_test.SelfTestError, match="contains no self-test"):
        self_test.check(None, SPEC, litert(arrays))
