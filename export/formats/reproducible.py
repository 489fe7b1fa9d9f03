"""Writes a SavedModel whose bytes depend on the model and the installed packages alone.

TensorFlow numbers what it traces over the life of a process, so a second export in one process differs from the first;
and Keras builds models according to settings of the process. A separate process therefore writes the SavedModel: it
starts with the same numbers and with Keras's defaults, whatever the caller has done. TensorFlow chooses only the
fingerprint's uuid at random; here it is computed from the fingerprint's checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping

import numpy as np

from export import contract
from sqz_keras import ModelSpec

_ARRAYS, _SPEC, _ERROR = "arrays.npz", "spec.json", "error.txt"
_STATUS = {ValueError: 2, OSError: 3}  # the process's exit status for an error; the message is in _ERROR


def write_saved_model(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    folder: str | os.PathLike,
    precision: str = contract.PRECISIONS[0],
) -> None:
    """Fills an empty folder with the SavedModel, its description, warm-up records and checksums, and verifies it.

    Args:
        spec: Describes the model.
        arrays: The model's weights by name, float32.
        folder: The folder to fill.
        precision: One of `contract.PRECISIONS`: what the network computes in.

    Raises:
        ValueError: The SavedModel cannot be loaded, or does not answer as Keras does.
        OSError: Writing failed.
    """
    with tempfile.TemporaryDirectory(prefix="sqz-export-") as scratch:
        np.savez(os.path.join(scratch, _ARRAYS), **arrays)
        pathlib.Path(scratch, _SPEC).write_text(json.dumps(spec.to_json()), "utf-8")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHASHSEED": "0",
            "KERAS_BACKEND": "tensorflow",
            "KERAS_HOME": scratch,  # without a user's keras.json
            "CUDA_VISIBLE_DEVICES": "-1",  # this machine's devices must not affect the graph
        }
        environment.pop("TF_USE_LEGACY_KERAS", None)
        # -P: no file in the current folder is taken for a module.
        command = [sys.executable, "-P", "-m", "export.formats.reproducible", scratch, os.fspath(folder), precision]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        for kind, status in _STATUS.items():
            if done.returncode == status:
                raise kind(pathlib.Path(scratch, _ERROR).read_text("utf-8"))
        if done.returncode:
            raise OSError(f"The process that writes the SavedModel ended with {done.returncode}: {done.stderr[-2000:]}")


def write_in_this_process(
    spec: ModelSpec, arrays: Mapping[str, np.ndarray], folder: str | os.PathLike, precision: str
) -> None:
    """Does what `write_saved_model` does, but the bytes depend on what this process has done before."""
    from export import verify, warmup
    from export.graph.signatures import ServedModel
    from sqz_keras.weights.description import write_spec

    folder = pathlib.Path(folder)
    with tempfile.TemporaryDirectory(prefix="sqz-export-") as scratch:
        labels_path = pathlib.Path(scratch, contract.LABELS_NAME)
        labels_path.write_text(verify.labels_text(spec), "utf-8")
        ServedModel(spec, arrays, labels_path, precision).save(folder)
    rewrite_fingerprint(folder)
    extra = folder / contract.EXTRA_FOLDER
    extra.mkdir()
    write_spec(extra / contract.SPEC_NAME.removesuffix(".spec.json"), spec, arrays)
    warmup.write(folder)
    verify.write_checksums(folder)
    verify.verify(folder)


def rewrite_fingerprint(folder: pathlib.Path) -> None:
    """Computes fingerprint.pb again for the present saved_model.pb, with a uuid that follows from the rest of it."""
    from tensorflow.core.protobuf import fingerprint_pb2

    # No public function does this; a test reads the fingerprint back.
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    fingerprint = fingerprint_pb2.FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(os.fspath(folder)))
    fingerprint.uuid = ""
    digest = hashlib.sha256(fingerprint.SerializeToString(deterministic=True)).digest()
    fingerprint.uuid = str(uuid.UUID(bytes=digest[:16]).int)
    (folder / "fingerprint.pb").write_bytes(fingerprint.SerializeToString(deterministic=True))


def main() -> None:
    """What the separate process runs."""
    import tensorflow as tf

    scratch, folder, precision = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    try:
        spec = ModelSpec.from_json(json.loads((scratch / _SPEC).read_text("utf-8")))
        with np.load(scratch / _ARRAYS, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in spec.weight_shapes()}
        write_in_this_process(spec, arrays, folder, precision)
    except (ValueError, OSError, tf.errors.OpError) as error:
        (scratch / _ERROR).write_text(str(error), "utf-8")
        sys.exit(_STATUS[ValueError if isinstance(error, ValueError) else OSError])


if __name__ == "__main__":
    main()
