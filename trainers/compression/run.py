"""What sqz-compress does: a model, its stages, the file, and what became of it.

Keras is imported only by what runs the network: without images, none is needed.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sqz_keras import codec, resolve_model
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.compression.densities import layer_names, measure_densities
from sqz_keras.files import write_file, write_json
from sqz_keras.version import __version__
from sqz_keras.weights import sqz
from sqz_keras.weights.arrays import WeightsFileError, read_bytes
from trainers.compression.config import SUFFIX, CompressionConfig, parse_bits
from trainers.progress import say
from trainers.reports.compression import write_compression_report

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Source:
    """The model that is to be compressed, what is known of its making, and the file on which the result is a delta."""

    spec: ModelSpec
    arrays: Arrays
    provenance: dict[str, Any]
    base: bytes | None


def compress(config: CompressionConfig) -> dict[str, Any]:
    """Writes `config.output` and the reports beside it.

    Returns:
        The results, as the JSON report holds them: `bytes`, `float32_bytes`, `compression_ratio`, `lossless`,
        the layout of the file, and with images that judge the `agreement_fields` as `before` and `after`.

    Raises:
        ValueError: the model, an option or the images are not what they should be.
        OSError: a file cannot be read or written.
    """
    source = _read(config)
    spec, arrays, earlier = source.spec, source.arrays, source.provenance
    judges = _judges(config, spec)  # found before the work that they judge
    provenance = {"made_by": f"sqz-keras {__version__}", "model": os.path.basename(config.model)}
    provenance |= {"weights_sha256": hash_arrays(arrays)} | earlier
    known = earlier.get("stages")
    provenance["stages"] = known if isinstance(known, list) else []
    result, stages = run_stages(config, spec, arrays, provenance)
    provenance["stages"] = [*provenance["stages"], *stages]
    data = write_sqz(config, spec, result, provenance, source.base)
    results = measure(spec, arrays, result, data, source.base) | {"provenance": provenance}
    if judges is not None:
        from trainers.evaluation.agreement import compare_models

        say("judging")
        results["before"], results["after"] = compare_models(spec, [arrays, result], judges)
    as_json, as_html = config.report_paths()
    write_json(as_json, results)
    write_compression_report(as_html, pathlib.Path(config.output).name, results, arrays, result)
    say(f"reports: {as_json} and {as_html}")
    return results


def _judges(config: CompressionConfig, spec: ModelSpec):
    """Batches for `compare_models`: of `evaluation_dir`, else of a split that fine-tuning does not see, or None."""
    if config.evaluation_dir:
        from trainers.evaluation.agreement import find_evaluation_images, image_batches

        return image_batches(find_evaluation_images(config.evaluation_dir, spec), spec, config.batch_size)
    if config.image_dir or config.dataset:
        from trainers.compression.tuned import judging_batches

        return judging_batches(config, spec)
    return None


def run_stages(
    config: CompressionConfig, spec: ModelSpec, arrays: Arrays, provenance: dict[str, Any]
) -> tuple[Arrays, list[dict]]:
    """The weights after the stages that were asked for, and for each stage what it was asked for."""
    if config.target_bytes:
        return _quantize(config, spec, arrays, provenance)
    if config.tuned:
        from trainers.compression.tuned import tune

        return tune(config, spec, arrays)
    if not config.bits:
        return arrays, []
    from sqz_keras.compression.kmeans import kmeans

    bits = parse_bits(config.bits, layer_names(arrays))
    say(f"sharing weights: {config.bits} bits")
    return kmeans(arrays, bits), [{"stage": "kmeans", "bits": config.bits}]


def _quantize(
    config: CompressionConfig, spec: ModelSpec, arrays: Arrays, provenance: dict[str, Any]
) -> tuple[Arrays, list[dict]]:
    from sqz_keras.compression import quantize
    from sqz_keras.images.files import find_images
    from trainers.data.image_reader import read_inputs

    paths = find_images(config.calibration_dir, config.calibration_images)
    say(f"reading {len(paths)} images of {config.calibration_dir}")
    images = read_inputs(paths, spec)
    say(f"quantising to {config.target_bytes:,} bytes")
    stages = [{"stage": "quantize", "target_bytes": config.target_bytes, "images": len(images)}]
    header = sqz.header_bytes(spec, arrays, provenance | {"stages": [*provenance["stages"], *stages]})
    room = config.target_bytes - header
    result = quantize.quantize(spec, arrays, images, target_bytes=room, profile=config.profile, report=say)
    return result, stages


def write_sqz(
    config: CompressionConfig, spec: ModelSpec, arrays: Arrays, provenance: Mapping[str, Any], base: bytes | None
) -> bytes:
    """Encodes, decodes again to be sure, and writes the file whole or not at all.

    Raises:
        ValueError: what was encoded does not come back.
    """
    data = sqz.encode(spec, arrays, provenance, profile=config.profile, base=base)
    back = codec.decode(data, base).arrays
    if any(not np.array_equal(array.view(np.uint32), back[name].view(np.uint32)) for name, array in arrays.items()):
        raise ValueError("What was encoded does not come back bit for bit; nothing was written. Please report it.")
    if config.target_bytes and len(data) > config.target_bytes:
        raise ValueError(
            f"The file would have {len(data):,} bytes, more than the {config.target_bytes:,} that were asked for; "
            "nothing was written. Ask for more bytes."
        )
    write_file(config.output, data)
    say(f"wrote {config.output}: {len(data):,} bytes")
    return data


def measure(spec: ModelSpec, before: Arrays, after: Arrays, data: bytes, base: bytes | None = None) -> dict[str, Any]:
    """Sizes, layout and densities of a `.sqz` file, for the reports."""
    layout = codec.describe(data, base)
    raw = 4 * spec.count_params()
    return {
        "bytes": len(data),
        "float32_bytes": raw,
        "compression_ratio": round(raw / len(data), 4),
        "lossless": all(np.array_equal(before[name], after[name]) for name in before),
        "profile": layout.profile,
        "sections": [{"name": each.name, "bytes": each.bytes} for each in layout.sections],
        "arrays": [_array_fields(each) for each in layout.arrays],
        "density_before": measure_densities(before),
        "model_spec": dataclasses.replace(spec, weights_sha256=hash_arrays(after)).to_json(),
    }


def _array_fields(array: codec.ArrayLayout) -> dict[str, Any]:
    return {
        "name": array.name,
        "shape": list(array.shape),
        "kind": array.kind,
        "density": round(array.density, 6),
        "distinct": array.distinct,
        "bits": array.bits,
        "bytes": {part: round(number, 1) for part, number in array.bytes.items()},
        "entropy": {part: round(number, 1) for part, number in array.entropy.items()},
    }


def _read(config: CompressionConfig) -> _Source:
    """The model that is to be compressed."""
    base = None if config.base is None else read_bytes(config.base)
    if pathlib.Path(config.model).suffix != SUFFIX or not os.path.isfile(config.model):
        return _Source(*resolve_model(config.model, version=config.version, bypass=config.bypass), {}, base)
    try:
        model = sqz.read_model(config.model)
    except WeightsFileError as error:
        if base is None or not isinstance(error.__cause__, codec.BaseFileError):
            raise
        say(f"laying {config.model} on {config.base}")
        model, base = sqz.read_model(config.model, config.base), None
    return _Source(model.spec, model.arrays, model.provenance, base)
