"""Requests as clients send them, including careless and hostile ones."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

GOOD = tf.make_tensor_proto(np.zeros((1, 8, 8, 3), np.float32))


class Stubs:
    """All calls to one server, over a channel of their own."""

    def __init__(self, target):
        self.channel = grpc.insecure_channel(
            target, options=[("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
        )
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.predict, self.classify = prediction.Predict, prediction.Classify
        self.metadata, self.regress = prediction.GetModelMetadata, prediction.Regress
        self.status = model_service_pb2_grpc.ModelServiceStub(self.channel).GetModelStatus

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def states(self):
        """For each version, the name of its state and its error message."""
        response = self.status(status_of(), timeout=10)
        return {
            status.version: (status.State.Name(status.state), status.status.error_message)
            for status in response.model_version_status
        }


def request_of(signature="serving_default", name="squeezenet", version=None, label=None, outputs=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for key, value in (inputs or {"images": GOOD}).items():
        request.inputs[key].CopyFrom(value)
    return request


def bytes_of(*images, **about):
    """A request with encoded images."""
    return request_of("serve_bytes", image_bytes=tf.make_tensor_proto(list(images), tf.string), **about)


def classification_of(*images, signature="classify"):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "squeezenet", signature
    for data in images:
        request.input.example_list.examples.append(example_of(data))
    return request


def example_of(data):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))


def status_of(name="squeezenet", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def tensor(dtype=tf.float32, shape=(1, 8, 8, 3), **values):
    return tf.make_tensor_proto(0.0, shape=[]).__class__(
        dtype=tf.as_dtype(dtype).as_datatype_enum, tensor_shape=tf.TensorShape(shape).as_proto(), **values
    )


def code_of(call, request, timeout=10):
    """The status code that a call is refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout)
    assert caught.value.details()
    return caught.value.code().name
