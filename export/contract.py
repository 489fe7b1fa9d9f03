"""The serving contract: names, dtypes and limits that the exporter, the server, the client and the tests share.

A served model is a folder `<base_path>/<version>` with a SavedModel whose preprocessing is inside the graph. This
module imports nothing heavy: it is the reference for clients of any kind.
"""

from __future__ import annotations

import dataclasses

from sqz_keras.images import pillow
from sqz_keras.weights import description

MODEL_NAME = "squeezenet"

# The files of a version in addition to TensorFlow's. EXTRA_FOLDER holds SPEC_NAME and WARMUP_NAME.
# SPEC_NAME is JSON: "model_spec" holds the ModelSpec, "tensors" the shape and hash of each weight, and
# PACKAGE_VERSION_KEY the version of this package that exported the model.
EXTRA_FOLDER, SPEC_NAME = description.EXTRA_FOLDER, description.SPEC_NAME
PACKAGE_VERSION_KEY = description.PACKAGE_VERSION_KEY
WARMUP_NAME = "tf_serving_warmup_requests"  # PredictionLogs, which a server replays before it serves the version
LABELS_NAME = "labels.txt"  # in assets/: one class name per line, in the order of the class ids

# A version is a folder whose name is a positive integer; the server takes the highest. A version is never overwritten.
MAX_VERSION = 2**63 - 1

PRECISIONS = ("float32", "bfloat16")  # what the network computes in; the signatures are float32 in both cases
TOP_K = 5  # classes, class_ids and scores hold min(TOP_K, number of classes), best first
MAX_PIXELS, MAX_ASPECT_RATIO = pillow.MAX_PIXELS, pillow.MAX_ASPECT_RATIO  # of one image
ALLOWED_BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # a server that batches pads each batch to the next of these sizes
MAX_BATCH_SIZE = ALLOWED_BATCH_SIZES[-1]  # images in one call
MAX_MESSAGE_BYTES = 64 << 20  # of one request or response

# The values of `status`, one per image. If it is not "OK", the image's probabilities and scores are 0, its class_ids
# are -1 and its classes are empty strings. `classify` has no status: only these values show the failure.
STATUS_OK = "OK"
STATUS_UNKNOWN_FORMAT = "not a JPEG or PNG image"
STATUS_TOO_LARGE = "too many pixels, or too elongated an image"
STATUS_DAMAGED = "a damaged or truncated image"

FAILED_CLASS_ID = -1
FAILED_CLASS = ""


def address(host: str, port: int) -> str:
    """HOST:PORT. An IPv6 address gets brackets; without them, its last part would be taken for the port."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a signature.

    Args:
        name: The key in requests and responses. No output's name ends in `_bytes`, as TensorFlow Serving's REST
            interface would send such an output's values as base64.
        dtype: "float32", "int32" or "string".
        shape: "batch", "height", "width", "channels", "classes" and "k" stand for sizes that vary.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """A way to call the model: one input and its outputs. `method_name` names the API in TensorFlow Serving."""

    name: str
    input: Tensor
    outputs: tuple[Tensor, ...]
    method_name: str = "tensorflow/serving/predict"


IMAGES = Tensor("images", "float32", ("batch", "height", "width", 3))  # RGB in 0..255, finite: not checked
IMAGE_BYTES = Tensor("image_bytes", "string", ("batch",))  # JPEG or PNG files, upright: EXIF is not read
EXAMPLES = Tensor("inputs", "string", ("batch",))  # serialised tf.train.Example with the feature EXAMPLE_FEATURE
EXAMPLE_FEATURE = "image/encoded"

PROBABILITIES = Tensor("probabilities", "float32", ("batch", "classes"))
CLASSES = Tensor("classes", "string", ("batch", "k"))  # names
CLASS_IDS = Tensor("class_ids", "int32", ("batch", "k"))
SCORES = Tensor("scores", "float32", ("batch", "k"))  # the probabilities of `classes`
STATUS = Tensor("status", "string", ("batch",))
FEATURES = Tensor("features", "float32", ("batch", "channels"))  # conv10's input, averaged; 512 in v1.0 and v1.1

SERVING_DEFAULT = Signature("serving_default", IMAGES, (PROBABILITIES, CLASSES, CLASS_IDS, SCORES))
SERVE_BYTES = Signature("serve_bytes", IMAGE_BYTES, (*SERVING_DEFAULT.outputs, STATUS))
# TensorFlow Serving's Classify needs this input, and returns these two outputs.
CLASSIFY = Signature("classify", EXAMPLES, (CLASSES, SCORES), "tensorflow/serving/classify")
FEATURES_SIGNATURE = Signature("features", IMAGES, (FEATURES,))
EXPORTED = (SERVING_DEFAULT, SERVE_BYTES, CLASSIFY, FEATURES_SIGNATURE)
