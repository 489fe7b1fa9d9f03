"""torchvision's names for the weights of a SqueezeNet, in `.pth` and `.safetensors` files.

features.0 is conv1; features.N.squeeze, .expand1x1 and .expand3x3 are the fire modules in ascending order of N, and an
N missing between them is a pool; classifier.1 is conv10. Wrappers add to the names: DataParallel puts "module." before
them, torch.compile "_orig_mod.", and a LightningModule the name of its attribute, most often "model." or "net.". Any
other prefix of "features." and "classifier." is removed if it is the only one. Single integers are counters, such as an
AveragedModel's `n_averaged`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sqz_keras.architecture.metaparameters import VERSIONS
from sqz_keras.weights.arrays import WeightsFileError, check_kernel_rank, float32_arrays, hwio, hwio_shape
from sqz_keras.weights.readers.heads import find_head

_LAYER = re.compile(r"features\.(\d{1,4})(?:\.(squeeze|expand1x1|expand3x3))?|classifier\.1")
_BEFORE_LAYERS = re.compile(r"(?<![^.])(?:features|classifier)\.")
_WRAPPERS = frozenset(("module", "_orig_mod"))  # anywhere in a name: single children may be wrapped too
_ATTRIBUTES = ("model", "net")  # only at the start of a name
# Parts from which torch.nn.utils.prune, weight_norm, spectral_norm or parametrize compute a weight.
_COMPUTED = re.compile(r"\.(weight|bias)_(orig|mask|g|v|u)$|\.parametrizations\.")
_PARTS = {"weight": "kernel", "bias": "bias"}


def name_weights(
    path: str | os.PathLike, shapes: Mapping[str, Sequence[int]], trunk_only: bool = False
) -> dict[str, str]:
    """Our name for each weight in a state dict of torchvision's SqueezeNet.

    Args:
        path: named in errors.
        shapes: by the file's names; kernels are (out, in, height, width).
        trunk_only: whether heads that are not named classifier.1 are left out.

    Returns:
        Our names by the file's names, without weights that are left out.

    Raises:
        WeightsFileError: a weight occurs twice or in parts, is not one of torchvision's SqueezeNet, or has the wrong
            rank; or the network has a version's filters, but pools in other places.
    """
    layers: dict[str, dict[str, str]] = {}
    attribute = _shared_attribute(shapes)
    for key in shapes:
        layer, _, part = unwrapped(str(key).removeprefix(attribute)).rpartition(".")
        if _COMPUTED.search(str(key)):
            raise WeightsFileError(
                f"{path}: {key!r:.80} is only part of a weight, as pruning or a norm left it. Make the weights whole "
                'before they are saved, such as by torch.nn.utils.prune.remove(module, "weight") for each layer.'
            )
        if part not in _PARTS or not layer:
            raise WeightsFileError(
                f"{path}: {key!r:.80} is not a weight of torchvision's SqueezeNet. Save the state dict of such a "
                "network alone, without losses, statistics or other networks."
            )
        if part in layers.setdefault(layer, {}):
            raise WeightsFileError(f"{path}: the weight {key!r:.80} occurs twice.")
        layers[layer][part] = key
    ours = _our_layers(path, layers)
    for layer, parts in layers.items():
        if ours[layer] == "conv10" and len(shapes.get(parts.get("weight"), ())) == 2:
            ours[layer] = None  # a dense layer in conv10's place
    names = {
        key: f"{ours[layer]}/{_PARTS[part]}" for layer in ours for part, key in layers[layer].items() if ours[layer]
    }
    for key, name in names.items():
        check_kernel_rank(path, name, shapes[key])
    known = {name: hwio_shape(shapes[key]) for key, name in names.items()}
    others = {
        layer: hwio_shape(shapes[parts["weight"] if "weight" in parts else parts["bias"]])
        for layer, parts in layers.items()
        if ours[layer] is None
    }
    _check_pools(path, layers, known)
    head = find_head(path, others, known, trunk_only)
    if head:
        if not head.startswith("classifier.1."):  # which torchvision's ReLU and average follow
            warnings.warn(
                f"{path} does not say what follows its head {head!r:.80}: it is taken as conv10, with a ReLU and an "
                "average behind it. If the network has no ReLU there, read the trunk alone (include_top=False).",
                stacklevel=2,
            )
        names |= {key: f"conv10/{_PARTS[part]}" for part, key in layers[head].items()}
    return names


def read_weights(
    path: str | os.PathLike, names: Mapping[str, str], values: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """The weights by our names, float32, kernels HWIO.

    Args:
        path: Path that errors name.
        names: What `name_weights` returned: our name by key.
        values: From a key to its array, in torch's layout.
    """
    arrays = {name: values(key) for key, name in names.items()}
    return float32_arrays(path, {name: hwio(array) for name, array in arrays.items()})


def is_counter(shape: Sequence[int], dtype: str) -> bool:
    """Whether a tensor is a single integer, which is not a weight and is left out."""
    return not shape and dtype.lstrip("u").startswith("int")


def _shared_attribute(keys: Iterable[str]) -> str:
    """What stands before "features." and "classifier.", if it is the same in all names that have one of these."""
    found = {_BEFORE_LAYERS.split(key)[0] for key in map(str, keys) if _BEFORE_LAYERS.search(key)}
    return found.pop() if len(found) == 1 else ""


def bare(key: str) -> str:
    """A name without whatever stands before "features." or "classifier."."""
    key = unwrapped(key)
    layers = _BEFORE_LAYERS.search(key)
    return key[layers.start() :] if layers else key


def unwrapped(key: str) -> str:
    """A name without what DataParallel, torch.compile and the usual attributes add to it."""
    parts = [part for part in key.split(".") if part not in _WRAPPERS]
    return ".".join(parts[1:] if parts[0:1] and parts[0] in _ATTRIBUTES else parts)


def _fire_positions(layers: Iterable[str]) -> list[int]:
    """The numbers N of the fire modules, ascending."""
    return sorted({int(match[1]) for match in map(_LAYER.fullmatch, layers) if match and match[2]})


def _check_pools(path: str | os.PathLike, layers: Iterable[str], shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuses a network with a version's filters but pools in other places; features.1 is conv1's ReLU."""
    positions = _fire_positions(layers)
    gaps = [position - before - 1 for before, position in zip([1, *positions], positions, strict=False)]
    pool_after = [place for place, gap in enumerate(gaps, start=1) for _ in range(gap)]
    for version, net in VERSIONS.items():
        filters = {f"{fire.name}_squeeze1x1/bias": (fire.squeeze1x1,) for fire in net.fire_modules()}
        is_it = len(positions) == net.num_fire_modules and all(shapes.get(name) == filters[name] for name in filters)
        if is_it and shapes.get("conv1/bias") == (net.stem_filters,) and tuple(pool_after) != net.pool_after:
            raise WeightsFileError(
                f"{path}: it has the filters of version {version}, and by the numbers in its names, its pools are "
                f"behind {pool_after[:9]}, expected {list(net.pool_after)}. Give torchvision's network."
            )


def _our_layers(path: str | os.PathLike, layers: Mapping[str, object]) -> dict[str, str | None]:
    """Our name for each layer; None for a layer that torchvision's SqueezeNet does not have."""
    matches = {layer: _LAYER.fullmatch(layer) for layer in layers}
    fires = _fire_positions(layers)
    ours: dict[str, str | None] = {}
    for layer, match in matches.items():
        if match is None:
            ours[layer] = None
        elif match[1] is None:
            ours[layer] = "conv10"
        elif match[2] is None and match[1] == "0":
            ours[layer] = "conv1"
        elif match[2] and match[1] != "0":
            part = {"squeeze": "squeeze1x1"}.get(match[2], match[2])
            ours[layer] = f"fire{fires.index(int(match[1])) + 2}_{part}"
        else:
            raise WeightsFileError(f"{path}: {layer!r:.80} is not a layer of torchvision's SqueezeNet.")
    if len(set(ours.values()) - {None}) != sum(name is not None for name in ours.values()):
        raise WeightsFileError(f"{path}: a weight occurs twice.")
    return ours
