"""`sqz-export --verify` finds whatever is not as exported, and an export checks this before its version appears."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from export import contract, export, verify, warmup
from export.formats.saved_model import export_saved_model
from sqz_keras import resolve_model
from sqz_keras.weights.description import write_spec

FILES = (
    "saved_model.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets/labels.txt",
    "assets.extra/model.spec.json",
    "assets.extra/tf_serving_warmup_requests",
)


@pytest.fixture
def version(base_path, tmp_path):
    """A copy of the exported version, to be damaged."""
    return shutil.copytree(base_path / "3", tmp_path / "3")


@pytest.fixture(scope="module")
def served(base_path):
    return tf.saved_model.load(os.fspath(base_path / "3"))


@pytest.fixture(scope="module")
def answer(spec, arrays):
    return verify.keras_answer(spec, arrays, verify.TOLERANCES["float32"])


def records(folder):
    path = folder / contract.EXTRA_FOLDER / contract.WARMUP_NAME
    for data in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(data)


def test_command(base_path, spec, run_command, capsys):
    run_command(export, f"--verify={base_path / '3'}")
    checked = f"7 files, {spec.count_params():,} weights, 10 labels, 12 warm-up calls in float32: as exported"
    assert capsys.readouterr().out == f"{base_path / '3'}: {checked}\n"
    for folder in (base_path, base_path / "4"):
        with pytest.raises(ValueError, match="not a version that sqz-export wrote"):
            run_command(export, f"--verify={folder}")


@pytest.mark.large
def test_bfloat16(tmp_path, spec, arrays, answer, in_this_process):
    """Its answers differ a little from Keras's, and it is recognised as bfloat16."""
    folder = export_saved_model(spec, arrays, tmp_path, precision="bfloat16")
    assert "12 warm-up calls in bfloat16" in verify.verify(folder)
    with pytest.raises(ValueError, match="as Keras does"):
        verify.check_answers(folder, tf.saved_model.load(os.fspath(folder)), answer)


def test_every_file_is_covered(version):
    names = {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()}
    assert names == {*FILES, f"{contract.EXTRA_FOLDER}/{verify.CHECKSUMS_NAME}"}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_truncated_or_missing_file_is_found(version, name):
    path = version / name
    content = path.read_bytes()
    at = len(content) // 2
    for damaged in (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"not as they were exported, first {name}"):
            verify.verify(version)
    path.unlink()
    with pytest.raises(ValueError, match=f"missing, first {name}"):
        verify.verify(version)


def test_a_file_without_a_checksum_is_found(version):
    (version / "variables" / "new").touch()
    with pytest.raises(ValueError, match=r"not in SHA256SUMS, first variables/new\."):
        verify.verify(version)


def test_what_does_not_belong_together_is_found_with_right_checksums_too(version, spec, arrays):
    path = version / "assets" / contract.LABELS_NAME
    path.write_text(path.read_text().replace("digit 3", "digit three"))
    verify.write_checksums(version)
    with pytest.raises(ValueError, match="does not name the classes"):
        verify.verify(version)
    described = version / contract.EXTRA_FOLDER / contract.SPEC_NAME
    form = json.loads(described.read_text())
    form["tensors"]["conv1/bias"]["sha256"] = "0" * 64
    described.write_text(json.dumps(form))
    verify.write_checksums(version)
    with pytest.raises(ValueError, match="conv1/bias"):
        verify.verify(version)


def test_a_graph_that_answers_otherwise_than_its_weights_is_found(version):
    """The description names another preprocessing mode, as if the exported graph's preprocessing had an error."""
    spec, arrays = resolve_model(version)
    other = dataclasses.replace(spec, preprocessing=dataclasses.replace(spec.preprocessing, mode="tf"))
    write_spec(version / contract.EXTRA_FOLDER / "model", other, arrays)
    verify.write_checksums(version)
    with pytest.raises(ValueError, match=r"serving_default with 1 .* as Keras does: .*probabilities"):
        verify.verify(version)


def test_each_signature_is_warmed_up_with_each_batch_size(base_path):
    seen = []
    for log in records(base_path / "3"):
        request = getattr(log, log.WhichOneof("log_type")).request
        if log.HasField("classify_log"):
            count = len(request.input.example_list.examples)
        else:
            ((_, values),) = request.inputs.items()
            count = values.tensor_shape.dim[0].size
        seen.append((request.model_spec.name, request.model_spec.signature_name, count))
    expected = [("squeezenet", signature.name, size) for signature in contract.EXPORTED for size in warmup.BATCH_SIZES]
    assert seen == expected
    assert len(seen) <= 1000, "a server refuses more"
    assert (base_path / "3" / contract.EXTRA_FOLDER / contract.WARMUP_NAME).stat().st_size < 200_000


@pytest.mark.parametrize("field", ["probabilities", "features"])
def test_each_answer_is_compared(base_path, served, answer, field):
    values = getattr(answer, field)
    assert verify.check_answers(base_path / "3", served, answer) == 12
    assert np.ptp(values) > 0.01, "the classes must differ"
    wrong = dataclasses.replace(answer, **{field: values + np.float32(1e-4 * values.max())})
    with pytest.raises(ValueError, match=f"as Keras does.*{field}"):
        verify.check_answers(base_path / "3", served, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logs: logs[:-1], "expected warm-up calls"),
        (lambda logs: [*logs, logs[0]], "expected warm-up calls"),
        (lambda logs: [logs[0][:-9]], "not the warm-up records"),
        (lambda logs: [logs[0].replace(b"serving_default", b"serving_missing")], "call of serving_missing with 1"),
        (lambda logs: [logs[3].replace(b"\xff\xd8\xff", b"GIF")], "status b'not a JPEG or PNG"),
    ],
)
def test_records_that_fail_are_found(version, served, answer, change, message):
    path = version / contract.EXTRA_FOLDER / contract.WARMUP_NAME
    logs = [log.SerializeToString(deterministic=True) for log in records(version)]
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for log in change(logs):
            writer.write(log)
    with pytest.raises(ValueError, match=message):
        verify.check_answers(version, served, answer)


def test_a_failing_warm_up_stops_the_export(tmp_path, monkeypatch, spec, arrays, in_this_process):
    """The examples in the warm-up records hold no image."""
    monkeypatch.setattr(warmup, "_example", tf.train.Example)
    with pytest.raises(ValueError, match="classify with 1 images does not answer as Keras does"):
        export_saved_model(spec, arrays, tmp_path / "served")
    assert os.listdir(tmp_path / "served") == []
