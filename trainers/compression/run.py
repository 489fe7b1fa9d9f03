"""What sqz-compress does: it reads a model, runs a method, writes the file, and compares the result with the model.

Only the parts that run the network import Keras: lossless and k-means files are made without it.
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
from sqz_keras.backend import check_is_tensorflow
from sqz_keras.compression.bias_changes import round_bias_changes
from sqz_keras.compression.densities import layer_names, measure_densities
from sqz_keras.extras import MissingExtraError, needs
from sqz_keras.files import write_file, write_json
from sqz_keras.images.preprocessing import check_takes_rgb
from sqz_keras.version import __version__
from sqz_keras.weights import sqz
from sqz_keras.weights.arrays import WeightsFileError, read_bytes
from sqz_keras.weights.resolve import check_agrees
from trainers.compression.config import (
    SUFFIX,
    CompressionConfig,
    FinetuneConfig,
    KMeansConfig,
    LosslessConfig,
    QuantizeConfig,
    TuneConfig,
    parse_bits,
)
from trainers.progress import say
from trainers.reports.thumbnails import distinct_names

Arrays = dict[str, np.ndarray]


def compress(config: CompressionConfig) -> dict[str, Any]:
    """Writes `config.output` and the reports beside it.

    Returns:
        The results, as the JSON report holds them: `bytes`, `float32_bytes`, `compression_ratio` (for a delta, the name
        of its `base` instead), `lossless` and the layout of the file. If there are images for the evaluation, also the
        `agreement_fields` as `before` and `after`, and some of the images whose answer changed as `changed`.

    Raises:
        ValueError: The model, an option or the images are not what they should be.
        OSError: A file cannot be read or written.
    """
    base = None if config.base is None else read_bytes(config.base)
    base_arrays = {} if base is None else _read_base(config, base)
    spec, arrays, earlier = _read_model(config)
    if config.evaluation_dir or not isinstance(config, LosslessConfig | KMeansConfig):
        check_takes_rgb(spec)
    batches = _evaluation_batches(config, spec)  # first, so that an error here does not waste the work
    provenance = _provenance(config, arrays, earlier)
    result, stages = _run_method(config, spec, arrays, provenance)
    if base is not None and not isinstance(config, LosslessConfig):
        result = round_bias_changes(result, base_arrays)
        stages = [*stages, {"stage": "round_bias_changes"}]
    provenance["stages"] = [*provenance["stages"], *stages]
    data = write_sqz(config, spec, result, provenance, base)
    results = measure(spec, arrays, result, data, base) | {"provenance": provenance}
    if config.base is not None:  # a delta's size is not that of a whole model
        del results["compression_ratio"]
        results["base"] = os.path.basename(config.base)
    images: list[np.ndarray] = []
    if batches is not None:
        say("comparing the result with the model")
        compared, images = _compare(spec, arrays, result, batches)
        results |= compared
    as_json, as_html = config.report_paths()
    write_json(as_json, results)
    try:
        with needs("report"):
            from trainers.reports.compression import write_compression_report
    except MissingExtraError as error:
        say(f"report: {as_json}; {as_html} {error}")
        return results
    write_compression_report(as_html, pathlib.Path(config.output).name, results, arrays, result, images)
    say(f"reports: {as_json} and {as_html}")
    return results


def _read_model(config: CompressionConfig) -> tuple[ModelSpec, Arrays, dict[str, Any]]:
    """The model to compress, and the provenance that its file states."""
    apply_to = config.apply_to if isinstance(config, LosslessConfig) else None
    is_sqz = pathlib.Path(config.model).suffix.lower() == SUFFIX and os.path.isfile(config.model)
    if apply_to and not is_sqz:
        raise ValueError(f"--apply_to needs a delta as --model, a {SUFFIX} file; got --model={config.model}.")
    if not is_sqz:
        return *resolve_model(config.model, version=config.version, bypass=config.bypass), {}
    try:
        model = sqz.read_model(config.model, apply_to)
    except WeightsFileError as error:
        if apply_to or not isinstance(error.__cause__, codec.BaseFileError):
            raise
        raise ValueError(
            f"{config.model} is a delta. Name the file on which it was made: --apply_to=OLD.sqz (--base makes a delta)."
        ) from error
    check_agrees(config.model, model.spec, config.version, config.bypass)
    return model.spec, model.arrays, model.provenance


def _read_base(config: CompressionConfig, base: bytes) -> Arrays:
    """The arrays of the file on which a delta is made."""
    try:
        return codec.decode(base).arrays
    except codec.SqzError as error:
        raise WeightsFileError(f"--base={config.base} must be a whole .sqz file, not a delta: {error}.") from error


def _provenance(config: CompressionConfig, arrays: Arrays, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What the file is made from; values from the provenance in the model's own file take precedence."""
    provenance = {"made_by": f"sqz-keras {__version__}", "model": os.path.basename(os.path.abspath(config.model))}
    provenance |= {"weights_sha256": hash_arrays(arrays)} | earlier
    stages = earlier.get("stages")
    return provenance | {"stages": stages if isinstance(stages, list) else []}


def _evaluation_batches(config: CompressionConfig, spec: ModelSpec):
    """Batches for `compare_models`: from `evaluation_dir`, else from a split that fine-tuning does not see, or None."""
    if config.evaluation_dir:
        from trainers.evaluation.agreement import find_evaluation_images, image_batches

        return image_batches(find_evaluation_images(config.evaluation_dir, spec), spec)
    if isinstance(config, FinetuneConfig) and not config.calibration_dir:
        with needs("compress"):
            from trainers.compression.finetune import held_out_batches

        return held_out_batches(config, spec)
    return None


def _compare(spec: ModelSpec, before: Arrays, after: Arrays, batches) -> tuple[dict[str, Any], list[np.ndarray]]:
    """`before`, `after` and `changed` of the results, and the images of `changed`, uint8 RGB (S, S, 3) each."""
    from sqz_keras.images.preprocessing import restore_rgb
    from trainers.evaluation.agreement import ChangedAnswers, compare_models

    answers, names = ChangedAnswers(), distinct_names(spec.class_names())
    fields_before, fields_after = compare_models(spec, [before, after], batches, answers)
    changed = [
        {
            "before": names[answer.before],
            "after": names[answer.after],
            "probability_before": round(answer.probability_before, 6),
            "probability_after": round(answer.probability_after, 6),
        }
        for answer in answers.kept
    ]
    images = [restore_rgb(answer.inputs, spec.preprocessing.mode) for answer in answers.kept]
    return {"before": fields_before, "after": fields_after, "changed": changed}, images


def _run_method(
    config: CompressionConfig, spec: ModelSpec, arrays: Arrays, provenance: Mapping[str, Any]
) -> tuple[Arrays, list[dict]]:
    """The compressed weights, and the settings of the stages, for the provenance."""
    if isinstance(config, KMeansConfig):
        return _kmeans(config, arrays)
    if isinstance(config, QuantizeConfig):
        with needs("tensorflow"):
            from trainers.compression.quantization import quantize
        check_is_tensorflow("--method=quantize")
        return quantize(config, spec, arrays, provenance)
    if isinstance(config, TuneConfig):
        with needs("train"):
            from trainers.compression.tuning import tune
        check_is_tensorflow("--method=tune")
        return tune(config, spec, arrays, provenance)
    if isinstance(config, FinetuneConfig):
        with needs("compress"):
            from trainers.compression.finetune import finetune
        check_is_tensorflow("--method=finetune")
        return finetune(config, spec, arrays)
    return arrays, []


def _kmeans(config: KMeansConfig, arrays: Arrays) -> tuple[Arrays, list[dict]]:
    from sqz_keras.compression.kmeans import kmeans

    bits = parse_bits(config.bits, layer_names(arrays))
    say(f"sharing weights: {config.bits} bits")
    return kmeans(arrays, bits), [{"stage": "kmeans", "bits": config.bits}]


def write_sqz(
    config: CompressionConfig, spec: ModelSpec, arrays: Arrays, provenance: Mapping[str, Any], base: bytes | None
) -> bytes:
    """Encodes the weights, decodes them again to be sure, and writes the file whole or not at all.

    Raises:
        ValueError: The encoded file does not decode to the same bits, or is larger than `config.target_bytes`.
    """
    self_test = _make_self_test(spec, arrays) if config.self_test else None
    data = sqz.encode(spec, arrays, provenance, profile=config.profile, base=base, self_test=self_test)
    back = codec.decode(data, base).arrays
    if any(not np.array_equal(array.view(np.uint32), back[name].view(np.uint32)) for name, array in arrays.items()):
        raise ValueError("The encoded file does not decode to the same bits; nothing was written. Please report it.")
    target = getattr(config, "target_bytes", 0)
    if target and len(data) > target:
        raise ValueError(
            f"The file would have {len(data):,} bytes, more than --target_bytes={target}; nothing was written. Give "
            "more bytes."
        )
    write_file(config.output, data)
    say(f"wrote {config.output}: {len(data):,} bytes")
    return data


def _make_self_test(spec: ModelSpec, arrays: Arrays) -> dict[str, Any]:
    with needs("receiver"):
        from sqz_keras.runtimes import litert_file, self_test
        from sqz_keras.runtimes.run import run_litert

        data = litert_file.convert(spec, arrays)
        return self_test.make(spec, lambda images: run_litert(data, images))


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
        "sections": [{"name": section.name, "bytes": section.bytes} for section in layout.sections],
        "arrays": [_array_fields(array) for array in layout.arrays],
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
