"""How every command of the project starts: its flags, its help, its errors, its exit status."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from absl import app, flags
from absl import logging as absl_logging

from sqz_keras import quiet
from sqz_keras.architecture.layers import BYPASSES
from sqz_keras.architecture.metaparameters import VERSIONS
from sqz_keras.extras import KERAS, MissingExtraError, needs

# What absl says of a flag, and what the user needs to know
_FLAG_ERRORS = {
    r"flag (--\w+)=None: Flag --\w+ must have a value other than None": r"\1 is required",
    r"invalid literal for int\(\) with base 10: .*": "expected a whole number",
    r"could not convert string to float: .*": "expected a number",
}
_DEFINE = {
    type(None): flags.DEFINE_string,
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
}


def run(
    main: Callable,
    define_flags: Callable[[], None],
    description: str | None,
    positional: str | None = None,
    repeated: bool = False,
    extras: Sequence[str] = KERAS,
) -> None:
    """Runs `main(argv)` as a console script; does not return.

    Every option is a flag. A command may take one other argument, in argv[1]; `positional` is its name in errors. If
    it is `repeated`, the command takes any number of them, and `main` checks them. Each of `extras` brings what the
    command needs beyond the base installation.

    `--help` prints the description and the flags that `define_flags` declares, with their defaults. A ValueError or
    OSError, which the package raises for what a user can mend, or a missing package ends in one line on stderr and
    exit status 1; any other exception is a defect and shows its traceback. `main` may return an exit status. If
    whatever reads the output has ended, so does the command, without a message.

    The logs of TensorFlow and gRPC are hidden, unless --verbosity is 1 or more, or the environment asks for them.
    TensorFlow uses oneDNN on every x86 processor, unless the environment says otherwise. By default TensorFlow uses it
    only on newer processors, and is slower on the others.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    before = set(flags.FLAGS)
    define_flags()
    for name in set(flags.FLAGS) - before:
        # absl's help lists the flags that the main script defines; the script that pip writes defines none.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    sys.modules["__main__"].__doc__ = description

    def reported(argv):
        if positional and not repeated and len(argv) == 1:
            return _refused(f"Which {positional}? Give it as the argument.")
        unexpected = [] if repeated else argv[2:] if positional else argv[1:]
        if unexpected:
            return _refused(f"Unexpected arguments: {' '.join(unexpected)}. Every option is a --flag.")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: a file name may not be valid text
        _expand_home()
        argv = [os.path.expanduser(argument) for argument in argv]
        _set_verbosity(flags.FLAGS["verbosity"])
        try:
            with needs(*extras):
                status = main(argv)
            print(end="", flush=True)
            return status
        except BrokenPipeError:  # whatever read the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when Python ends
            return 128 + signal.SIGPIPE
        except (ValueError, OSError, MissingExtraError) as error:
            print(f"{os.path.basename(argv[0])}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"\n{os.path.basename(argv[0])}: interrupted", file=sys.stderr)
            return 130

    app.run(reported, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """The arguments that are not flags; absl's own parser reports errors in its own terms, without the command."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        message = str(error).replace("\n", " ")
        for absls, ours in _FLAG_ERRORS.items():
            message = re.sub(absls, ours, message)
        sys.exit(_refused(message + "." * (message[-1] not in ".?")))


def _refused(message: str) -> int:
    """Prints what is wrong with the command line; returns the exit status."""
    print(f"{os.path.basename(sys.argv[0])}: {message} --help lists the flags.", file=sys.stderr)
    return 1


def _set_verbosity(flag: flags.Flag) -> None:
    """Shows the project's warnings, or what --verbosity says; from 1 on, the logs of TensorFlow and gRPC too.

    Warnings are lines like the others that a command prints; from 1 on, they have absl's times and places.
    """
    if not flag.present:
        absl_logging.set_verbosity(absl_logging.WARNING)  # absl.app sets INFO
    if flag.value >= 1:
        quiet.show()
        return
    quiet.silence()
    absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))  # no times, threads and code
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def given_images(argv: Sequence[str], flag: Sequence[str] | None) -> list[str]:
    """The images that a command's arguments and its flag --image name.

    Raises:
        ValueError: There are none.
    """
    images = [*argv[1:], *(flag or [])]
    if not images:
        raise ValueError("Which image? Give the path of one, or of several.")
    return images


def _expand_home() -> None:
    """Expands the ~ of paths in flags, which the shell leaves alone after the "=" of --flag=~/path."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if isinstance(flag.value, str):
            flag.value = os.path.expanduser(flag.value)
        elif isinstance(flag.value, list) and all(isinstance(value, str) for value in flag.value):
            flag.value = [os.path.expanduser(value) for value in flag.value]


def flag_field(default: object, text: str, **limits):
    """A field of a config that is also a flag, whose help is `text`.

    `limits` are `choices`, a `lower_bound`, an `upper_bound`, or `required`.
    """
    return dataclasses.field(default=default, metadata={"help": text, **limits})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model a command reads: the arguments of `resolve_model`, alike in every command."""

    model: str = flag_field("imagenet", "Name of pretrained weights, or any file or folder of weights.")
    version: str | None = flag_field(
        None, "Version of the architecture, if the model does not state it.", choices=tuple(VERSIONS)
    )
    bypass: str | None = flag_field(
        None, "Bypass of the architecture, if the model does not state it.", choices=tuple(filter(None, BYPASSES))
    )


def define_model_flags(default: str = "imagenet") -> None:
    """Defines the flags of `ModelConfig`, with another default of `--model`, for a command without such a config."""
    for field in dataclasses.fields(ModelConfig):
        define_field_flag(field, default if field.name == "model" else field.default)


def define_field_flags(*configs: type) -> None:
    """Defines a flag for each `flag_field` of the dataclasses, with its default; existing flags are left alone."""
    for field in (field for config in configs for field in dataclasses.fields(config)):
        if field.name not in flags.FLAGS:
            define_field_flag(field, field.default)


def define_field_flag(field: dataclasses.Field, default: object) -> None:
    """Defines the flag of a `flag_field`, with the field's name, type and help."""
    limits = {name: value for name, value in field.metadata.items() if name not in ("help", "choices")}
    if "choices" in field.metadata:
        flags.DEFINE_enum(field.name, default, list(field.metadata["choices"]), field.metadata["help"], **limits)
    else:
        _DEFINE[type(field.default)](field.name, default, field.metadata["help"], **limits)


def config_of_method(methods: Mapping[str, type], method: str, args: flags.FlagValues) -> object:
    """The config of a method, from the flags named like its fields.

    Args:
        methods: The dataclass of each method.
        method: The method that was chosen.
        args: The parsed flags.

    Raises:
        ValueError: A flag was given that belongs to other methods only, or the config refuses a value.
    """
    owners: dict[str, list[str]] = {}
    for name, config in methods.items():
        for field in dataclasses.fields(config):
            owners.setdefault(field.name, []).append(f"--method={name}")
    for flag, names in owners.items():
        if args[flag].present and f"--method={method}" not in names:
            raise ValueError(
                f"--{flag} belongs to {' and '.join(names)}, not to --method={method}. Add {' or '.join(names)}, or "
                f"leave out --{flag}."
            )
    return config_of(methods[method], args)


def config_of(config: type, args: flags.FlagValues, **others: object) -> object:
    """An instance of the dataclass: `others`, and for each other field the value of its flag."""
    names = [field.name for field in dataclasses.fields(config) if field.name not in others]
    return config(**others, **{name: args[name].value for name in names})
