"""Whether the layers of another project's Keras network can be a SqueezeNet's, by the layers of its config."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

from sqz_keras.architecture.metaparameters import VERSIONS, version_of_stem
from sqz_keras.weights.arrays import fire_number, layer_name

HARMLESS = re.compile(r"InputLayer|Random.*|.*Dropout.*|GaussianNoise")  # classes that change nothing after training
CEIL_MODE = [[0, 1], [0, 1]]  # the zeros before a max pool
# Classes between and after the convolutions of other projects' networks; their order says where the pools are.
_CLASSES = re.compile(
    rf"{HARMLESS.pattern}|(Global)?AveragePooling2D|MaxPooling2D|Concatenate|Merge|Activation|ReLU|Softmax|Flatten|"
    "Reshape|ZeroPadding2D|Conv(olution)?2D"
)
_MOST_BETWEEN = 100  # layers between two of a SqueezeNet's, such as dropouts
_BEFORE_RELU = re.compile(rf"{HARMLESS.pattern}|Concatenate|Merge|MaxPooling2D|ZeroPadding2D")  # not only after it


def changes_of_others(
    classes: Mapping[str, str],
    layers: Mapping[str, Mapping],
    reads: Mapping[object, list],
    read_by: Mapping[object, list],
    trunk_only: bool,
) -> list[str]:
    """Says where layers with another project's names cannot be a SqueezeNet's, in a clause for each place.

    Args:
        classes: Class of each layer by name, in the order of the config.
        layers: Config of each layer by name.
        reads: Which layers each layer reads, in order; `keras_config` says how models inside are named.
        read_by: Which layers read each layer's output.
        trunk_only: Whether layers before and after the trunk do not matter.
    """
    convolutions = {name: ours for name in layers if (ours := layer_name(name))}
    names = list(layers)
    trunk = [names.index(name) for name, ours in convolutions.items() if ours != "conv10"]
    matter = names[min(trunk) : max(trunk) + 1] if trunk_only else names
    # A convolution with another name is the one that `find_head` took for conv10.
    convolutions |= {name: "conv10" for name in matter if classes[name].startswith("Conv") and name not in convolutions}
    changes, pool_after, fire = [], [], 1
    for name, kind in classes.items():
        ours, expected = convolutions.get(name), {}
        if name in matter and not _CLASSES.fullmatch(kind):
            changes.append(f"it has the layer {name!s:.40} ({kind!s:.40}), of which weights say nothing")
        if ours:
            fire = fire_number(ours) or fire
            expected |= {"strides": [2, 2] if ours == "conv1" else [1, 1], "dilation_rate": [1, 1], "groups": 1}
            if ours == "conv1" or ours.endswith("3x3"):
                expected["padding"] = "valid" if ours == "conv1" else "same"
        elif kind in ("Concatenate", "Merge") and name in matter:
            expected["mode"] = "concat"
            parts = [str(convolutions.get(origin(source, reads, convolutions))) for source in reads.get(name, ())]
            if [part.partition("_")[2] for part in parts] != ["expand1x1", "expand3x3"]:
                changes.append(f"{name} joins {', '.join(parts)[:80]}, expected expand1x1 and expand3x3")
        elif kind == "MaxPooling2D":
            pool_after.append(fire)
            expected |= {"pool_size": [3, 3], "strides": [2, 2], "padding": "valid"}
        elif kind == "ReLU" and name in matter:
            expected |= {"max_value": None, "negative_slope": 0, "threshold": 0}
        if name in matter and layers[name].get("activation", "relu") not in ("relu", "linear", "softmax"):
            changes.append(f"{name} has activation={layers[name]['activation']!s:.40}, expected relu")
        for new, old in (("strides", "subsample"), ("padding", "border_mode")):  # Keras 1's names
            expected |= {old: expected[new]} if new in expected else {}
        changes += other_values(layers[name], expected)
    conv1 = layers["conv1"]
    net = VERSIONS.get(version_of_stem(conv1.get("kernel_size"), conv1.get("filters")))
    if net is not None and tuple(pool_after) != net.pool_after:
        changes.append(f"it has max pools behind {pool_after}, expected {list(net.pool_after)}")
    softmaxes = [name for name in matter if "softmax" in (classes[name].lower(), layers[name].get("activation"))]
    changes += [f"{name} is a second softmax" for name in softmaxes[1:]]
    changes += _changes_of_average([(name, classes[name], convolutions.get(name)) for name in matter])
    linear = [name for name in matter if name in convolutions and layers[name].get("activation", "relu") != "relu"]
    return changes + _changes_behind(matter, linear, classes, layers, read_by)


def origin(name: object, reads: Mapping[object, list], known: Container) -> object | None:
    """The known layer whose output comes out of a layer, through layers with one input; None if it is not known."""
    for _ in range(_MOST_BETWEEN):
        if name in known or len(reads.get(name, [])) != 1:
            break
        (name,) = reads[name]
    return name if name in known else None


def _changes_of_average(matter: list[tuple[str, str, str | None]]) -> list[str]:
    """Names averages other than the one after conv10, or says that there is none, in a clause for each.

    The order matters, because conv10's ReLU is between conv10 and the average.

    Args:
        matter: For each layer, its name, its class and our name.
    """
    conv10 = next((at for at, (_, _, ours) in enumerate(matter) if ours == "conv10"), len(matter))
    averages = [at for at, (_, kind, _) in enumerate(matter) if kind.endswith("AveragePooling2D")]
    changes = [f"{matter[at][0]} averages what conv10 reads" for at in averages if at < conv10]
    behind = [matter[at][0] for at in averages if at > conv10]
    if conv10 < len(matter) and len(behind) != 1:
        changes.append(f"it has {len(behind)} averages behind conv10, expected one")
    return changes


def _changes_behind(
    matter: list[str],
    linear: list[str],
    classes: Mapping[str, str],
    layers: Mapping[str, Mapping],
    read_by: Mapping[object, list],
) -> list[str]:
    """Names zeros that something other than a max pool reads, and linear convolutions that no ReLU reads."""
    changes = []
    for name in matter:
        if classes[name] == "ZeroPadding2D":
            kinds = {classes.get(reader) for reader in read_by.get(name, [])}
            if kinds != {"MaxPooling2D"} or layers[name].get("padding") != CEIL_MODE:
                changes.append(f"{name} pads something other than max pools in ceil mode")
    ways, seen = [(name, reader) for name in linear for reader in read_by.get(name, [None])], set()
    for name, reader in ways:  # they grow in the loop
        kind = classes.get(reader)  # None for a model, whose readers are followed
        if kind == "ReLU" or (kind == "Activation" and layers[reader].get("activation") == "relu") or reader in seen:
            continue
        seen.add(reader)
        if read_by.get(reader) and (kind is None or _BEFORE_RELU.fullmatch(kind)):
            ways += [(name, following) for following in read_by[reader]]
        else:
            changes.append(f"{name} has no ReLU behind it")
    return changes


def pools_drop_rows(listed: list[Mapping]) -> bool:
    """Whether a max pool of another project's network leaves out, or may leave out, the last row of its input."""
    rows = padding = None
    for layer in listed:
        config = layer["config"]
        if layer["class_name"] == "InputLayer":
            rows = (config.get("batch_shape") or config.get("batch_input_shape") or [None] * 2)[1]
        elif layer_name(config["name"]) == "conv1" and rows and "kernel_size" in config:
            rows = (rows - config["kernel_size"][0]) // 2 + 1
        elif layer["class_name"] == "MaxPooling2D":
            if padding != CEIL_MODE and (not rows or rows % 2 == 0):
                return True
            rows = rows and rows // 2
        padding = config.get("padding")
    return False


def other_values(config: Mapping, expected: Mapping) -> list[str]:
    """Names fields of a layer's config with unexpected values, a clause each; a missing field counts as expected."""
    return [
        f"{config['name']} has {field}={config[field]!s:.40}, expected {value}"
        for field, value in expected.items()
        if config.get(field, value) != value
    ]
