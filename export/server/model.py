"""One version of a model: loaded as TensorFlow Serving loads it, and asked in its protocol's terms."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, input_pb2, model_pb2, predict_pb2

from export import contract
from export.server import tensors
from export.server.errors import RequestError, invalid

_INIT_OP = "__saved_model_init_op"  # in every list of signatures, and none


class ServedVersion:
    """A loaded version. A SavedModel is a program: load only what you trust.

    It runs in a session, as in the model server, not through `tf.saved_model.load`: a run ends at its deadline, only
    the outputs that are asked for are computed, and closing it frees its memory at once.

    Args:
        path: the version's folder.
        name: the model's name.
        version: its number.

    Raises:
        Exception: of many kinds: the folder holds no SavedModel that can be loaded.
    """

    def __init__(self, path: str | os.PathLike, name: str, version: int):
        self.name, self.version = name, version
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            self._session = v1.Session(graph=graph)
            try:
                meta_graph = v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], os.fspath(path))
            except BaseException:
                self._session.close()
                raise
        self.signature_defs = dict(meta_graph.signature_def)
        self._callables: dict[tuple, Callable] = {}

    def close(self) -> None:
        """Frees its memory; nothing may run any more."""
        self._session.close()

    def predict(self, request: predict_pb2.PredictRequest, timeout_ms: int = 0) -> predict_pb2.PredictResponse:
        """Answers a Predict call; 0 ms stand for no deadline.

        Raises:
            RequestError: the request does not fit the signature.
            tf.errors.OpError: the model refused it, or the time ran out.
        """
        name = request.model_spec.signature_name or contract.SERVING_DEFAULT.name
        signature = self.signature_defs.get(name)
        if signature is None or name == _INIT_OP:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Serving signature key {name!r:.100} not found; the model has {self._signature_names()}.",
            )
        wanted = _wanted_outputs(signature, request.output_filter)
        values = self._run(name, tensors.read_inputs(signature, request.inputs), wanted, timeout_ms)
        response = predict_pb2.PredictResponse(model_spec=self.model_spec(name))
        for output, value in zip(wanted, values, strict=True):
            response.outputs[output].CopyFrom(tensors.as_proto(value))
        return response

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_ms: int = 0
    ) -> classification_pb2.ClassificationResponse:
        """Answers a Classify call; arguments and errors are those of `predict`."""
        name = request.model_spec.signature_name or contract.SERVING_DEFAULT.name
        signature = self.signature_defs.get(name)
        if signature is None:
            raise invalid(
                f"No signature was found with the name {name!r:.100}; the model has {self._signature_names()}."
            )
        wanted = [contract.CLASSES.name, contract.SCORES.name]
        if list(signature.inputs) != [contract.EXAMPLES.name] or sorted(signature.outputs) != wanted:
            raise invalid(f"The signature {name!r} is not for Classify; {contract.CLASSIFY.name!r} is.")
        examples = _serialized_examples(request.input)
        tensors.check_batch(len(examples))
        inputs = {contract.EXAMPLES.name: np.array(examples, object)}
        response = classification_pb2.ClassificationResponse(model_spec=self.model_spec(name))
        for labels, scores in zip(*self._run(name, inputs, wanted, timeout_ms), strict=True):
            found = response.result.classifications.add()
            for label, score in zip(labels, scores, strict=True):
                found.classes.add(label=label, score=score)
        return response

    def metadata(self) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """What GetModelMetadata answers: the signatures."""
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=self.model_spec())
        response.metadata["signature_def"].Pack(
            get_model_metadata_pb2.SignatureDefMap(signature_def=self.signature_defs)
        )
        return response

    def model_spec(self, signature_name: str = "") -> model_pb2.ModelSpec:
        """What an answer says of its origin."""
        spec = model_pb2.ModelSpec(name=self.name, signature_name=signature_name)
        spec.version.value = self.version
        return spec

    def _signature_names(self) -> list[str]:
        return sorted(set(self.signature_defs) - {_INIT_OP})

    def _run(self, name: str, inputs: dict[str, np.ndarray], wanted: Sequence[str], timeout_ms: int) -> list:
        key = (name, *wanted)
        if key not in self._callables:
            signature = self.signature_defs[name]
            self._callables[key] = self._session.make_callable(
                [signature.outputs[output].name for output in wanted],
                [signature.inputs[each].name for each in sorted(signature.inputs)],
                accept_options=True,
            )
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        return self._callables[key](*(inputs[each] for each in sorted(inputs)), options=options)


def _wanted_outputs(signature: meta_graph_pb2.SignatureDef, output_filter: Sequence[str]) -> list[str]:
    """The outputs to compute, sorted: a callable is kept for each such list."""
    unknown = sorted(set(output_filter) - set(signature.outputs))
    if unknown:
        raise invalid(f"Unknown outputs {unknown!s:.200}; the signature has {sorted(signature.outputs)}.")
    if len(set(output_filter)) < len(output_filter):
        raise invalid(f"An output is asked for twice: {list(output_filter)!s:.200}.")
    return sorted(output_filter or signature.outputs)


def _serialized_examples(sent: input_pb2.Input) -> list[bytes]:
    kind = sent.WhichOneof("kind")
    if kind == "example_list":
        return [example.SerializeToString() for example in sent.example_list.examples]
    if kind == "example_list_with_context":
        # Serialised messages one after the other are the message that merges them.
        context = sent.example_list_with_context.context.SerializeToString()
        return [context + example.SerializeToString() for example in sent.example_list_with_context.examples]
    raise invalid("The request's input is empty.")
