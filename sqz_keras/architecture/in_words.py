"""What a `ModelSpec` says, for people."""

from __future__ import annotations

from sqz_keras.architecture.spec import ModelSpec, imagenet_wnids

_MODES = {
    "authors": "BGR minus (104, 117, 123)",
    "caffe": "BGR minus (103.939, 116.779, 123.68)",
    "torch": "RGB / 255, minus (.485, .456, .406), over (.229, .224, .225)",
    "tf": "RGB / 127.5 - 1",
}


def describe_architecture(spec: ModelSpec) -> str:
    """The version and the bypass, such as "SqueezeNet 1.0, simple bypass"."""
    net = f"SqueezeNet {spec.version}" if spec.version else "SqueezeNet with metaparameters of its own"
    return f"{net}, {spec.bypass} bypass" if spec.bypass else net


def describe_preprocessing(spec: ModelSpec) -> str:
    """How an image becomes the network's input."""
    size = spec.preprocessing.resize_to
    resize = f"shortest side scaled to {size}"
    if spec.preprocessing.resize == "stretch":
        resize = f"stretched to {size} x {size}"
    crop = f", centre {spec.input_size} x {spec.input_size}" if size != spec.input_size else ""
    return f"{resize}{crop}, {_MODES[spec.preprocessing.mode]}"


def describe_labels(spec: ModelSpec) -> str:
    """Where the names of the classes come from."""
    if spec.labels == imagenet_wnids():
        return "ImageNet, ILSVRC2012"
    return "those it was trained with" if spec.labels else "none: a class is called by its index"


def describe(spec: ModelSpec) -> list[tuple[str, str]]:
    """Rows of a table about the model: pairs of a name and a value."""
    return [
        ("Architecture", describe_architecture(spec)),
        ("Parameters", f"{spec.count_params():,}"),
        ("Input", f"{spec.input_size} x {spec.input_size} pixels, made from an image of any size"),
        ("Preprocessing", describe_preprocessing(spec)),
        ("Classes", f"{spec.classes:,}"),
        ("Labels", describe_labels(spec)),
    ]
