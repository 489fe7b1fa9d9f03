"""The comparison of ways to compress: its bytes are right, and nothing is evaluated on images that calibrated it."""

import sys

import numpy as np
import pytest
from PIL import Image

from experiments import compression, compression_rows
from sqz_keras import Metaparameters, ModelSpec, Preprocessing, resolve_model
from sqz_keras.models.squeezenet import build, named_arrays
from sqz_keras.weights import sqz
from trainers.data.image_reader import read_inputs
from trainers.evaluation.agreement import find_evaluation_images
from trainers.reports.page import save_chart

SMALL = Metaparameters(
    base_e=32, incr_e=8, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,)
)
SPEC = ModelSpec(
    None,
    metaparameters=SMALL,
    classes=3,
    labels=("a", "b", "c"),
    input_size=32,
    preprocessing=Preprocessing(resize_to=32),
)


@pytest.fixture(scope="module")
def arrays():
    return named_arrays(build(SPEC))


@pytest.fixture(scope="module")
def labelled_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for index in range(9):
        image = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{'abc'[index % 3]}_{index}.png")
    return find_evaluation_images(folder, SPEC)


def test_rows_and_plot(arrays, labelled_images, tmp_path):
    kinds = ["zipped", "svd", "pruning", "shared", "lossless"]
    rows = compression.measure(SPEC, arrays, labelled_images, kinds, [], 4)
    by_name = {(row["method"], row["setting"]): row for row in rows}
    assert by_name["float32", ""]["bytes"] == 4 * SPEC.count_params()
    for name in (("float32", ""), ("gzip", "-9"), ("lossless, paper", ""), ("lossless, max", "")):
        assert by_name[name]["agreement"] == 1 and by_name[name]["divergence"] == 0
    assert by_name["SVD", "80% of the energy"]["bytes"] < by_name["SVD", "95% of the energy"]["bytes"]
    for bits in ("6 bits", "5 bits"):
        assert by_name["profile max", bits]["bytes"] < by_name["clustering", bits]["bytes"]
    for suffix in (".svg", ".png"):
        save_chart(compression.plot(rows, compression.PUBLISHED), tmp_path / f"plot{suffix}")
    assert "NNCodec" in (tmp_path / "plot.svg").read_text()


@pytest.mark.parametrize("other", ["--calibration_images=99", "--version=1.1", "--bypass=simple"])
def test_earlier_rows_are_of_the_same_net_and_calibration(
    other, arrays, labelled_images, tmp_path, monkeypatch, run_command
):
    monkeypatch.setattr(compression, "measure", lambda *args: args[-1]([]) or [])
    monkeypatch.setattr(compression, "plot", lambda *_: None)
    monkeypatch.setattr("trainers.reports.page.save_chart", lambda *_: None)
    monkeypatch.setattr("sqz_keras.weights.resolve.resolve_model", lambda *_, **__: (SPEC, arrays))
    options = [f"--image_dir={labelled_images[0][0].parent}", "--rows=zipped"]
    run_command(compression, *options, f"--output={tmp_path / 'first'}")
    options += [f"--earlier={tmp_path / 'first.json'}", f"--output={tmp_path / 'second'}"]
    run_command(compression, *options)
    with pytest.raises(ValueError, match="--earlier="):
        run_command(compression, *options, other)


@pytest.mark.parametrize(
    ("version", "agreement", "end"), [("1.1", 0.87, ""), ("1.1", 0.86, ", which this is not"), ("1.0", 0.87, None)]
)
def test_requirements_are_those_of_the_version(version, agreement, end):
    row = {"method": "label-free", "setting": "for 430,000 bytes", "bytes": 429_000, "agreement": agreement}
    line = compression.describe(row | {"agreement_interval": (0.7, 0.9), "divergence": 0.05}, version)
    assert line.endswith("divergence 0.0500" if end is None else f"required: 87% in 430,000 bytes{end}")


def test_halves_are_judged_by_the_other(arrays, labelled_images, monkeypatch):
    seen, judged = [], []

    def label_free(spec, arrays, calibration, targets):
        seen.append(calibration)
        yield compression_rows.Candidate("label-free", "", 100 + len(seen), litert=bytes([len(seen)]))

    def scores(data, images):
        judged.append((data[0], images))
        return np.eye(3)[np.zeros(len(images), int)]

    monkeypatch.setattr(compression_rows, "label_free", label_free)
    monkeypatch.setattr("sqz_keras.runtimes.run.run_litert", scores)
    (row,) = compression.measure(SPEC, arrays, labelled_images, ["label_free"], [9], 3)
    assert (row["bytes"], row["num_images"]) == (102, 9)
    inputs = read_inputs([path for path, _ in labelled_images], SPEC)
    for number, images in judged:
        for image in images:
            assert not any(np.array_equal(image, other) for other in seen[number - 1])
    assert sum(len(images) for _, images in judged) == len(inputs)
    assert [len(images) for images in seen] == [3, 3]


def test_other_images_calibrate_and_all_are_judged(arrays, labelled_images, monkeypatch):
    seen = []

    def label_free(spec, arrays, calibration, targets):
        seen.append(calibration)
        yield compression_rows.Candidate("label-free", "", 100, arrays)

    monkeypatch.setattr(compression_rows, "label_free", label_free)
    others = np.zeros((2, 32, 32, 3), np.float32)
    (row,) = compression.measure(SPEC, arrays, labelled_images, ["label_free"], [9], 3, others)
    assert seen == [others] and row["num_images"] == 9 and row["agreement"] == 1


def test_files_are_rows_by_the_name_of_their_method(arrays, labelled_images, tmp_path):
    path = tmp_path / "a.sqz"
    path.write_bytes(sqz.encode(SPEC, arrays, {"stages": [{"stage": "tune"}]}))
    (row,) = compression.measure(SPEC, arrays, labelled_images, [], [], 3, files=[path])
    assert (row["method"], row["setting"], row["bytes"]) == ("tune", "a", path.stat().st_size)
    assert (row["num_images"], row["agreement"]) == (9, 1)


NNCODEC = """
import io
import numpy

def encode(model, args):
    assert args["use_dq"] and all(array.shape[0] == array.size or array.ndim == 4 for array in model.values())
    stream = io.BytesIO()
    numpy.savez(stream, **{name: numpy.rint(array / 2 ** (args["qp"] / 4)) for name, array in model.items()})
    return stream.getvalue() + bytes(args["qp"] + 128)

def decode(stream):
    return dict(numpy.load(io.BytesIO(stream)))
"""


def test_a_peer_runs_in_its_own_interpreter(tmp_path, monkeypatch):
    """A stand-in for the package rounds to integers."""
    (tmp_path / "nncodec").mkdir()
    (tmp_path / "nncodec" / "nn.py").write_text(NNCODEC)
    (tmp_path / "nncodec-9.1.dist-info").mkdir()
    (tmp_path / "nncodec-9.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: nncodec\nVersion: 9.1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kernel = np.arange(3 * 2 * 4 * 5, dtype=np.float32).reshape(3, 2, 4, 5)
    rows = list(compression_rows.nncodec({"a/kernel": kernel, "a/bias": np.ones(5, np.float32)}, sys.executable))
    assert [row.method for row in rows] == ["NNCodec 9.1"] * len(compression_rows.NNCODEC_QPS)
    for row, qp in zip(rows, compression_rows.NNCODEC_QPS, strict=True):
        assert row.setting == f"qp {qp}"
        np.testing.assert_array_equal(row.arrays["a/kernel"], np.rint(kernel / np.float32(2 ** (qp / 4))))
        assert row.bytes > 4 * kernel.size


@pytest.mark.large
def test_the_layout_without_entropy_coding_is_the_authors(test_data):
    """The codes, gaps and codebooks of the released net have the size of its file, to the byte."""
    path = test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net"
    spec, arrays = resolve_model(path)
    rows = {(row.method, row.setting): row for row in compression_rows.shared(spec, arrays)}
    assert rows["pruning + clustering", "8 bits"].bytes == path.stat().st_size
