"""`ModelSpec`: everything that a file of weights does not say about its model, with a JSON form."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import types
import typing
from collections.abc import Iterable, Mapping

import numpy as np

from sqz_keras.architecture.layers import Layer, bypass_kinds, list_layers
from sqz_keras.architecture.metaparameters import VERSIONS, Metaparameters
from sqz_keras.architecture.plain_numbers import require_integer

PREPROCESSING_MODES = ("authors", "caffe", "torch", "tf")
RESIZES = ("stretch", "shortest_side")
MAX_JSON_BYTES = 1 << 20
# Limits for an input or a resized image, and for conv10: far beyond any use, but no small file can exhaust memory.
MOST_PIXELS, MOST_PADDING = 4096, 16
# Characters that a terminal would act on or that end a line, and surrogates: bytes of a folder's name outside UTF-8.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The 1000 (wnid, name) pairs of ILSVRC2012 in the order of the class indices."""
    path = pathlib.Path(__file__).parents[1] / "data" / "imagenet_classes.txt"
    return tuple(tuple(line.split(" ", 1)) for line in path.read_text("utf-8").splitlines())


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 wnids of ILSVRC2012 in the order of the class indices."""
    return tuple(wnid for wnid, _ in imagenet_classes())


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an RGB image with values in 0..255 becomes the network's input.

    Args:
        mode: Order and scale of the channels. "authors": BGR minus (104, 117, 123); "caffe": BGR minus (103.939,
            116.779, 123.68); "torch": RGB / 255, minus (.485, .456, .406), over (.229, .224, .225); "tf":
            RGB / 127.5 - 1.
        resize: "stretch" to a square of `resize_to` pixels, or "shortest_side" to `resize_to` with the aspect kept.
            Both are bilinear; then the centre is cropped to the network's input size.
        resize_to: Side that images are resized to, in pixels, at most 4,096.
        antialias: Whether the bilinear filter widens when it shrinks an image, as in Pillow and torchvision.

    Raises:
        ValueError: A value is not one of those described here.
    """

    mode: str = "authors"
    resize: str = "stretch"
    resize_to: int = 256
    antialias: bool = True

    def __post_init__(self):
        if self.mode not in PREPROCESSING_MODES:
            raise ValueError(f"Preprocessing: mode must be one of {PREPROCESSING_MODES}, got {self.mode!r}.")
        if self.resize not in RESIZES:
            raise ValueError(f"Preprocessing: resize must be one of {RESIZES}, got {self.resize!r}.")
        if not isinstance(self.antialias, bool | np.bool_):
            raise ValueError(f"Preprocessing: antialias must be True or False, got {self.antialias!r:.40}.")
        object.__setattr__(self, "antialias", bool(self.antialias))
        resize_to = require_integer("Preprocessing: resize_to", self.resize_to, 1, MOST_PIXELS)
        object.__setattr__(self, "resize_to", resize_to)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A description of what a model's weights alone do not say.

    Args:
        version: "1.0", "1.1", or None if `metaparameters` are the caller's own.
        bypass: None, "simple" or "complex".
        metaparameters: The network's metaparameters; if omitted, they follow from `version`.
        classes: Number of classes, at least 2.
        labels: Names in the order of the class indices (wnids for ImageNet), or None if unknown. A name must not be
            blank or have control characters, such as tabs, and must be valid UTF-8.
        input_size: Height and width of the network's input, in pixels, at most 4,096.
        channels: Channels of the network's input.
        preprocessing: How an image becomes the network's input.
        conv10_padding: Rows and columns of zeros around conv10's input: 0 in the paper's Table 1, 1 in the released
            v1.0. At most 16.
        weights_sha256: `hash_arrays` of the weights, or None.

    Raises:
        ValueError: A field is out of range, or two fields contradict each other.
    """

    version: str | None = "1.0"
    bypass: str | None = None
    metaparameters: Metaparameters | None = None
    classes: int = 1000
    labels: tuple[str, ...] | None = None
    input_size: int = 227
    channels: int = 3
    preprocessing: Preprocessing = Preprocessing()
    conv10_padding: int = 0
    weights_sha256: str | None = None

    def __post_init__(self):
        if self.version is None:
            if not isinstance(self.metaparameters, Metaparameters):
                raise ValueError(
                    f"ModelSpec: version=None needs metaparameters, a Metaparameters; got {self.metaparameters!r:.80}."
                )
        elif self.version not in VERSIONS:
            raise ValueError(f"version must be one of {tuple(VERSIONS)}, got {self.version!r}.")
        elif self.metaparameters not in (None, VERSIONS[self.version]):
            raise ValueError(f"ModelSpec: these metaparameters are not version {self.version}'s; give version=None.")
        object.__setattr__(self, "metaparameters", self.metaparameters or VERSIONS[self.version])
        bypass_kinds(self.metaparameters, self.bypass)
        for name, *limits in (
            ("classes", 1),
            ("input_size", 1, MOST_PIXELS),
            ("channels", 1),
            ("conv10_padding", 0, MOST_PADDING),
        ):
            object.__setattr__(self, name, require_integer(f"ModelSpec: {name}", getattr(self, name), *limits))
        if self.classes == 1:
            raise ValueError(
                "ModelSpec: classes must be at least 2, got 1: the softmax of one class is 1 for every image. Add a "
                "class for the images that are not of this one."
            )
        if not isinstance(self.preprocessing, Preprocessing):
            raise ValueError(f"ModelSpec: preprocessing must be a Preprocessing, got {self.preprocessing!r:.80}.")
        if self.preprocessing.resize_to < self.input_size:
            raise ValueError(
                f"ModelSpec: images are resized to {self.preprocessing.resize_to} pixels and then cropped to "
                f"input_size={self.input_size}, which is more; give preprocessing.resize_to >= input_size."
            )
        if self.labels is not None:
            self._check_labels()

    def _check_labels(self) -> None:
        has_order = isinstance(self.labels, Iterable) and not isinstance(self.labels, str | set | frozenset)
        if not has_order or not all(isinstance(label, str) for label in self.labels):
            raise ValueError(f"ModelSpec: labels must be a tuple of strings, got {self.labels!r:.80}.")
        object.__setattr__(self, "labels", tuple(map(str, self.labels)))
        if len(self.labels) != self.classes or len(set(self.labels)) != self.classes:
            again = next((label for label, count in collections.Counter(self.labels).items() if count > 1), None)
            raise ValueError(
                f"ModelSpec: labels must be {self.classes} different names, one per class; got {len(self.labels)}, "
                f"{len(set(self.labels))} of them different"
                + (f": {again!r:.80} is there more than once." if again is not None else ".")
            )
        wrong = next((label for label in self.labels if not label.strip() or _CONTROL.search(label)), None)
        if wrong is not None:
            raise ValueError(
                f"ModelSpec: labels must be names without control characters, and not blank; got {wrong!r:.80}. "
                "Name its class, in UTF-8."
            )

    def with_net(
        self, version: str | None = None, bypass: str | None = None, metaparameters: Mapping[str, object] | None = None
    ) -> ModelSpec:
        """The same model with another network.

        Args:
            version: "1.0" or "1.1"; None keeps this spec's metaparameters.
            bypass: "none", "simple" or "complex"; None keeps this spec's bypass.
            metaparameters: Fields of `Metaparameters` to change on top of that.

        Returns:
            The spec with that network; nothing else changes.

        Raises:
            ValueError: The version is unknown, or a metaparameter or the bypass is refused.
        """
        if version is not None and version not in VERSIONS:
            raise ValueError(f"version must be one of {tuple(VERSIONS)}, got {version!r}.")
        net = VERSIONS[version] if version else self.metaparameters
        net = dataclasses.replace(net, **(metaparameters or {}))
        named = next((name for name, version_net in VERSIONS.items() if version_net == net), None)
        bypass = {None: self.bypass, "none": None}.get(bypass, bypass)
        return dataclasses.replace(self, version=named, metaparameters=net, bypass=bypass)

    def layers(self) -> tuple[Layer, ...]:
        """The layers of the network with its top, in the order in which they run."""
        return list_layers(
            self.metaparameters,
            self.bypass,
            input_size=self.input_size,
            channels=self.channels,
            classes=self.classes,
            conv10_padding=self.conv10_padding,
        )

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights by name ("conv1/kernel", "conv1/bias", ...), in net order; kernels are HWIO."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in self.layers():
            if layer.kind == "convolution":
                shapes[f"{layer.name}/kernel"] = layer.kernel_shape
                shapes[f"{layer.name}/bias"] = (layer.channels,)
        return shapes

    def count_params(self) -> int:
        """Number of weights and biases."""
        return sum(layer.parameters for layer in self.layers())

    def class_names(self) -> tuple[str, ...]:
        """Readable names of the classes: ImageNet's names for its wnids, else the labels, else the indices."""
        if self.labels == imagenet_wnids():
            return tuple(name for _, name in imagenet_classes())
        return self.labels or tuple(str(index) for index in range(self.classes))

    def to_json(self) -> dict:
        """The JSON form: plain dicts, lists, strings and numbers. ImageNet's wnids are written as "imagenet"."""
        form = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.labels == imagenet_wnids():
            form["labels"] = "imagenet"
        return form

    @classmethod
    def from_json(cls, form: Mapping) -> ModelSpec:
        """The spec that `to_json` wrote.

        Args:
            form: Parsed JSON.

        Returns:
            The spec.

        Raises:
            ValueError: A field is unknown or of the wrong type, or ModelSpec refuses its value.
        """
        fields = _typed_fields(cls, form)
        if fields.get("labels") == "imagenet":
            fields["labels"] = imagenet_wnids()
        if fields.get("metaparameters") is not None:
            fields["metaparameters"] = Metaparameters(**_typed_fields(Metaparameters, fields["metaparameters"]))
        if "preprocessing" in fields:
            fields["preprocessing"] = Preprocessing(**_typed_fields(Preprocessing, fields["preprocessing"]))
        return cls(**fields)


def _typed_fields(cls: type, form: object) -> dict:
    """The fields of a dataclass from parsed JSON, each checked against the type that the dataclass declares."""
    if not isinstance(form, Mapping):
        raise ValueError(f"{cls.__name__}: expected a JSON object, got {type(form).__name__}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(form) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown fields {unknown}; the fields are {sorted(hints)}.")
    for name, value in form.items():
        if name == "labels" and value == "imagenet":
            continue
        if not any(_is_a(value, hint) for hint in _alternatives(hints[name])):
            raise ValueError(f"{cls.__name__}: {name} must be {hints[name]}, got {value!r:.80}.")
    return dict(form)


def _alternatives(hint: object) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _is_a(value: object, hint: object) -> bool:
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return isinstance(value, list) and all(_is_a(entry, item) for entry in value)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, shapes and little-endian float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{list(arrays[name].shape)}".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()
