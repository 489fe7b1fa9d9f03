"""The spaces of nets that sqz-sweep searches: the dimensions, their bounds and the net that they change."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sqz_keras.architecture.layers import BYPASS_NAMES
from sqz_keras.architecture.metaparameters import Metaparameters, format_metaparameters, parse_metaparameters
from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec
from sqz_keras.files import distinct_keys

Point = Mapping[str, int | float | str]

BYPASS = "bypass"
_MOST_POINTS = 100_000  # of a grid
_KINDS = {field.name: type(field.default) for field in dataclasses.fields(Metaparameters)}
_MOST_STEPS = 1e9


@dataclasses.dataclass(frozen=True)
class Space:
    """The dimensions in which nets vary.

    Args:
        name: Name for messages and reports.
        base: Metaparameters that differ from v1.0's and do not vary.
        dimensions: Distribution of the values by name, "bypass" or a metaparameter. "bypass" uses "none" for None,
            and pool_after uses text such as "1:4:8".
    """

    name: str
    base: Mapping[str, object]
    dimensions: Mapping[str, BaseDistribution]

    def spec(self, model: ModelSpec, point: Point) -> ModelSpec:
        """The model at a point: `model`'s input, classes and preprocessing with the point's network.

        Raises:
            ValueError: The network does not exist, or its pools need a larger input.
        """
        values = dict(point)
        bypass = str(values.pop(BYPASS, "none"))
        if "pool_after" in values:
            values |= parse_metaparameters(f"pool_after={values['pool_after']}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a squeeze ratio of 1, which the paper's own sweep has
            spec = model.with_net("1.0", bypass, {**self.base, **values})
        least = spec.metaparameters.min_input_size()
        if spec.input_size < least:
            raise ValueError(f"an input of {spec.input_size} pixels is too small for these pools: {least} are needed")
        return spec

    def grid(self) -> Iterator[dict[str, int | float | str]]:
        """Every point, the last dimension varying fastest.

        Raises:
            ValueError: A dimension has no steps, or there are too many points.
        """
        counts = {name: _count(name, dimension) for name, dimension in self.dimensions.items()}
        count = math.prod(counts.values())
        if count > _MOST_POINTS:
            raise ValueError(f"The space {self.name} has {count:,} points, and a grid at most {_MOST_POINTS:,}.")
        axes = {name: _values(dimension, counts[name]) for name, dimension in self.dimensions.items()}
        return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))

    def to_json(self) -> dict:
        """A JSON form; different spaces have different forms."""
        dimensions = {name: _form(dimension) for name, dimension in self.dimensions.items()}
        return {"base": dict(self.base), "parameters": dimensions}


def point_flags(spec: ModelSpec) -> str:
    """The flags with which sqz-train builds this network instead of the recipe's own."""
    net, usual = dataclasses.asdict(spec.metaparameters), dataclasses.asdict(Metaparameters())
    changed = {name: value for name, value in net.items() if value != usual[name]}
    words = ["--version=1.0"]
    words += [f"--metaparameters={format_metaparameters(changed)}"] if changed else []
    return " ".join([*words, f"--bypass={spec.bypass or 'none'}"])


def find_space(name: str) -> Space:
    """The space of this name, or the space that a JSON file describes.

    The file holds {"base": {NAME: VALUE}, "parameters": {NAME: [VALUE, ...] or {"low": ..., "high": ..., "step": ...,
    "log": true}}}, where NAME is "bypass" or a metaparameter.

    Raises:
        ValueError: There is no such name or file, or the file has another form.
    """
    if name in SPACES:
        return SPACES[name]
    if not os.path.isfile(name):
        raise ValueError(f"--space={name} must be one of {', '.join(SPACES)}, or an existing JSON file.")
    if os.path.getsize(name) > MAX_JSON_BYTES:
        raise ValueError(f"--space={name} has more than {MAX_JSON_BYTES} bytes, which no space needs.")
    try:
        form = json.loads(pathlib.Path(name).read_text("utf-8-sig"), object_pairs_hook=distinct_keys)
        return _from_json(pathlib.Path(name).name, form)  # with its suffix: squeeze_ratio.json is not the paper's space
    except UnicodeDecodeError:
        raise ValueError(f"--space={name} is not text in UTF-8; save it as that.") from None
    except RecursionError:
        raise ValueError(f"--space={name}: lists within lists within lists, which no space needs.") from None
    except ValueError as error:
        raise ValueError(f"--space={name}: {error}") from error


def _from_json(name: str, form: object) -> Space:
    parts = form if isinstance(form, dict) else {}
    base, parameters = parts.get("base", {}), parts.get("parameters")
    if (
        set(parts) - {"base", "parameters"}
        or not isinstance(base, dict)
        or not (parameters and isinstance(parameters, dict))
    ):
        raise ValueError(f'expected {{"base": {{...}}, "parameters": {{...}}}} with a parameter, got {form!r:.200}')
    for parameter in (*base, *parameters):
        if parameter not in _KINDS and (parameter != BYPASS or parameter in base):
            raise ValueError(
                f"{parameter!r} is not a metaparameter; there are {', '.join(_KINDS)}, and {BYPASS} to vary"
            )
        if parameter in base and parameter in parameters:
            raise ValueError(f"{parameter} must be in base or in parameters, not in both")
    if "pool_after" in base:
        if not isinstance(base["pool_after"], list):
            raise ValueError(f"pool_after of the base must be a list of layers, got {base['pool_after']!r:.40}")
        base = base | {"pool_after": tuple(base["pool_after"])}
    # If layers or pools vary, the base need not be valid with v1.0's pools.
    pools = {"pool_after": ()} if {"pool_after", "num_fire_modules"} & set(parameters) else {}
    _quiet_net(pools | base)
    return Space(name, base, {key: _dimension(key, values) for key, values in parameters.items()})


def _dimension(name: str, values: object) -> BaseDistribution:
    """The distribution that a list of values or a range describes; every value must be valid for `name`.

    Raises:
        ValueError: It is neither a list nor a range, or a value is not valid for `name`.
    """
    if isinstance(values, list):
        for value in values:
            _check_value(name, value)
        if not values or len(set(values)) != len(values):
            raise ValueError(f"{name} takes a list of values that differ, got {values!r:.200}")
        return CategoricalDistribution(tuple(values))
    if _KINDS.get(name) not in (int, float):
        raise ValueError(f"{name} takes a list of values, got {values!r:.200}")
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {"low", "high", "step", "log"}:
        raise ValueError(
            f'{name} takes a list of values, or {{"low", "high"}} with "step" or "log", got {values!r:.200}'
        )
    for end in ("low", "high"):
        _check_value(name, values[end])
    low, high, step, log = values["low"], values["high"], values.get("step"), values.get("log", False)
    if low > high:
        raise ValueError(f"{name} has a low of {low} above its high of {high}")
    if not isinstance(log, bool):
        raise ValueError(f"log of {name} must be true or false, got {log!r:.40}")
    kind = IntDistribution if _KINDS[name] is int else FloatDistribution
    if step is None:
        return kind(low, high, log=log)
    if log or not _is_number(step, _KINDS[name]) or step <= 0:
        raise ValueError(f"step of {name} must be above 0, of the kind of its values and without log, got {step!r:.40}")
    count = (high - low) / step
    if count > _MOST_STEPS or abs(count - round(count)) > 1e-6:
        raise ValueError(f"step of {name} must divide its range: {step} does not go into {low} to {high}")
    return kind(low, high, step=step)


def _check_value(name: str, value: object) -> None:
    if name == BYPASS:
        if value not in BYPASS_NAMES:
            raise ValueError(f"{BYPASS} must be one of {', '.join(BYPASS_NAMES)}, got {value!r:.40}")
    elif name == "pool_after":
        if not isinstance(value, str) or "," in value:  # a comma would set another metaparameter too
            raise ValueError(f'pool_after must be text such as "1:4:8", got {value!r:.40}')
        _quiet_net({"num_fire_modules": 1_000} | parse_metaparameters(f"pool_after={value}"))  # modules may vary too
    elif not _is_number(value, _KINDS[name]):
        raise ValueError(f"{name} must be of type {_KINDS[name].__name__} and finite, got {value!r:.40}")
    else:
        _quiet_net({"pool_after": (), name: value})


def _is_number(value: object, kind: type) -> bool:
    kinds = (int,) if kind is int else (int, float)
    return type(value) in kinds and -math.inf < value < math.inf


def _quiet_net(changes: Mapping[str, object]) -> None:
    """Refuses invalid metaparameters, without a warning about wide squeeze layers, which the paper's sweep has too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataclasses.replace(Metaparameters(), **changes)


def _count(name: str, dimension: BaseDistribution) -> int:
    if isinstance(dimension, CategoricalDistribution):
        return len(dimension.choices)
    if dimension.step is None or dimension.log:
        raise ValueError(f"A grid needs steps, and {name} has none between {dimension.low} and {dimension.high}.")
    return round((dimension.high - dimension.low) / dimension.step) + 1


def _values(dimension: BaseDistribution, count: int) -> list:
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    # A sum of floats may lie a hair beyond the end, and so outside the dimension.
    return [min(round(dimension.low + place * dimension.step, 12), dimension.high) for place in range(count)]


def _form(dimension: BaseDistribution) -> dict | list:
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    return {name: getattr(dimension, name) for name in ("low", "high", "step", "log")}


# The paper's two sweeps (sections 5.2 and 5.3), its three macroarchitectures (section 6), when to downsample (section
# 3.1, strategy 3: early to late), and all of these at once.
SPACES = {
    space.name: space
    for space in (
        Space("squeeze_ratio", {}, {"squeeze_ratio": CategoricalDistribution((0.125, 0.25, 0.5, 0.75, 1.0))}),
        Space(
            "pct_3x3",
            {"squeeze_ratio": 0.5},
            {"pct_3x3": CategoricalDistribution((0.01, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.99))},
        ),
        Space("bypass", {}, {BYPASS: CategoricalDistribution(BYPASS_NAMES)}),
        Space("pool_after", {}, {"pool_after": CategoricalDistribution(("1:2:3", "1:3:5", "1:4:8", "4:6:8"))}),
        Space(
            "full",
            {},
            {
                "base_e": IntDistribution(16, 192, step=16),
                "incr_e": IntDistribution(0, 192, step=16),
                "freq": IntDistribution(1, 4),
                "pct_3x3": FloatDistribution(0.0625, 0.9375),
                "squeeze_ratio": FloatDistribution(0.0625, 1.0, log=True),
                "stem_filters": IntDistribution(16, 96, step=16),
                "pool_after": CategoricalDistribution(("1:2:3", "1:3:5", "1:4:8", "4:6:8")),
                BYPASS: CategoricalDistribution(BYPASS_NAMES),
            },
        ),
    )
}
