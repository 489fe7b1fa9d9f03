"""The client's messages are TensorFlow Serving's: the same fields, and the same bytes for any content."""

import os
import random
import subprocess
import sys

import pytest
import tensorflow as tf
from google.protobuf import descriptor
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from export.client import messages
from export.message_types import message_classes

PUBLIC = {
    public.DESCRIPTOR.full_name: public
    for public in (
        predict_pb2.PredictRequest,
        predict_pb2.PredictResponse,
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
        get_model_metadata_pb2.SignatureDefMap,
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
        tf.train.Example,
        type(tf.make_tensor_proto(0.0)),
    )
}
Field = descriptor.FieldDescriptor
INTEGERS = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1),
    Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT64: (0, 2**64 - 1),
}


def value_of(field, generator):
    """A random value for a field that is not a message."""
    if field.type in INTEGERS:
        low, high = INTEGERS[field.type]
        return generator.choice([low, high, 0, 1, generator.randint(low, high)])
    if field.type == Field.TYPE_ENUM:
        return generator.choice(field.enum_type.values).number
    if field.type == Field.TYPE_BOOL:
        return generator.random() < 0.5
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return generator.choice([0.0, -0.0, 0.5, float("inf"), generator.uniform(-1e3, 1e3)])
    data = generator.randbytes(generator.choice([0, 1, 40]))
    return data if field.type == Field.TYPE_BYTES else data.hex() + "ä"


def fill(message, generator, depth=0):
    """Fills some fields of a message, and of the messages in it, with random values."""
    for field in message.DESCRIPTOR.fields:
        if generator.random() < 0.3 or depth > 6:
            continue
        times = generator.randint(1, 3)
        if field.message_type and field.message_type.GetOptions().map_entry:
            for _ in range(times):
                fill(getattr(message, field.name)[f"key {generator.randint(0, 9)}"], generator, depth + 1)
        elif field.message_type and field.is_repeated:
            for _ in range(times):
                fill(getattr(message, field.name).add(), generator, depth + 1)
        elif field.message_type:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), generator, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(value_of(field, generator) for _ in range(times))
        else:
            setattr(message, field.name, value_of(field, generator))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_bytes_are_those_of_the_public_classes(name):
    ours, public = messages.CLASSES[name], PUBLIC[name]
    for seed in range(60):
        sent = ours()
        fill(sent, random.Random(seed))
        data = sent.SerializeToString(deterministic=True)
        read = public.FromString(data)
        assert read.SerializeToString(deterministic=True) == data
        assert ours.FromString(read.SerializeToString(deterministic=True)) == sent
        assert str(read) == str(sent), "the same fields, by their names"


def described(message):
    """For each field of a message by name: what its bytes depend on, and the message that it holds."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.is_repeated and field.is_packed,
            field.containing_oneof.name if field.containing_oneof else None,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
        )
        for field in message.fields
    }


def messages_in(message, found):
    """The descriptors of a message and of all messages that it may hold, by full name."""
    if message.full_name not in found:
        found[message.full_name] = message
        for field in message.fields:
            if field.message_type:
                messages_in(field.message_type, found)
    return found


def test_every_field_is_a_public_one():
    public, checked = {}, 0
    for name in PUBLIC:
        messages_in(PUBLIC[name].DESCRIPTOR, public)
    for name, ours in messages.CLASSES.items():
        assert described(ours.DESCRIPTOR).items() <= described(public[name]).items(), name
        for field in ours.DESCRIPTOR.fields:
            if field.enum_type:
                (theirs,) = (other.enum_type for other in public[name].fields if other.name == field.name)
                numbers = {value.name: value.number for value in theirs.values}
                assert {value.name: value.number for value in field.enum_type.values}.items() <= numbers.items()
                checked += 1
    assert checked == 4


def test_fields_that_are_left_out_are_kept():
    request = predict_pb2.PredictRequest(client_id=b"me")
    request.model_spec.name = "net"
    data = request.SerializeToString()
    ours = messages.PredictRequest.FromString(data)
    assert ours.model_spec.name == "net"
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == request


@pytest.mark.large
@pytest.mark.parametrize("first", ["export.client.messages", "tensorflow_serving.apis.predict_pb2"])
def test_both_may_be_in_one_process(first):
    code = f"import {first}; import tensorflow_serving.apis.predict_pb2 as theirs, export.client.messages as ours"
    check = "print(theirs.PredictRequest is not ours.PredictRequest)"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    assert subprocess.check_output([sys.executable, "-c", f"{code}; {check}"], text=True, env=environment) == "True\n"


@pytest.mark.parametrize("text", ["message A { int32 x; }", "service A {}", "message A { group B = 1 {} }", "junk"])
def test_what_is_no_statement_is_refused(text):
    with pytest.raises(ValueError, match="statement"):
        message_classes({"p": text})
