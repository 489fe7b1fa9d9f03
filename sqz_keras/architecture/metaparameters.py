"""The metaparameters of SqueezeNet (section 5 of the paper) and the filters that follow from them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

from sqz_keras.architecture.plain_numbers import as_integer, as_number, require_integer

_MOST = 1 << 16  # limit for counts, such as numbers of filters: far beyond any use, but no risk to memory
_INTEGERS = {  # least and greatest
    "base_e": (2, _MOST),
    "incr_e": (0, _MOST),
    "freq": (1, _MOST),
    "num_fire_modules": (1, 1_000),
    "stem_filters": (1, _MOST),
    "stem_kernel": (1, 1_000),
}
_MOST_SQUEEZE = 1_000.0


@dataclasses.dataclass(frozen=True)
class FireFilters:
    """Filters of one fire module: `squeeze1x1`, `expand1x1` and `expand3x3`, and the layer number in its name."""

    number: int
    squeeze1x1: int
    expand1x1: int
    expand3x3: int

    @property
    def name(self) -> str:
        return f"fire{self.number}"

    @property
    def channels(self) -> int:
        """Output channels: both expand layers, concatenated."""
        return self.expand1x1 + self.expand3x3


@dataclasses.dataclass(frozen=True)
class Metaparameters:
    """What defines a member of the SqueezeNet family; the defaults are those of v1.0.

    With i counting fire modules from 0 (paper, section 5.1):
    e_i = base_e + incr_e * floor(i / freq); expand3x3 = pct_3x3 * e_i, expand1x1 the rest; squeeze1x1 =
    squeeze_ratio * e_i. Counts round half up and are at least 1.

    Args:
        base_e: Expand filters of the first fire module, at least 2; like all counts of filters at most 65,536.
        incr_e: Expand filters added after every `freq` modules, at least 0.
        freq: Modules between two increments, at least 1.
        pct_3x3: Share of 3x3 filters among the expand filters, a fraction in [0, 1].
        squeeze_ratio: Squeeze filters per expand filter, above 0 and at most 1,000. At 1 or more the squeeze
            layer is no narrower than the expand layers, which causes a warning.
        num_fire_modules: Number of fire modules, 1 to 1,000; they are called fire2, fire3, ...
        stem_filters: Filters of conv1.
        stem_kernel: Height and width of conv1's kernel, in pixels, at most 1,000; its stride is 2.
        pool_after: Numbers of the layers (1 is conv1, 2 is fire2, ...) that a max pool follows, ascending.

    Raises:
        ValueError: A value is outside the range given above.
    """

    base_e: int = 128
    incr_e: int = 128
    freq: int = 2
    pct_3x3: float = 0.5
    squeeze_ratio: float = 0.125
    num_fire_modules: int = 8
    stem_filters: int = 96
    stem_kernel: int = 7
    pool_after: tuple[int, ...] = (1, 4, 8)

    def __post_init__(self):
        for name, (least, most) in _INTEGERS.items():
            value = require_integer(f"Metaparameters: {name}", getattr(self, name), least, most)
            object.__setattr__(self, name, value)
        for name in ("pct_3x3", "squeeze_ratio"):
            value = as_number(getattr(self, name))
            if value is None or not math.isfinite(value):
                raise ValueError(f"Metaparameters: {name} must be a finite number, got {getattr(self, name)!r:.40}.")
            object.__setattr__(self, name, value)
        if not 0 <= self.pct_3x3 <= 1:
            raise ValueError(f"Metaparameters: pct_3x3 is a fraction in [0, 1], got {self.pct_3x3}.")
        if not 0 < self.squeeze_ratio <= _MOST_SQUEEZE:
            raise ValueError(
                f"Metaparameters: squeeze_ratio must be above 0 and at most {_MOST_SQUEEZE:,.0f}, "
                f"got {self.squeeze_ratio}."
            )
        pools = tuple(map(as_integer, self.pool_after)) if isinstance(self.pool_after, Iterable) else (None,)
        layers = range(1, self.num_fire_modules + 2)
        if None in pools or list(pools) != sorted(set(pools) & set(layers)):
            raise ValueError(
                f"Metaparameters: pool_after must name layers from 1 (conv1) to {layers[-1]} (the last fire module), "
                f"ascending and each once, such as (1, 4, 8), got {self.pool_after!r:.80}."
            )
        object.__setattr__(self, "pool_after", pools)
        if any(fire.squeeze1x1 >= fire.channels for fire in self.fire_modules()):
            warnings.warn(
                f"squeeze_ratio={self.squeeze_ratio} makes a squeeze layer no narrower than its expand layers; the "
                "paper's fire module is meant to have fewer squeeze filters than expand filters (section 3.2).",
                stacklevel=3,
            )

    def fire_modules(self) -> tuple[FireFilters, ...]:
        """The filters of every fire module, first to last."""
        modules = []
        for i in range(self.num_fire_modules):
            expand = self.base_e + self.incr_e * (i // self.freq)
            expand3x3 = min(max(_round_half_up(self.pct_3x3 * expand), 1), expand - 1)
            squeeze = max(_round_half_up(self.squeeze_ratio * expand), 1)
            modules.append(FireFilters(i + 2, squeeze, expand - expand3x3, expand3x3))
        return tuple(modules)

    def min_input_size(self) -> int:
        """The smallest input height (and width), in pixels, that leaves one pixel for the classifier.

        conv1 is "valid" with stride 2; each pool is in ceil mode: n -> ceil((n - 3) / 2) + 1 = n // 2.
        """
        return self.stem_kernel + 2 * (2 ** len(self.pool_after) - 1)


def parse_metaparameters(text: str) -> dict[str, int | float | tuple[int, ...]]:
    """Fields of `Metaparameters` from text: "squeeze_ratio=0.25,pool_after=1:3:5"; none from "".

    "pool_after=" describes a net without pools.

    Raises:
        ValueError: An item is not NAME=VALUE, the name is not a metaparameter or occurs twice, or the value has the
            wrong type.
    """
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Metaparameters)}
    values = {}
    for item in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or name not in kinds:
            colons = " Separate the places of pools by colons: pool_after=1:4:8." if item.strip().isdigit() else ""
            raise ValueError(f"Expected NAME=VALUE with a name of {', '.join(kinds)}; got {item!r}.{colons}")
        if name in values:
            raise ValueError(f"The metaparameter {name} occurs twice in {text!r}: give it once.")
        try:
            if kinds[name] is tuple:
                values[name] = tuple(map(int, value.split(":"))) if value else ()
            else:
                values[name] = kinds[name](value)
        except ValueError:
            form = "layer numbers with colons, as 1:4:8" if kinds[name] is tuple else f"of type {kinds[name].__name__}"
            raise ValueError(f"The metaparameter {name} must be {form}, got {value!r}.") from None
    return values


def format_metaparameters(values: Mapping[str, int | float | Sequence[int]]) -> str:
    """The values as text that `parse_metaparameters` reads."""
    return ",".join(
        f"{name}={':'.join(map(str, value)) if isinstance(value, tuple | list) else value}"
        for name, value in values.items()
    )


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5)


VERSIONS = {
    "1.0": Metaparameters(),
    "1.1": Metaparameters(stem_filters=64, stem_kernel=3, pool_after=(1, 3, 5)),
}


def version_of_stem(window: list[int] | None, filters: int | None) -> str | None:
    """The version whose conv1 has this window, [height, width], and this many filters; None if there is none."""
    stems = {name: ([net.stem_kernel] * 2, net.stem_filters) for name, net in VERSIONS.items()}
    return next((name for name, stem in stems.items() if stem == (window, filters)), None)


def fit_metaparameters(
    fires: Sequence[FireFilters], *, candidates: Iterable[Metaparameters] = (), **stem
) -> Metaparameters | None:
    """Metaparameters from which these fire modules follow, or None if there are none.

    Args:
        fires: The fire modules, first to last.
        candidates: Metaparameters to try first, before the versions and those derived from the modules.
        **stem: `stem_filters`, `stem_kernel` and `pool_after`.
    """
    fires, widths = tuple(fires), [fire.channels for fire in fires]
    freq = next((i for i, width in enumerate(widths) if width != widths[0]), len(fires))
    incr = widths[freq] - widths[0] if freq < len(fires) else 0
    nets = [*candidates, *VERSIONS.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fire in (fires[-1], fires[0]):  # shares of a single module, because each module's are rounded
            shares = {"pct_3x3": fire.expand3x3 / fire.channels, "squeeze_ratio": fire.squeeze1x1 / fire.channels}
            with contextlib.suppress(ValueError):
                nets.append(Metaparameters(widths[0], incr, freq, **shares, num_fire_modules=len(fires), **stem))
    for net in nets:
        if all(getattr(net, name) == value for name, value in stem.items()) and net.fire_modules() == fires:
            return net
    return None
