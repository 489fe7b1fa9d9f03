"""The card of a served model: its description for people, in rows."""

from __future__ import annotations

import json
import os
import pathlib

from export import contract
from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec, Preprocessing, imagenet_wnids

_MODES = {
    "authors": "BGR minus (104, 117, 123)",
    "caffe": "BGR minus (103.939, 116.779, 123.68)",
    "torch": "RGB / 255, minus (.485, .456, .406), over (.229, .224, .225)",
    "tf": "RGB / 127.5 - 1",
}


def read_card(version_folder: str | os.PathLike) -> list[tuple[str, str]]:
    """The rows of the card of a version that `sqz-export` wrote.

    Args:
        version_folder: `<base_path>/<version>`.

    Returns:
        Pairs of a row's name and its value.

    Raises:
        ValueError: The folder has no description that `sqz-export` wrote.
    """
    path = pathlib.Path(version_folder, contract.EXTRA_FOLDER, contract.SPEC_NAME)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
        form = json.loads(path.read_text("utf-8-sig"))
        spec = ModelSpec.from_json(form["model_spec"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a description that sqz-export wrote: {error}.") from error
    return [
        ("Architecture", _architecture(spec)),
        ("Parameters", f"{spec.count_params():,}"),
        ("Input", f"{spec.input_size} x {spec.input_size} pixels, made from an image of any size"),
        ("Preprocessing", _preprocessing(spec.preprocessing, spec.input_size)),
        ("Classes", f"{spec.classes:,}"),
        ("Labels", _labels(spec)),
        ("Exported by", f"sqz-keras {form.get(contract.PACKAGE_VERSION_KEY, 'of an unknown version')!s:.40}"),
        ("Weights, sha256", spec.weights_sha256 or "not recorded"),
    ]


def _architecture(spec: ModelSpec) -> str:
    net = f"SqueezeNet {spec.version}" if spec.version else "SqueezeNet with metaparameters of its own"
    return f"{net}, {spec.bypass} bypass" if spec.bypass else net


def _preprocessing(preprocessing: Preprocessing, input_size: int) -> str:
    size = preprocessing.resize_to
    resize = f"stretched to {size} x {size}" if preprocessing.resize == "stretch" else f"shortest side scaled to {size}"
    crop = f", centre {input_size} x {input_size}" if size != input_size else ""
    return f"{resize}{crop}, {_MODES[preprocessing.mode]}"


def _labels(spec: ModelSpec) -> str:
    if spec.labels == imagenet_wnids():
        return "ImageNet, ILSVRC2012"
    return "those it was trained with" if spec.labels else "none: a class is called by its index"
