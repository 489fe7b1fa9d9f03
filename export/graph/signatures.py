"""The exported graph: preprocessing, network and class names behind the contract's signatures."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from export import contract
from export.graph.network import ExportedNetwork
from export.graph.parts import run_in_parts
from sqz_keras import ModelSpec, preprocess_input
from sqz_keras.images.graph import (
    JPEG_START,
    PNG_START,
    decode_jpeg,
    decode_png,
    fits,
    jpeg_size,
    png_size,
    starts_with,
)
from sqz_keras.images.preprocessing import resize_and_crop
from sqz_keras.weights import description


class ServedModel(tf.Module):
    """A model as it is served: the four signatures of the contract around one network.

    Args:
        spec: Describes the model.
        arrays: The model's weights by name, float32.
        labels_path: A text file with one class name per line, which becomes an asset.
        precision: One of `contract.PRECISIONS`: what the network computes in. Its input, its outputs and the weights
            in the file are float32 in both cases.
    """

    def __init__(
        self,
        spec: ModelSpec,
        arrays: Mapping[str, np.ndarray],
        labels_path: str | os.PathLike,
        precision: str = contract.PRECISIONS[0],
    ):
        super().__init__(name=contract.MODEL_NAME)
        if precision not in contract.PRECISIONS:
            raise ValueError(f"precision must be one of {contract.PRECISIONS}, got {precision!r}.")
        self.labels = tf.saved_model.Asset(os.fspath(labels_path))
        self._spec = spec
        network = ExportedNetwork(spec, arrays, precision)
        # One function for all signatures, so that the network is saved once. Its fixed sizes let operations fuse.
        self._network = tf.function(
            lambda images: network(preprocess_input(images, "channels_last", spec.preprocessing.mode)),
            input_signature=[tf.TensorSpec((None, spec.input_size, spec.input_size, 3), tf.float32, "images")],
            autograph=False,
        )

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the SavedModel with the contract's method names; TensorFlow would give every signature Predict's."""
        functions = {
            contract.SERVING_DEFAULT: self.serving_default,
            contract.SERVE_BYTES: self.serve_bytes,
            contract.CLASSIFY: self.classify,
            contract.FEATURES_SIGNATURE: self.features,
        }
        tf.saved_model.save(
            self, os.fspath(folder), {signature.name: functions[signature] for signature in contract.EXPORTED}
        )
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(os.fspath(folder))
        for signature in contract.EXPORTED:
            updater.replace_method_name(signature.name, signature.method_name)
        updater.save()

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, contract.IMAGES.name)], autograph=False
    )
    def serving_default(self, images):
        """Whole images, float32 (batch, H, W, 3), RGB in 0..255 -> the outputs of `contract.SERVING_DEFAULT`."""
        probabilities, _ = self._run(images)
        return self._named(probabilities)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, contract.IMAGE_BYTES.name)], autograph=False)
    def serve_bytes(self, image_bytes):
        """Encoded images, string (batch,) -> the outputs of `contract.SERVE_BYTES`."""
        return self._answer_encoded(image_bytes)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, contract.EXAMPLES.name)], autograph=False)
    def classify(self, inputs):
        """Serialised `tf.train.Example`s, string (batch,) -> the outputs of `contract.CLASSIFY`."""
        outputs = self._answer_encoded(inputs, _image_of_example)
        return {output.name: outputs[output.name] for output in contract.CLASSIFY.outputs}

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, contract.IMAGES.name)], autograph=False
    )
    def features(self, images):
        """Whole images, as for `serving_default` -> the outputs of `contract.FEATURES_SIGNATURE`."""
        _, features = self._run(images)
        return {contract.FEATURES.name: features}

    @tf.function(input_signature=[])
    def model_spec(self):
        """The ModelSpec as JSON, a scalar string: a constant that describes a SavedModel without its other files."""
        return tf.constant(description.spec_text(self._spec), name=description.SPEC_KEY)

    def _answer_encoded(self, data, read=tf.identity) -> dict[str, tf.Tensor]:
        """The outputs of `contract.SERVE_BYTES` for strings (batch,); `read` extracts the encoded image from each."""
        images, status = self._decode_all(data, read)
        probabilities, _ = run_in_parts(self._network, images, self._spec)
        good = tf.equal(status, contract.STATUS_OK)
        failed = {
            contract.PROBABILITIES.name: 0.0,
            contract.CLASSES.name: contract.FAILED_CLASS,
            contract.CLASS_IDS.name: contract.FAILED_CLASS_ID,
            contract.SCORES.name: 0.0,
        }
        outputs = self._named(probabilities)
        outputs = {name: tf.where(good[:, None], value, failed[name]) for name, value in outputs.items()}
        return outputs | {contract.STATUS.name: status}

    @tf.autograph.experimental.do_not_convert
    def _run(self, images) -> list[tf.Tensor]:
        """Probabilities and features of whole images (batch, H, W, 3), which are also resized part by part."""
        size = tf.shape(images)[1:3]
        is_checked = tf.debugging.Assert(fits(size), [contract.STATUS_TOO_LARGE, size])
        with tf.control_dependencies([is_checked]):
            images = tf.identity(images)
        return run_in_parts(lambda part: self._network(self._resize_and_crop(part)), images, self._spec)

    def _resize_and_crop(self, images):
        """Whole images (..., H, W, 3) to (..., S, S, 3), float32; images of the right size are only cropped."""
        resize_to, size = self._spec.preprocessing.resize_to, self._spec.input_size
        start = (resize_to - size) // 2
        end = start + size
        cropped = tf.cond(
            tf.reduce_all(tf.equal(tf.shape(images)[-3:-1], resize_to)),
            lambda: tf.cast(images[..., start:end, start:end, :], tf.float32),
            lambda: resize_and_crop(images, self._spec),
        )
        return tf.ensure_shape(cropped, [*images.shape[:-3], size, size, 3])

    def _named(self, probabilities) -> dict[str, tf.Tensor]:
        """The outputs of `contract.SERVING_DEFAULT`."""
        scores, class_ids = tf.math.top_k(probabilities, min(contract.TOP_K, self._spec.classes))
        return {
            contract.PROBABILITIES.name: probabilities,
            contract.CLASSES.name: tf.gather(tf.constant(self._spec.class_names()), class_ids),
            contract.CLASS_IDS.name: class_ids,
            contract.SCORES.name: scores,
        }

    @tf.autograph.experimental.do_not_convert
    def _decode_all(self, data, read):
        """Images (batch, S, S, 3), with zeros for those that cannot be decoded, and the status of every image."""
        count, size = tf.shape(data, tf.int64)[0], self._spec.input_size

        def decode(row, value):
            return row, *self._decode(read(value))

        # Only in a dataset can an operation fail for one image and not for all: the dataset discards that image, and
        # its row keeps the values below. The last element is there because an empty batch would be an error.
        decoded = (
            tf.data.Dataset.from_tensor_slices((tf.range(count), data)).map(decode, tf.data.AUTOTUNE).ignore_errors()
        )
        last = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3)), contract.STATUS_OK))
        rows, images, status = decoded.concatenate(last).batch(count + 1).get_single_element()
        rows = rows[:, None]
        images = tf.scatter_nd(rows, images, tf.stack([count + 1, size, size, 3]))
        damaged = tf.fill([count + 1], contract.STATUS_DAMAGED)
        return images[:count], tf.tensor_scatter_nd_update(damaged, rows, status)[:count]

    @tf.autograph.experimental.do_not_convert
    def _decode(self, data):
        """One image and its status; raises inside the graph if it is damaged. Its size is checked before decoding."""
        is_jpeg, is_png = starts_with(data, JPEG_START), starts_with(data, PNG_START)

        def status_by_size(declared):
            return tf.where(fits(declared), contract.STATUS_OK, contract.STATUS_TOO_LARGE)

        status = tf.cond(
            is_jpeg,
            lambda: status_by_size(jpeg_size(data)),
            lambda: tf.cond(
                is_png, lambda: status_by_size(png_size(data)), lambda: tf.constant(contract.STATUS_UNKNOWN_FORMAT)
            ),
        )
        size = self._spec.input_size
        image = tf.cond(
            tf.equal(status, contract.STATUS_OK),
            lambda: self._resize_and_crop(tf.cond(is_jpeg, lambda: decode_jpeg(data), lambda: decode_png(data))),
            lambda: tf.zeros((size, size, 3)),
        )
        return image, status


def _image_of_example(example):
    """The encoded image in a serialised `tf.train.Example`; an empty string if it has none."""
    feature = tf.io.FixedLenFeature([], tf.string, default_value="")
    return tf.io.parse_single_example(example, {contract.EXAMPLE_FEATURE: feature})[contract.EXAMPLE_FEATURE]
