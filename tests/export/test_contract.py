"""The contract is true of what is exported, and can be read without TensorFlow."""

import subprocess
import sys

import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

import sqz_keras
from export import contract


@pytest.fixture(scope="module")
def signature_defs(base_path):
    saved_model = saved_model_pb2.SavedModel.FromString((base_path / "3" / "saved_model.pb").read_bytes())
    return dict(saved_model.meta_graphs[0].signature_def)


@pytest.mark.parametrize("signature", contract.EXPORTED, ids=lambda signature: signature.name)
def test_exported_signatures_are_the_contract(signature_defs, signature):
    def seen(tensors):
        return {name: (info.dtype, [dim.size for dim in info.tensor_shape.dim]) for name, info in dict(tensors).items()}

    def promised(tensors):
        sizes = {"batch": -1, "height": -1, "width": -1, "classes": 10, "k": 5, "channels": 8}
        dtypes = {"float32": types_pb2.DT_FLOAT, "int32": types_pb2.DT_INT32, "string": types_pb2.DT_STRING}
        return {
            tensor.name: (dtypes[tensor.dtype], [sizes.get(size, size) for size in tensor.shape]) for tensor in tensors
        }

    signature_def = signature_defs[signature.name]
    assert seen(signature_def.inputs) == promised([signature.input])
    assert seen(signature_def.outputs) == promised(signature.outputs)
    assert signature_def.method_name == signature.method_name


def test_nothing_else_is_exported(signature_defs):
    assert set(signature_defs) - {"__saved_model_init_op"} == {signature.name for signature in contract.EXPORTED}


def test_names_are_those_that_tensorflow_serving_needs():
    signatures = contract.EXPORTED
    assert [signature.name for signature in signatures] == ["serving_default", "serve_bytes", "classify", "features"]
    assert contract.CLASSIFY.input.name == "inputs"
    assert {output.name for output in contract.CLASSIFY.outputs} == {"classes", "scores"}
    names = [output.name for signature in signatures for output in signature.outputs]
    assert not [name for name in names if name.endswith("_bytes")]


def test_batches_end_at_what_a_call_takes():
    """TensorFlow Serving's batching needs ascending sizes; the last is the largest batch."""
    assert list(contract.ALLOWED_BATCH_SIZES) == sorted(set(contract.ALLOWED_BATCH_SIZES))
    assert contract.ALLOWED_BATCH_SIZES[-1] == contract.MAX_BATCH_SIZE


def test_model_and_package_version_are_read_without_tensorflow(base_path, spec):
    code = """
import json, pathlib, sys
from export import contract
from sqz_keras import ModelSpec
form = json.loads(pathlib.Path(sys.argv[1], contract.EXTRA_FOLDER, contract.SPEC_NAME).read_text("utf-8"))
assert {"tensorflow", "keras", "grpc"}.isdisjoint(sys.modules)
print(form[contract.PACKAGE_VERSION_KEY], ModelSpec.from_json(form["model_spec"]).labels)
"""
    printed = subprocess.check_output([sys.executable, "-c", code, str(base_path / "3")], text=True)
    assert printed.strip() == f"{sqz_keras.__version__} {spec.labels}"


def test_contract_and_versions_need_no_tensorflow():
    code = "import sys, export.contract, export.versions; print({'tensorflow', 'keras', 'grpc'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
