"""Writes a small-input SqueezeNet v1.0 with random weights, the same at every run: random_weights.py FILE.sqz"""

import pathlib
import sys

import numpy as np

from sqz_keras import ModelSpec, Preprocessing, codec
from sqz_keras.weights import sqz


def main() -> None:
    spec = ModelSpec("1.0", classes=10, input_size=64, preprocessing=Preprocessing(resize_to=72))
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.normal(0, np.sqrt(2 / np.prod(shape[:-1])) if len(shape) == 4 else 0, shape).astype(np.float32)
        for name, shape in spec.weight_shapes().items()
    }
    pathlib.Path(sys.argv[1]).write_bytes(codec.encode(arrays, sqz.header(spec, arrays, {"stages": []})))


if __name__ == "__main__":
    main()
