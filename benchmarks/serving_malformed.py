"""Malformed requests, with the answer that a server must give to each."""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import classification_pb2, predict_pb2

from export import contract

INVALID, OK = "INVALID_ARGUMENT", "OK"
ANY = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A request and its right answer.

    Args:
        call: "Predict" or "Classify".
        request: A message, or bytes that are not one.
        code: Status code of the answer.
        status: Status of the only image in the answer, if the code is OK; None for any.
    """

    call: str
    request: predict_pb2.PredictRequest | classification_pb2.ClassificationRequest | bytes
    code: str
    status: str | None = ANY


def predict_of(signature: contract.Signature, tensor=None, **about) -> predict_pb2.PredictRequest:
    """A Predict request; `about` overrides the model's name, the signature's name, the version and the input's key."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = about.get("name", contract.MODEL_NAME)
    request.model_spec.signature_name = about.get("signature_name", signature.name)
    if "version" in about:
        request.model_spec.version.value = about["version"]
    if tensor is not None:
        request.inputs[about.get("key", signature.input.name)].CopyFrom(tensor)
    return request


def tensor_of(shape: Sequence[int], dtype: int = 1, **values):
    """A tensor whose shape and dtype need not fit its values; dtype 1 is float, 7 string."""
    tensor = tf.make_tensor_proto(0.0).__class__(dtype=dtype, **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG file that declares any size and holds any compressed pixels, which need not fit it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb(side: int) -> bytes:
    """A complete PNG file of side x side black pixels, a thousandth of the pixels' size."""
    return png(side, side, zlib.compress(bytes((3 * side + 1) * side), 9))


def jpeg_that_claims(image: bytes, width: int, height: int) -> bytes:
    """A JPEG file whose header declares a size that its pixels do not have."""
    with Image.open(io.BytesIO(image)) as image:
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG")  # baseline, so that the frame header starts with FF C0
    data = file.getvalue()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def makers(images: Sequence[bytes]) -> list[Callable[[np.random.Generator], Case]]:
    """Functions that make a case from random numbers, one function for each kind of case."""
    return [*_wrong_requests(), *_wrong_tensors(), *_wrong_images(images), *_wrong_examples(images)]


def _wrong_requests() -> list[Callable]:
    good = tensor_of((1, 8, 8, 3), float_val=[0])
    images = contract.SERVING_DEFAULT
    return [
        lambda r: Case("Predict", predict_of(images, good, name=r.bytes(8).hex()), "NOT_FOUND"),
        lambda r: Case("Predict", predict_of(images, good, name=""), INVALID),
        lambda r: Case("Predict", predict_of(images, good, version=int(r.integers(10**6, 2**62))), "NOT_FOUND"),
        lambda r: Case("Predict", predict_of(images, good, signature_name=r.bytes(8).hex()), "FAILED_PRECONDITION"),
        lambda r: Case("Predict", predict_of(images, good, key=r.bytes(8).hex()), INVALID),
        lambda r: Case("Predict", predict_of(images), INVALID),
        lambda r: Case("Predict", b"\xff" + r.bytes(int(r.integers(1, 1000))), "INTERNAL"),
        lambda r: Case("Classify", b"\xff" + r.bytes(int(r.integers(1, 1000))), "INTERNAL"),
    ]


def _wrong_tensors() -> list[Callable]:
    images, files = contract.SERVING_DEFAULT, contract.SERVE_BYTES

    def wrong(signature, shape, dtype=1, **values):
        return Case("Predict", predict_of(signature, tensor_of(shape, dtype, **values)), INVALID)

    return [
        lambda r: wrong(images, (1, 8, 8, 3), int(r.integers(2, 24)), float_val=[0]),
        lambda r: wrong(images, (1, 8, 8, 3), int(r.integers(1000, 2**31)), float_val=[0]),
        lambda r: wrong(images, [8] * int(r.choice([0, 1, 2, 3, 5, 6, 200])), float_val=[0]),
        lambda r: wrong(images, (1, 8, 8, int(r.choice([0, 1, 2, 4, 2**40]))), float_val=[0]),
        lambda r: wrong(images, (1, 2**30, 2**30, 3), float_val=[0]),
        lambda r: wrong(images, (1, int(r.integers(3000, 2**62)), 5000, 3), float_val=[0]),
        lambda r: wrong(images, (2**62, 8, 8, 3), float_val=[0]),
        lambda r: wrong(images, (1, -int(r.integers(1, 9)), 8, 3), float_val=[0]),
        lambda r: wrong(images, (0, 8, 8, 3)),
        lambda r: wrong(images, (1, 1, int(r.integers(101, 5000)), 3), float_val=[0]),
        lambda r: wrong(images, (1, 8, 8, 3), tensor_content=r.bytes(int(r.integers(1, 700)))),
        lambda r: wrong(files, (int(r.integers(33, 2**62)),), 7, string_val=[b"x"]),
        lambda r: wrong(files, (1, 1), 7, string_val=[b"x"]),
        lambda r: wrong(files, (1,), 1, float_val=[0]),
    ]


def _wrong_images(images: Sequence[bytes]) -> list[Callable]:
    def file(data: bytes, status: str | None) -> Case:
        tensor = tensor_of((1,), 7, string_val=[data])
        return Case("Predict", predict_of(contract.SERVE_BYTES, tensor), OK, status)

    def any_of(r) -> bytes:
        return images[int(r.integers(len(images)))]

    def cut(r) -> bytes:
        data = any_of(r)
        return data[: int(r.integers(4, len(data) * 9 // 10))]

    def scratched(r) -> bytes:
        data = np.frombuffer(any_of(r), np.uint8).copy()
        data[r.integers(2, len(data), 20)] = r.integers(0, 256, 20)
        return data.tobytes()

    claims = jpeg_that_claims(images[0], 30_000, 30_000)
    pixels, whole = zlib.compress(bytes(1000)), bomb(2000)
    unknown = contract.STATUS_UNKNOWN_FORMAT
    return [
        lambda r: file(cut(r), contract.STATUS_DAMAGED),
        lambda r: file(scratched(r), ANY),
        lambda r: file(claims, contract.STATUS_TOO_LARGE),
        lambda r: file(png(30_000, 30_000, pixels), contract.STATUS_TOO_LARGE),
        lambda r: file(png(int(r.integers(2**16, 2**31)), 2**31 - 1, pixels), contract.STATUS_TOO_LARGE),
        lambda r: file(png(int(r.integers(64, 2000)), 1000, pixels), contract.STATUS_DAMAGED),
        lambda r: file(whole, contract.STATUS_OK),  # within the limits, a bomb is an image like any other
        lambda r: file(b"", unknown),
        lambda r: file(b"GIF89a" + r.bytes(100), unknown),
        lambda r: file(b"hello", unknown),
    ]


def _wrong_examples(images: Sequence[bytes]) -> list[Callable]:
    def classification(*features, signature: str = contract.CLASSIFY.name) -> classification_pb2.ClassificationRequest:
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name, request.model_spec.signature_name = contract.MODEL_NAME, signature
        for feature in features:
            example = request.input.example_list.examples.add()
            example.features.feature[contract.EXAMPLE_FEATURE].CopyFrom(feature)
        return request

    def of_bytes(*values: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    return [
        lambda r: Case("Classify", classification(), INVALID),
        lambda r: Case("Classify", classification(of_bytes(b"x"), signature=r.bytes(8).hex()), INVALID),
        lambda r: Case("Classify", classification(of_bytes(b"x"), signature="serve_bytes"), INVALID),
        lambda r: Case("Classify", classification(*[of_bytes(b"x")] * 33), INVALID),
        lambda r: Case("Classify", classification(of_bytes(r.bytes(100))), OK),
    ]
