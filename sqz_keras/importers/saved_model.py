"""A SavedModel folder of this project: its checkpoint alone is read, its graph never loaded."""

from __future__ import annotations

import os
import re

import numpy as np

from sqz_keras.importers.arrays import WeightsFileError, check_declared, file_size, float32_arrays, refuse

# A variable in the dict `weights` of the exported module; TensorFlow writes the "/" of a key as ".S".
_KEY = re.compile(r"weights/([a-z0-9_]+)\.S(kernel|bias)/\.ATTRIBUTES/VARIABLE_VALUE")


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of a SavedModel folder that was exported by this project. TensorFlow must be installed.

    Returns:
        float32 arrays by name, kernels HWIO, in net order.

    Raises:
        WeightsFileError: there is no checkpoint in the folder, it is damaged, or it is not of this project.
    """
    import tensorflow as tf

    prefix = os.path.join(path, "variables", "variables")
    _check_sizes(path)
    with refuse(path, tf.errors.OpError, ValueError, RuntimeError, TypeError, UnicodeDecodeError):
        checkpoint = tf.train.load_checkpoint(prefix)
        shapes = checkpoint.get_variable_to_shape_map()
    keys = {key: match for key in shapes if key.startswith("weights/") for match in [_KEY.fullmatch(key)]}
    unknown = [key for key, match in keys.items() if match is None]
    if unknown or not keys:
        raise WeightsFileError(
            f"{path}: expected the variables of a model exported by this project, weights/<layer>/<kernel or bias>; "
            f"found {(unknown or sorted(shapes))[:4]}. Export the model again from its .keras or .weights.h5 file."
        )
    check_declared(path, shapes)
    tensors = {}
    for key in shapes:
        # Also what is no weight is read: its checksum tells whether the files are whole.
        with refuse(path, tf.errors.OpError, ValueError, RuntimeError, LookupError):
            tensors[key] = checkpoint.get_tensor(key)
    arrays = {f"{match[1]}/{match[2]}": tensors[key] for key, match in keys.items()}
    return float32_arrays(path, arrays)


def _check_sizes(path: str | os.PathLike) -> None:
    folder = os.path.join(path, "variables")
    if not os.path.isdir(folder):
        raise WeightsFileError(f"{path}: expected the folder 'variables' in it; this is no SavedModel.")
    for name in ("variables.index", "variables.data-00000-of-00001"):
        file_size(os.path.join(folder, name))
