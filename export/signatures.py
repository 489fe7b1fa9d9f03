"""The exported graph: preprocessing, network and names behind the signatures of the contract."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from export import contract
from sqz_keras import ModelSpec, prepare_images, squeezenet
from sqz_keras.graph_images import JPEG_START, PNG_START, decode_jpeg, decode_png, starts_with
from sqz_keras.images import MAX_PIXELS


class ServedModel(tf.Module):
    """A model as it is served; its attributes name what is saved.

    `weights` holds the variables by name ("conv1/kernel", ...) so that they can be read back from the checkpoint
    without running the graph: theirs is the key `weights/conv1.Skernel/.ATTRIBUTES/VARIABLE_VALUE`. The Keras model is
    not an attribute, so nothing else of it is saved.

    Args:
        spec: describes the model.
        arrays: its weights by name.
        labels_path: a text file with a class's name a line, which becomes an asset.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, np.ndarray], labels_path: str | os.PathLike):
        super().__init__(name=contract.MODEL_NAME)
        model = squeezenet.build(spec, dict(arrays))
        self.weights = {
            name: getattr(model.get_layer(name.split("/")[0]), name.split("/")[1]).value
            for name in spec.weight_shapes()
        }
        self.labels = tf.saved_model.Asset(os.fspath(labels_path))
        self._spec = spec
        self._network = functools.partial(model, training=False)

    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """The exported signatures by name, for `tf.saved_model.save`."""
        functions = {contract.SERVING_DEFAULT: self.serving_default, contract.SERVE_BYTES: self.serve_bytes}
        return {signature.name: functions[signature] for signature in contract.EXPORTED}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, contract.IMAGES.name)])
    def serving_default(self, images):
        """Whole pictures, float32 (batch, H, W, 3), RGB in 0..255 -> the outputs of `contract.SERVING_DEFAULT`."""
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        fits = tf.debugging.Assert(_fits(height, width), [contract.STATUS_TOO_LARGE, height, width])
        with tf.control_dependencies([fits]):
            images = tf.identity(images)
        return self._answer(prepare_images(images, self._spec))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, contract.IMAGE_BYTES.name)])
    def serve_bytes(self, image_bytes):
        """Encoded pictures, string (batch,) -> the outputs of `contract.SERVE_BYTES`."""
        pictures, status = self._decode_all(image_bytes)
        outputs = self._answer(pictures)
        good = tf.equal(status, contract.STATUS_OK)
        failed = {
            contract.PROBABILITIES.name: 0.0,
            contract.CLASSES.name: contract.FAILED_CLASS,
            contract.CLASS_IDS.name: contract.FAILED_CLASS_ID,
            contract.SCORES.name: 0.0,
        }
        outputs = {name: tf.where(good[:, None], value, failed[name]) for name, value in outputs.items()}
        return outputs | {contract.STATUS.name: status}

    def _answer(self, pictures) -> dict[str, tf.Tensor]:
        probabilities = self._network(pictures)
        scores, class_ids = tf.math.top_k(probabilities, min(contract.TOP_K, self._spec.classes))
        return {
            contract.PROBABILITIES.name: probabilities,
            contract.CLASSES.name: tf.gather(tf.constant(self._spec.class_names()), class_ids),
            contract.CLASS_IDS.name: class_ids,
            contract.SCORES.name: scores,
        }

    def _decode_all(self, image_bytes):
        """Network inputs (batch, S, S, 3), zeros for what cannot be decoded, and the status of each picture."""
        count, size = tf.shape(image_bytes, tf.int64)[0], self._spec.input_size
        # A dataset is the one place in a graph where an op may fail for one picture and not for all: the picture drops
        # out, and its row keeps the values below. The last element keeps the batch from being empty.
        decoded = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes)).map(self._decode).ignore_errors()
        last = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3)), contract.STATUS_OK))
        rows, pictures, status = decoded.concatenate(last).batch(count + 1).get_single_element()
        rows = rows[:, None]
        pictures = tf.scatter_nd(rows, pictures, tf.stack([count + 1, size, size, 3]))
        damaged = tf.fill([count + 1], contract.STATUS_DAMAGED)
        return pictures[:count], tf.tensor_scatter_nd_update(damaged, rows, status)[:count]

    @tf.autograph.experimental.do_not_convert
    def _decode(self, row, data):
        """One picture; raises inside the graph where it is damaged. Nothing is decoded before its size is known."""
        is_jpeg, is_png = starts_with(data, JPEG_START), starts_with(data, PNG_START)

        def by_format(jpeg, png, neither):
            return tf.cond(is_jpeg, jpeg, lambda: tf.cond(is_png, png, neither))

        height, width = tf.unstack(
            by_format(
                lambda: tf.io.extract_jpeg_shape(data)[:2],
                lambda: tf.reverse(
                    tf.ensure_shape(tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, False), [2]), [0]
                ),
                lambda: tf.ones([2], tf.int32),
            )
        )
        fits = _fits(height, width)
        status = by_format(
            lambda: tf.where(fits, contract.STATUS_OK, contract.STATUS_TOO_LARGE),
            lambda: tf.where(fits, contract.STATUS_OK, contract.STATUS_TOO_LARGE),
            lambda: tf.constant(contract.STATUS_UNKNOWN_FORMAT),
        )
        size = self._spec.input_size
        picture = tf.cond(
            tf.equal(status, contract.STATUS_OK),
            lambda: tf.cond(is_jpeg, lambda: self._prepare(decode_jpeg(data)), lambda: self._prepare(decode_png(data))),
            lambda: tf.zeros((size, size, 3)),
        )
        return row, picture, status

    def _prepare(self, image):
        return tf.ensure_shape(prepare_images(image, self._spec), (self._spec.input_size, self._spec.input_size, 3))


def _fits(height, width):
    """Whether a picture's size is within the contract's bounds; false for sizes below 1 too."""
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    shortest, longest = tf.minimum(height, width), tf.maximum(height, width)
    small = (height * width <= MAX_PIXELS) & (longest <= shortest * contract.MAX_ASPECT_RATIO)
    return small & (shortest >= 1)
