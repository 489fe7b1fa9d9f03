"""One version of a model, loaded as TensorFlow Serving loads it, with the requests and responses of its protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, input_pb2, model_pb2, predict_pb2

from export import contract
from export.server import tensors, threads
from export.server.errors import RequestError, invalid
from export.server.large_request import ParsedRequest

_INIT_OP = "__saved_model_init_op"  # listed among the signatures, but not one


class ServedVersion:
    """A loaded version. A SavedModel is a program: load only what you trust.

    Like the model server, it runs in a session, not through `tf.saved_model.load`: a run ends at its deadline, only the
    requested outputs are computed, and closing it frees its memory at once. It sets up TensorFlow's threads as
    `threads` says, each on a core of its own. If this process has used TensorFlow before, that first use has already
    created the threads, and they stay as they are.

    Args:
        path: The version's folder.
        name: The model's name.
        version: The version's number.

    Raises:
        Exception: Of many types: the folder holds no SavedModel that can be loaded.
    """

    def __init__(self, path: str | os.PathLike, name: str, version: int):
        self.name, self.version = name, version
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            config = v1.ConfigProto(
                intra_op_parallelism_threads=threads.INSIDE_AN_OPERATION,
                inter_op_parallelism_threads=threads.between_operations(),
            )
            self._session = v1.Session(graph=graph, config=config)
            try:
                meta_graph = v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], os.fspath(path))
                threads.keep_apart()
            except BaseException:
                self._session.close()
                raise
        self.signature_defs = dict(meta_graph.signature_def)
        self._callables: dict[tuple, Callable] = {}

    def close(self) -> None:
        """Frees the version's memory; no call may be running."""
        self._session.close()

    def predict(self, request: ParsedRequest, timeout_ms: int = 0) -> predict_pb2.PredictResponse:
        """Answers a Predict call; a timeout of 0 ms means no deadline.

        Raises:
            RequestError: The request does not fit the signature.
            tf.errors.OpError: The model refused it, or the time ran out.
        """
        message = request.message
        name = message.model_spec.signature_name or contract.SERVING_DEFAULT.name
        signature = self.signature_defs.get(name)
        if signature is None or name == _INIT_OP:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Serving signature key {name!r:.100} not found; the model has {self._signature_names()}.",
            )
        outputs = _requested_outputs(signature, message.output_filter)
        values = self._run(name, tensors.read_inputs(signature, request), outputs, timeout_ms)
        response = predict_pb2.PredictResponse(model_spec=self.model_spec(name))
        for output, value in zip(outputs, values, strict=True):
            response.outputs[output].CopyFrom(tf.make_tensor_proto(value))
        return response

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_ms: int = 0
    ) -> classification_pb2.ClassificationResponse:
        """Answers a Classify call; `timeout_ms` and errors are as in `predict`."""
        name = request.model_spec.signature_name or contract.SERVING_DEFAULT.name
        signature = self.signature_defs.get(name)
        if signature is None:
            raise invalid(
                f"No signature was found with the name {name!r:.100}; the model has {self._signature_names()}."
            )
        outputs = [contract.CLASSES.name, contract.SCORES.name]
        if list(signature.inputs) != [contract.EXAMPLES.name] or sorted(signature.outputs) != outputs:
            raise invalid(f"The signature {name!r} is not for Classify; {contract.CLASSIFY.name!r} is.")
        examples = _serialized_examples(request.input)
        tensors.check_batch(len(examples))
        inputs = {contract.EXAMPLES.name: np.array(examples, object)}
        response = classification_pb2.ClassificationResponse(model_spec=self.model_spec(name))
        for labels, scores in zip(*self._run(name, inputs, outputs, timeout_ms), strict=True):
            classification = response.result.classifications.add()
            for label, score in zip(labels, scores, strict=True):
                classification.classes.add(label=label, score=score)
        return response

    def metadata(self) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The answer to GetModelMetadata: the signatures."""
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=self.model_spec())
        response.metadata["signature_def"].Pack(
            get_model_metadata_pb2.SignatureDefMap(signature_def=self.signature_defs)
        )
        return response

    def model_spec(self, signature_name: str = "") -> model_pb2.ModelSpec:
        """The model, version and signature that an answer comes from."""
        spec = model_pb2.ModelSpec(name=self.name, signature_name=signature_name)
        spec.version.value = self.version
        return spec

    def _signature_names(self) -> list[str]:
        return sorted(set(self.signature_defs) - {_INIT_OP})

    def _run(self, name: str, inputs: dict[str, np.ndarray], outputs: Sequence[str], timeout_ms: int) -> list:
        key = (name, *outputs)
        if key not in self._callables:
            signature = self.signature_defs[name]
            self._callables[key] = self._session.make_callable(
                [signature.outputs[output].name for output in outputs],
                [signature.inputs[input].name for input in sorted(signature.inputs)],
                accept_options=True,
            )
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        return self._callables[key](*(inputs[input] for input in sorted(inputs)), options=options)


def _requested_outputs(signature: meta_graph_pb2.SignatureDef, output_filter: Sequence[str]) -> list[str]:
    """The outputs to compute. They are sorted, since a callable is kept for each list of outputs."""
    unknown = sorted(set(output_filter) - set(signature.outputs))
    if unknown:
        raise invalid(f"Unknown outputs {unknown!s:.200}; the signature has {sorted(signature.outputs)}.")
    if len(set(output_filter)) < len(output_filter):
        raise invalid(f"An output is requested twice: {list(output_filter)!s:.200}.")
    return sorted(output_filter or signature.outputs)


def _serialized_examples(sent: input_pb2.Input) -> list[bytes]:
    kind = sent.WhichOneof("kind")
    if kind == "example_list":
        return [example.SerializeToString() for example in sent.example_list.examples]
    if kind == "example_list_with_context":
        # Two serialised messages, concatenated, are the serialised form of both merged.
        context = sent.example_list_with_context.context.SerializeToString()
        return [context + example.SerializeToString() for example in sent.example_list_with_context.examples]
    raise invalid("The request's input is empty.")
