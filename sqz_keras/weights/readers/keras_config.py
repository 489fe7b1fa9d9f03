"""The network that the config of a saved Keras model describes; the config is parsed as JSON, and nothing is built."""

from __future__ import annotations

from collections.abc import Mapping

from sqz_keras.architecture.metaparameters import FireFilters, fit_metaparameters
from sqz_keras.architecture.spec import ModelSpec, Preprocessing
from sqz_keras.weights.description import Stated

_DEFAULT_SIZE = 227


def describe(config: object) -> Stated | None:
    """What a Keras model's config says of its network, where its layers have the names of this project's.

    Args:
        config: The parsed JSON of `config.json` in a `.keras` file, or of an `.h5` file's attribute `model_config`.

    Returns:
        The description, with the authors' preprocessing and no labels, of which a config says nothing; None where it is
        the config of another model.
    """
    try:
        layers = {layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]}
        spec = _spec(layers)
        activation = layers["predictions"]["activation"] if "conv10" in layers else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    return Stated(spec, is_whole=False, activation=activation)


def _spec(layers: Mapping[str, Mapping]) -> ModelSpec:
    numbers = sorted(int(name[4:-7]) for name in layers if name.startswith("fire") and name.endswith("_concat"))
    net = fit_metaparameters(
        [
            FireFilters(n, *(layers[f"fire{n}_{part}"]["filters"] for part in ("squeeze1x1", "expand1x1", "expand3x3")))
            for n in numbers
        ],
        stem_filters=layers["conv1"]["filters"],
        stem_kernel=layers["conv1"]["kernel_size"][0],
        pool_after=tuple(n for n in (1, *numbers) if f"pool{n}" in layers),
    )
    if net is None:
        raise ValueError("these filters follow from no metaparameters")
    bypass = None
    if any(f"fire{n}_add" in layers for n in numbers):
        bypass = "complex" if any(f"fire{n}_bypass1x1" in layers for n in numbers) else "simple"
    _, *shape = layers["images"]["batch_shape"]
    if layers["conv1"]["data_format"] == "channels_first":
        shape = shape[1:] + shape[:1]
    padding = layers["conv10_pad"]["padding"] if "conv10_pad" in layers else [[0, 0], [0, 0]]
    size = _DEFAULT_SIZE if shape[0] is None else shape[0]
    if shape[0] != shape[1] or padding != [[padding[0][0]] * 2] * 2:
        raise ValueError("a ModelSpec has one input size and one padding")
    return ModelSpec(
        version=None,
        bypass=bypass,
        metaparameters=net,
        classes=layers["conv10"]["filters"] if "conv10" in layers else ModelSpec().classes,
        input_size=size,
        channels=shape[2],
        preprocessing=Preprocessing(resize_to=max(size, 256) if size >= 224 else size, antialias=False),
        conv10_padding=padding[0][0],
    ).with_net()
