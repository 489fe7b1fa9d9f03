"""The flags that make a `TrainConfig`: the name of a recipe, and a flag for each field that may override it."""

from __future__ import annotations

import dataclasses
import shlex

from absl import flags

from sqz_keras import command
from sqz_keras.architecture.layers import BYPASS_NAMES
from sqz_keras.architecture.metaparameters import VERSIONS, parse_metaparameters
from sqz_keras.architecture.spec import PREPROCESSING_MODES, ModelSpec
from sqz_keras.weights.resolve import resolve_model
from trainers.configs import list_configs, load_config
from trainers.progress import say
from trainers.training.config import TrainConfig

# The fields of a config that are flags; the model has flags of its own.
FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig) if field.name != "model"}
_NET_FLAGS = ("version", "bypass", "metaparameters", "input_size", "preprocessing_mode")


def define_config_flags(config: str | None = None) -> None:
    """Defines the flags. `config` is the default recipe; None means that one is chosen to fit --image_dir."""
    help_text = "Recipe: the name of a module in trainers/configs."
    if config is None:
        help_text += " Without it, one is chosen for the images of --image_dir."
    flags.DEFINE_string("config", config, help_text)
    for field in FIELDS.values():
        command.define_field_flag(field, None)
    flags.DEFINE_integer("input_size", None, "Side of the input in pixels, instead of the recipe's.", lower_bound=1)
    flags.DEFINE_enum("preprocessing_mode", None, PREPROCESSING_MODES, "Preprocessing, instead of the recipe's.")


def define_net_flags() -> None:
    """`--version`, `--bypass` and `--metaparameters`, instead of the recipe's."""
    flags.DEFINE_enum("version", None, list(VERSIONS), "Version of the architecture, instead of the recipe's.")
    flags.DEFINE_enum("bypass", None, BYPASS_NAMES, "Bypass of the architecture, instead of the recipe's.")
    flags.DEFINE_string("metaparameters", "", "Changes of the architecture, such as freq=3,pool_after=1:3:5.")


def config_from_flags(args: flags.FlagValues) -> TrainConfig:
    """The recipe with the fields that were given as flags. Pretrained weights bring their own preprocessing.

    Raises:
        ValueError: The recipe or the weights do not exist, neither a recipe nor a folder of images was given, or the
            config refuses a value.
        OSError: The weights could not be downloaded.
    """
    changes = changed_fields(args)
    config = load_config(args.config) if args.config else _chosen_config(changes, args)
    if "image_dir" in changes:
        changes.setdefault("dataset", "")
    elif changes.get("dataset"):
        changes["image_dir"] = ""
    # The model is completed before the config is made, because the config checks its fields and the model together.
    model, weights = _net_from_flags(config.model, args), changes.get("weights", config.weights)
    if weights:
        model = _with_preprocessing_of(weights, model, args.preprocessing_mode)
    return dataclasses.replace(config, model=input_from_flags(model, args), **changes)


def _chosen_config(changes: dict[str, object], args: flags.FlagValues) -> TrainConfig:
    """A config chosen to fit a folder of images; prints the choice and the reasons."""
    if not changes.get("image_dir"):
        raise ValueError(
            f"Give --image_dir=DIR, and a recipe is chosen for its images, or --config, one of "
            f"{', '.join(list_configs())}."
        )
    from trainers.training.choice import choose_config  # imports TensorFlow, which --help does not need

    net_flags = [name for name in _NET_FLAGS if name in args and args[name].value]
    config, reasons = choose_config(
        changes, net_flags, lambda model: input_from_flags(_net_from_flags(model, args), args)
    )
    say(reasons)
    return config


def _net_from_flags(model: ModelSpec, args: flags.FlagValues) -> ModelSpec:
    """The model with the network that the flags describe, if the command has flags for it."""
    if "metaparameters" not in args:
        return model
    return model.with_net(args.version, args.bypass, parse_metaparameters(args.metaparameters))


def input_from_flags(model: ModelSpec, args: flags.FlagValues) -> ModelSpec:
    """The model with the requested input size, cropped from the same share of an image as before."""
    pixels = args.input_size or model.input_size
    resize_to = round(model.preprocessing.resize_to * pixels / model.input_size)
    mode = args.preprocessing_mode or model.preprocessing.mode
    preprocessing = dataclasses.replace(model.preprocessing, resize_to=resize_to, mode=mode)
    return dataclasses.replace(model, input_size=pixels, preprocessing=preprocessing)


def _with_preprocessing_of(weights: str, model: ModelSpec, mode: str | None) -> ModelSpec:
    """The model with the preprocessing that the weights were trained with, unless `mode` names another."""
    theirs, _ = resolve_model(weights, version=model.version, include_top=False)
    how = theirs.preprocessing
    if mode not in (None, how.mode):
        say(f"--preprocessing_mode={mode} is used, though {weights} were trained with {how.mode}.")
        return model
    # Crops the same share of an image as for those weights, at this model's input size.
    how = dataclasses.replace(how, resize_to=round(how.resize_to * model.input_size / theirs.input_size))
    if how != model.preprocessing:
        say(f"Images are prepared as for {weights}, not as in the recipe: {how}.")
    return dataclasses.replace(model, preprocessing=how)


def given_flags(args: flags.FlagValues) -> str:
    """The flag of the recipe and all flags that override it, --data_dir included, quoted for a shell."""
    names = ["config", "data_dir", *FIELDS, "input_size", "preprocessing_mode"]
    given = [args[name].serialize() for name in names if name == "config" or args[name].present]
    return " ".join(shlex.quote(flag) for flag in given)


def changed_fields(args: flags.FlagValues) -> dict[str, object]:
    """The fields that were given as flags."""
    return {name: args[name].value for name in FIELDS if args[name].value is not None}
