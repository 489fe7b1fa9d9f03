"""The ways of making a net smaller that experiments/compression.py compares, each with the bytes that it takes."""

from __future__ import annotations

import contextlib
import io
import math
import pathlib
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.densities import layer_names, prune_magnitudes
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.models.squeezenet import build
from sqz_keras.weights import sqz
from trainers.progress import say

Arrays = dict[str, np.ndarray]
INDEX_BITS = 4  # of a relative index, as in Deep Compression
SVD_ENERGIES = (0.99, 0.95, 0.9, 0.8)
NNCODEC_QPS = (-38, -34, -30, -27, -24, -21)  # quantisation parameters, the finest first
PRUNED_SHARES = (1.0, 0.8, 0.6)
BITS = (8, 6, 5)


@dataclass(frozen=True)
class Candidate:
    """A compressed net.

    Args:
        method: Method that made it; each name is one curve of the plot.
        setting: Setting of the method, or "".
        bytes: Size of the whole file.
        arrays: The decoded weights, or None if `litert` holds the net.
        litert: A LiteRT file, or None.
    """

    method: str
    setting: str
    bytes: int
    arrays: Arrays | None = None
    litert: bytes | None = None


def zipped(spec: ModelSpec, arrays: Arrays) -> Iterator[Candidate]:
    """The float32 weights, as they are and in general-purpose compressors at their strongest."""
    del spec
    raw = b"".join(array.tobytes() for array in arrays.values())
    yield Candidate("float32", "", len(raw), arrays)
    yield Candidate("gzip", "-9", len(zlib.compress(raw, 9, 31)), arrays)
    try:
        import zstandard
    except ModuleNotFoundError:
        print("zstandard is not installed: zstd is left out")
        return
    yield Candidate("zstd", "-19", len(zstandard.compress(raw, 19)), arrays)


def svd(spec: ModelSpec, arrays: Arrays) -> Iterator[Candidate]:
    """Each kernel as two factors of a matrix (height x width x in, out), cut to the rank that keeps a share of energy.

    A kernel stays as it is if its factors would be larger.
    """
    del spec
    for energy in SVD_ENERGIES:
        size, cut = 0, dict(arrays)
        for name, array in arrays.items():
            size += array.nbytes
            if not name.endswith("/kernel"):
                continue
            matrix = array.reshape(-1, array.shape[-1])
            left, values, right = np.linalg.svd(matrix, full_matrices=False)
            kept = np.cumsum(values**2) / np.sum(values**2)
            rank = int(np.searchsorted(kept, energy)) + 1
            if rank * sum(matrix.shape) < matrix.size:
                size += 4 * rank * sum(matrix.shape) - array.nbytes
                cut[name] = ((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(array.shape).astype(np.float32)
        yield Candidate("SVD", f"{energy:.0%} of the energy", size, cut)


def pruning(spec: ModelSpec, arrays: Arrays) -> Iterator[Candidate]:
    """The weights that pruning leaves, in float32, with relative indices and without fine-tuning."""
    del spec
    for share in PRUNED_SHARES:
        kernels = {layer: arrays[f"{layer}/kernel"] for layer in layer_names(arrays)}
        densities = {layer: share * np.count_nonzero(kernel) / kernel.size for layer, kernel in kernels.items()}
        pruned = arrays if share == 1 else prune_magnitudes(arrays, densities)
        yield Candidate("pruning", f"{share:.0%} of the non-zeros", _indexed_bytes(pruned, 32, 0), pruned)


def shared(spec: ModelSpec, arrays: Arrays) -> Iterator[Candidate]:
    """K-means of the non-zeros: as plain codes for all weights, with relative indices, and in both profiles."""
    for bits in BITS:
        clustered = kmeans(arrays, bits)
        kernels = [array for name, array in clustered.items() if name.endswith("/kernel")]
        codes = sum(math.ceil(bits * kernel.size / 8) + 4 * 2**bits for kernel in kernels)
        plain = codes + sum(array.nbytes for name, array in clustered.items() if name.endswith("/bias"))
        yield Candidate("clustering", f"{bits} bits", plain, clustered)
        yield Candidate("pruning + clustering", f"{bits} bits", _indexed_bytes(clustered, bits, 2**bits), clustered)
        for profile, name in (("paper", "+ Huffman (profile paper)"), ("max", "profile max")):
            yield Candidate(name, f"{bits} bits", len(sqz.encode(spec, clustered, profile=profile)), clustered)


def lossless(spec: ModelSpec, arrays: Arrays) -> Iterator[Candidate]:
    """The weights as they are, in both profiles."""
    for profile in ("paper", "max"):
        yield Candidate(f"lossless, {profile}", "", len(sqz.encode(spec, arrays, profile=profile)), arrays)


def litert(spec: ModelSpec, arrays: Arrays, calibration: np.ndarray) -> Iterator[Candidate]:
    """LiteRT files: float16, 8-bit weights, and 8 bits throughout, calibrated on the given network inputs."""
    import tensorflow as tf

    model = build(spec, arrays)
    for setting in ("float16", "int8 weights", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if setting == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif setting == "int8":
            converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        with contextlib.redirect_stdout(io.StringIO()):  # on which it lists every weight
            data = converter.convert()
        yield Candidate("LiteRT", setting, len(data), litert=data)


def label_free(spec: ModelSpec, arrays: Arrays, calibration: np.ndarray, targets: list[int]) -> Iterator[Candidate]:
    """Weights quantised to each target size, with the given network inputs and no labels."""
    from sqz_keras.compression.quantize import Quantizer

    header = sqz.header_bytes(spec, arrays, {})
    quantizer = Quantizer(spec, arrays, calibration, report=say)
    for target in targets:
        room = target - header
        say(f"label-free, for {target:,} bytes; predicted agreement {quantizer.estimate_agreement(room):.1%}")
        result = quantizer.to_size(room)
        yield Candidate("label-free", f"for {target:,} bytes", len(sqz.encode(spec, result)), result)


def files(paths: Sequence[str]) -> Iterator[Candidate]:
    """Files of sqz-compress; the last stage of each file is the name of its method."""
    for path in paths:
        model = sqz.read_model(path)
        (*_, stage) = model.provenance["stages"]
        yield Candidate(stage["stage"], pathlib.Path(path).stem, pathlib.Path(path).stat().st_size, model.arrays)


def nncodec(arrays: Arrays, python: str) -> Iterator[Candidate]:
    """NNCodec with dependent quantisation and its other defaults, run by `python`; kernels as PyTorch lays them out."""
    with tempfile.TemporaryDirectory() as scratch:
        source, result = pathlib.Path(scratch, "source.npz"), pathlib.Path(scratch, "result.npz")
        np.savez(source, **{name.replace("/", "."): _reversed(array) for name, array in arrays.items()})
        worker = pathlib.Path(__file__).with_name("nncodec_worker.py")
        for qp in NNCODEC_QPS:
            command = [python, worker, source, result, str(qp)]
            run = subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.PIPE, text=True)
            version, size = run.stdout.split()[-2:]
            with np.load(result) as decoded:
                restored = {name: _reversed(decoded[name.replace("/", ".")], inverse=True) for name in arrays}
            yield Candidate(f"NNCodec {version}", f"qp {qp}", int(size), restored)


def _reversed(array: np.ndarray, inverse: bool = False) -> np.ndarray:
    """A kernel (height, width, in, out) as (out, in, height, width), or back."""
    return np.ascontiguousarray(
        array.transpose((2, 3, 1, 0) if inverse else (3, 2, 0, 1)) if array.ndim == 4 else array
    )


def _indexed_bytes(arrays: Arrays, value_bits: int, codebook: int) -> int:
    """Bytes in the layout of Deep Compression's .net, with `value_bits` a value and `codebook` entries per codebook."""
    total = 0
    for name, array in arrays.items():
        if name.endswith("/bias"):
            total += array.nbytes
            continue
        positions = np.flatnonzero(np.transpose(array, (3, 2, 0, 1)))
        gaps = np.diff(positions, prepend=-1) - 1
        entries = len(positions) + int((gaps >> INDEX_BITS).sum())
        total += 4 + 4 * codebook + math.ceil(entries * value_bits / 8) + math.ceil(entries * INDEX_BITS / 8)
    return total
