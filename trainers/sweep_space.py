"""The spaces of nets that sqz-sweep searches: what varies, within which bounds, on top of which net."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sqz_keras.metaparams import Metaparameters, format_metaparameters, parse_metaparameters
from sqz_keras.spec import MAX_JSON_BYTES, ModelSpec

Point = Mapping[str, int | float | str]

BYPASS = "bypass"
_NO_BYPASS = "none"
_MOST_POINTS = 100_000  # of a grid


@dataclasses.dataclass(frozen=True)
class Space:
    """What varies from net to net.

    Args:
        name: for people.
        base: metaparameters that differ from v1.0's and stay.
        dimensions: by name, "bypass" or a metaparameter, where its values lie. "bypass" has "none" for None, and
            pool_after has text such as "1:4:8".
    """

    name: str
    base: Mapping[str, object]
    dimensions: Mapping[str, BaseDistribution]

    def spec(self, model: ModelSpec, point: Point) -> ModelSpec:
        """The model at a point: `model`'s input, classes and preprocessing with the point's network.

        Raises:
            ValueError: no such network exists, or its pools need a larger input.
        """
        values = dict(point)
        bypass = values.pop(BYPASS, _NO_BYPASS)
        if "pool_after" in values:
            values |= parse_metaparameters(f"pool_after={values['pool_after']}")
        plain = dataclasses.replace(model, bypass=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a squeeze ratio of 1, which the paper's own sweep has
            spec = plain.with_net("1.0", None if bypass == _NO_BYPASS else str(bypass), {**self.base, **values})
        least = spec.metaparameters.min_input_size()
        if spec.input_size < least:
            raise ValueError(f"an input of {spec.input_size} pixels is too small for these pools: {least} are needed")
        return spec

    def grid(self) -> Iterator[dict[str, int | float | str]]:
        """Every point, the last dimension varying fastest.

        Raises:
            ValueError: a dimension has no steps, or there are too many points.
        """
        axes = {name: _values(name, dimension) for name, dimension in self.dimensions.items()}
        count = 1
        for axis in axes.values():
            count *= len(axis)
        if count > _MOST_POINTS:
            raise ValueError(f"The space {self.name} has {count:,} points, and a grid at most {_MOST_POINTS:,}.")
        return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))

    def to_json(self) -> dict:
        """A JSON form by which two spaces can be told apart."""
        dimensions = {name: _form(dimension) for name, dimension in self.dimensions.items()}
        return {"base": {name: _plain(value) for name, value in self.base.items()}, "parameters": dimensions}


def point_flags(spec: ModelSpec) -> str:
    """The flags with which sqz-train and sqz-summary build this network."""
    net, usual = dataclasses.asdict(spec.metaparameters), dataclasses.asdict(Metaparameters())
    changed = {name: value for name, value in net.items() if value != usual[name]}
    words = ["--version=1.0"]
    words += [f"--metaparameters={format_metaparameters(changed)}"] if changed else []
    words += [f"--bypass={spec.bypass}"] if spec.bypass else []
    return " ".join(words)


def find_space(name: str) -> Space:
    """The space of this name, or the one that a JSON file describes.

    The file holds {"base": {NAME: VALUE}, "parameters": {NAME: [VALUE, ...] or {"low": ..., "high": ..., "step": ...,
    "log": true}}}, where NAME is "bypass" or a metaparameter.

    Raises:
        ValueError: neither a name nor a file, or a file of another form.
    """
    if name in SPACES:
        return SPACES[name]
    if not os.path.isfile(name):
        raise ValueError(f"--space={name} must be one of {', '.join(SPACES)}, or a JSON file, and no such file exists.")
    if os.path.getsize(name) > MAX_JSON_BYTES:
        raise ValueError(f"--space={name} has more than {MAX_JSON_BYTES} bytes, which no space needs.")
    try:
        form = json.loads(pathlib.Path(name).read_text("utf-8"))
        return _from_json(pathlib.Path(name).stem, form)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"--space={name}: {error}") from error


def _from_json(name: str, form: Mapping) -> Space:
    known = {field.name: type(field.default) for field in dataclasses.fields(Metaparameters)}
    unknown = sorted(set(form) - {"base", "parameters"})
    if unknown or not form.get("parameters"):
        raise ValueError(f'expected {{"base": {{...}}, "parameters": {{...}}}}, got the fields {sorted(form)}')
    base = {each: tuple(value) if each == "pool_after" else value for each, value in form.get("base", {}).items()}
    for each in (*base, *form["parameters"]):
        if each not in known and (each != BYPASS or each in base):
            raise ValueError(f"{each!r} is no metaparameter; there are {', '.join(known)}, and {BYPASS} to vary")
    dataclasses.replace(Metaparameters(), **base)
    dimensions = {}
    for each, values in form["parameters"].items():
        if isinstance(values, list):
            dimensions[each] = CategoricalDistribution(tuple(values))
        elif known.get(each) in (int, float):
            kind = IntDistribution if known[each] is int else FloatDistribution
            dimensions[each] = kind(**values)
        else:
            raise ValueError(f"{each} takes a list of values, got {values!r}")
    return Space(name, base, dimensions)


def _values(name: str, dimension: BaseDistribution) -> list:
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    if dimension.step is None or dimension.log:
        raise ValueError(f"A grid needs steps, and {name} has none between {dimension.low} and {dimension.high}.")
    count = round((dimension.high - dimension.low) / dimension.step) + 1
    return [dimension.low + place * dimension.step for place in range(count)]


def _form(dimension: BaseDistribution) -> dict | list:
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    return {name: getattr(dimension, name) for name in ("low", "high", "step", "log")}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# The paper's two sweeps (sections 5.2 and 5.3), its three macroarchitectures (section 6), when to downsample (section
# 3.1, strategy 3: early to late), and all of it.
SPACES = {
    space.name: space
    for space in (
        Space("squeeze_ratio", {}, {"squeeze_ratio": CategoricalDistribution((0.125, 0.25, 0.5, 0.75, 1.0))}),
        Space(
            "pct_3x3",
            {"squeeze_ratio": 0.5},
            {"pct_3x3": CategoricalDistribution((0.01, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.99))},
        ),
        Space("bypass", {}, {BYPASS: CategoricalDistribution((_NO_BYPASS, "simple", "complex"))}),
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
                BYPASS: CategoricalDistribution((_NO_BYPASS, "simple", "complex")),
            },
        ),
    )
}
