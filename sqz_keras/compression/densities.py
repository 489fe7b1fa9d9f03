"""The density of each layer: from Table 1, from a scan of the layers' sensitivity, or from the caller.

A density is the share of a kernel's weights that are not zero, in [0, 1]; layers are named as in the arrays ("conv1",
"fire2_squeeze1x1", ...). Biases are never pruned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# The paper's Table 1. It prints 33% for fire8's 3x3 kernel, but its own count of parameters after pruning, and the
# authors' released file, have 30%.
_FIRES = {
    "fire2": (1.0, 1.0, 0.33),
    "fire3": (1.0, 1.0, 0.33),
    "fire4": (1.0, 1.0, 0.33),
    "fire5": (1.0, 1.0, 0.33),
    "fire6": (1.0, 0.5, 0.33),
    "fire7": (0.5, 1.0, 0.33),
    "fire8": (1.0, 0.5, 0.30),
    "fire9": (0.5, 1.0, 0.30),
}
_KERNELS = ("squeeze1x1", "expand1x1", "expand3x3")
TABLE1 = {
    "conv1": 1.0,
    **{
        f"{fire}_{kernel}": density
        for fire, row in _FIRES.items()
        for kernel, density in zip(_KERNELS, row, strict=True)
    },
    "conv10": 0.2,
}
SCANNED = (0.7, 0.5, 0.35, 0.2, 0.1)
Arrays = Mapping[str, np.ndarray]


def layer_names(arrays: Mapping) -> list[str]:
    """The layers with a kernel, in the order of the arrays (or of their shapes)."""
    return [name.removesuffix("/kernel") for name in arrays if name.endswith("/kernel")]


def count_nonzeros(arrays: Arrays) -> dict[str, int]:
    """How many weights of each layer's kernel are not 0."""
    return {layer: int(np.count_nonzero(arrays[f"{layer}/kernel"])) for layer in layer_names(arrays)}


def measure_densities(arrays: Arrays) -> dict[str, float]:
    """The density of each layer's kernel."""
    return {layer: count / arrays[f"{layer}/kernel"].size for layer, count in count_nonzeros(arrays).items()}


def count_values(arrays: Arrays) -> dict[str, int]:
    """How many different values other than 0 each layer's kernel has."""
    uniques = {layer: np.unique(arrays[f"{layer}/kernel"]) for layer in layer_names(arrays)}
    return {layer: int(np.count_nonzero(values)) for layer, values in uniques.items()}


def parse_densities(text: str, layers: Sequence[str]) -> dict[str, float]:
    """Densities from text: "table1", "0.4" for all layers, "conv1=0.5,fire2_squeeze1x1=0.7", or "table1,conv10=0.3".

    Later items win. Layers that are not named are left out, and so are layers that Table 1 does not list: the 1x1
    convolutions of complex bypasses, and fire modules after fire9.

    Args:
        text: Text as above; blanks are allowed.
        layers: The model's layers, `layer_names`.

    Raises:
        ValueError: An item is none of these, a layer is unknown or named twice, or a density is outside (0, 1].
    """
    check_named_once(text, "densities", "density")
    densities: dict[str, float] = {}
    for item in (item.strip() for item in text.split(",")):
        layer, equals, value = (part.strip() for part in item.rpartition("="))
        if item == "table1":
            densities |= {layer: density for layer, density in TABLE1.items() if layer in layers}
            continue
        try:
            density = float(value)
        except ValueError:
            raise ValueError(
                f"densities: expected 'table1', a density for all layers, or LAYER=DENSITY, got {item!r}."
            ) from None
        densities |= {layer: density} if equals else dict.fromkeys(layers, density)
    check_densities(densities, layers)
    return densities


def check_named_once(text: str, flag: str, value: str) -> None:
    """Refuses comma-separated text in which two LAYER=VALUE items name the same layer.

    Args:
        text: The text.
        flag: Where the text comes from, for the message.
        value: What is given for each layer, for the message.

    Raises:
        ValueError: A layer occurs twice.
    """
    named = [item.rpartition("=")[0].strip() for item in text.split(",") if "=" in item]
    again = next((layer for place, layer in enumerate(named) if layer in named[:place]), None)
    if again is not None:
        raise ValueError(f"{flag}: the layer {again} occurs twice in {text!r}: give its {value} once.")


def check_densities(densities: Mapping[str, float], layers: Sequence[str]) -> None:
    """Refuses densities that are out of range, or of unknown layers.

    Raises:
        ValueError: A layer is unknown, or a density is outside (0, 1].
    """
    for layer, density in densities.items():
        if layer not in layers:
            raise ValueError(f"densities: the model has no layer {layer!r}; its layers are {', '.join(layers)}.")
        if not 0 < density <= 1:
            raise ValueError(f"densities: must be above 0 and at most 1, got {density} for {layer}.")


def prune_magnitudes(arrays: Arrays, densities: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The arrays with the smallest weights of each named layer set to 0, without training; the input is not changed.

    A layer that is already sparser than its density stays as it is.

    Raises:
        ValueError: As for `check_densities`.
    """
    check_densities(densities, layer_names(arrays))
    pruned = dict(arrays)
    for layer, density in densities.items():
        kernel = np.array(arrays[f"{layer}/kernel"], order="C")
        by_magnitude = np.argsort(np.abs(kernel), axis=None, kind="stable")
        kernel.reshape(-1)[by_magnitude[: kernel.size - count_kept(kernel.size, density)]] = 0
        pruned[f"{layer}/kernel"] = kernel
    return pruned


def count_kept(size: int, density: float) -> int:
    """Number of weights that a kernel of `size` keeps at this density: rounded, at least one."""
    return max(round(size * density), 1)


def sensitivity_densities(
    arrays: Arrays,
    target_density: float,
    measure: Callable[[dict[str, np.ndarray]], float],
    *,
    scanned: Sequence[float] = SCANNED,
) -> dict[str, float]:
    """Densities by layer that give a target density with the least damage, from a scan of one layer at a time.

    Each layer is pruned alone, without training, to each of the scanned densities, and the damage is measured. Damages
    are assumed to add up. Weights are removed along the lower convex hull of each layer's damage over its density,
    those that cost least first; for such curves this is the optimum. The last step is taken only in part, so that the
    result has the target density.

    Args:
        arrays: Weights by name.
        target_density: Density of all kernels together, in (0, 1].
        measure: Function from arrays to a damage, such as the mean cross-entropy on some images; smaller is better.
            It is called once for the arrays as they are and `len(scanned)` times per layer.
        scanned: Densities relative to each layer's present density, in (0, 1); no layer goes below the smallest one.

    Raises:
        ValueError: A density is out of range, or the target is below what the scan allows.
    """
    if not scanned or not all(0 < density < 1 for density in scanned):
        raise ValueError(f"scanned densities must be above 0 and below 1, got {tuple(scanned)}.")
    present = count_nonzeros(arrays)
    sizes = {layer: arrays[f"{layer}/kernel"].size for layer in present}
    surplus = sum(present.values()) - target_density * sum(sizes.values())
    most = (1 - min(scanned)) * sum(present.values())
    if not 0 < target_density <= 1 or surplus > most:
        least = (sum(present.values()) - most) / sum(sizes.values())
        raise ValueError(
            f"target_density must be in (0, 1] and, with scanned densities from {min(scanned)}, at least {least:.3f}; "
            f"got {target_density}. Scan smaller densities, or ask for more."
        )
    untouched = measure(dict(arrays))
    cuts = []
    for layer, count in present.items():
        points = [(0.0, 0.0)]
        for share in sorted(scanned, reverse=True):
            pruned = prune_magnitudes(arrays, {layer: share * count / sizes[layer]}) if count else dict(arrays)
            points.append(((1 - share) * count, measure(pruned) - untouched))
        cuts += [(slope, removed, layer) for slope, removed in _hull_segments(points)]
    kept = {layer: float(count) for layer, count in present.items()}
    for _, removed, layer in sorted(cuts):
        taken = min(removed, max(surplus, 0.0))
        kept[layer] -= taken
        surplus -= taken
    return {layer: kept[layer] / sizes[layer] for layer in kept if kept[layer]}


def _hull_segments(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(slope, length) of each piece of the lower convex hull of (removed, damage) points, ascending in `removed`."""
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return [(_slope(a, b), b[0] - a[0]) for a, b in itertools.pairwise(hull) if b[0] > a[0]]


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0]) if b[0] > a[0] else 0.0
