"""Encodes and decodes arrays with NNCodec; experiments/compression.py runs this with --peers.

    PYTHON experiments/nncodec_worker.py SOURCE.npz RESULT.npz QP

Prints NNCodec's version and the number of bytes in its stream. Needs the package nncodec, and nothing of this project.
"""

import importlib.metadata
import sys

import numpy as np
from nncodec.nn import decode, encode

source, result, qp = sys.argv[1:]
with np.load(source) as loaded:
    arrays = {name: loaded[name] for name in loaded.files}
stream = encode(arrays, args={"qp": int(qp), "use_dq": True, "verbose": False})
np.savez(result, **decode(stream))
print(importlib.metadata.version("nncodec"), len(stream))
