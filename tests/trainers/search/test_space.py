import json

import pytest

from sqz_keras.architecture.metaparameters import parse_metaparameters
from sqz_keras.architecture.spec import ModelSpec
from trainers.search.space import SPACES, find_space, point_flags
from trainers.search.table import dry_run_lines, listed_size


def test_both_sweeps_of_figure_3_have_the_papers_counts():
    counts = {
        "squeeze_ratio": [1_248_424, 1_967_080, 3_404_392, 4_841_704, 6_279_016],
        "pct_3x3": [
            1_478_248,
            1_929_832,
            2_421_352,
            2_912_872,
            3_404_392,
            3_895_912,
            4_387_432,
            4_878_952,
            5_330_536,
        ],
        "bypass": [1_248_424, 1_248_424, 1_589_672],
    }
    for name, expected in counts.items():
        space = SPACES[name]
        assert [space.spec(ModelSpec(), point).count_params() for point in space.grid()] == expected
        printed = "\n".join(dry_run_lines(space, ModelSpec()))
        assert all(f"{count:,}" in printed for count in expected)


def test_sizes_are_rounded_as_the_paper_rounds_them():
    points = [SPACES["squeeze_ratio"].spec(ModelSpec(), point) for point in SPACES["squeeze_ratio"].grid()]
    assert [listed_size(4 * spec.count_params()) for spec in points] == ["4.8M", "7.6M", "13M", "19M", "24M"]
    # What `ls -lh` prints for files of these sizes.
    listed = {10_137: "9.9K", 10_138: "10K", 69_000: "68K", 1_047_552: "1023K", 1_047_553: "1.0M", 10_380_903: "10M"}
    assert {size: listed_size(size) for size in listed} == listed


@pytest.mark.filterwarnings("ignore:squeeze_ratio=1.0 makes")  # the last point of the paper's Figure 3
@pytest.mark.parametrize("name", SPACES)
def test_the_flags_of_a_point_build_its_net(name):
    space = SPACES[name]
    points = space.grid() if name != "full" else [_middle(space)]
    for point in points:
        spec = space.spec(ModelSpec(), point)
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in point_flags(spec).split())
        changed = parse_metaparameters(flags.get("metaparameters", ""))
        assert ModelSpec(bypass="simple").with_net(flags["version"], flags["bypass"], changed) == spec


def _middle(space):
    return {
        name: dimension.choices[-1] if hasattr(dimension, "choices") else dimension.low
        for name, dimension in space.dimensions.items()
    }


def test_a_file_describes_a_space(tmp_path):
    form = {
        "base": {"num_fire_modules": 4, "pool_after": [1, 3]},
        "parameters": {"base_e": {"low": 8, "high": 24, "step": 8}, "bypass": ["none", "complex"]},
    }
    (tmp_path / "mine.json").write_text(json.dumps(form))
    space = find_space(str(tmp_path / "mine.json"))
    assert space.name == "mine.json" and len(list(space.grid())) == 6
    spec = space.spec(ModelSpec(), {"base_e": 16, "bypass": "complex"})
    assert (spec.metaparameters.base_e, spec.metaparameters.pool_after, spec.bypass) == (16, (1, 3), "complex")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "lists within lists"),
        ("[1]", "expected"),
        ('{"parameters": {}}', "expected"),
        ('{"parameters": [1]}', "expected"),
        ('{"base": [1], "parameters": {"freq": [1]}}', "expected"),
        ('{"parameters": {"squeeze": [1]}}', "'squeeze' is not a metaparameter"),
        ('{"parameters": {"freq": 3}}', "freq takes a list of values"),
        ('{"parameters": {"freq": []}}', "values that differ"),
        ('{"parameters": {"freq": [1, 1]}}', "values that differ"),
        ('{"parameters": {"freq": {"lo": 1}}}', '"low", "high"'),
        ('{"parameters": {"squeeze_ratio": {"low": 2, "high": 1}}}', "low of 2 above its high of 1"),
        ('{"parameters": {"squeeze_ratio": {"low": 0.1, "high": Infinity}}}', "finite, got inf"),
        ('{"parameters": {"squeeze_ratio": {"low": 0.1, "high": 1, "log": "yes"}}}', "true or false, got 'yes'"),
        ('{"parameters": {"squeeze_ratio": {"low": 0.1, "high": 1, "step": 0.1, "log": true}}}', "without log"),
        ('{"parameters": {"squeeze_ratio": {"low": 0.1, "high": 1, "step": 1e-320}}}', "must divide its range"),
        ('{"parameters": {"squeeze_ratio": ["0.5"]}}', "of type float and finite, got '0.5'"),
        ('{"parameters": {"squeeze_ratio": [NaN, 0.5]}}', "finite, got nan"),
        ('{"parameters": {"pct_3x3": {"low": 0, "high": 6}}}', "a fraction in"),
        ('{"parameters": {"base_e": [true]}}', "of type int and finite, got True"),
        ('{"parameters": {"base_e": [32.0]}}', "of type int and finite, got 32.0"),
        ('{"parameters": {"base_e": {"low": "16", "high": 32}}}', "got '16'"),
        ('{"parameters": {"base_e": {"low": 16, "high": 32, "step": 1.5}}}', "got 1.5"),
        ('{"parameters": {"base_e": {"low": 16, "high": 33, "step": 4}}}', "4 does not go into 16 to 33"),
        ('{"parameters": {"num_fire_modules": [1000000000]}}', "at most 1,000"),
        ('{"parameters": {"bypass": ["none", "fancy"]}}', "one of none, simple, complex, got 'fancy'"),
        ('{"parameters": {"pool_after": {"low": 1, "high": 2}}}', "takes a list of values"),
        ('{"parameters": {"pool_after": [[1, 4, 8]]}}', 'text such as "1:4:8"'),
        ('{"parameters": {"freq": [1, 2], "pool_after": ["1:4:8,freq=3"]}}', "got '1:4:8,freq=3'"),
        ('{"parameters": {"pool_after": ["8:4:1"]}}', "ascending and each once"),
        ('{"base": {"freq": 4}, "parameters": {"freq": [1, 2]}}', "freq must be in base or in parameters, not in both"),
        ('{"parameters": {"freq": [1, 2], "base_e": [64], "freq": [3, 4]}}', "'freq' occurs twice in one object"),
        ('{"base": {"base_e": 0}, "parameters": {"freq": [1]}}', "base_e must be an integer of at least 2"),
        ('{"base": {"pool_after": [1.0, 3.0]}, "parameters": {"freq": [1]}}', "pool_after must name layers"),
        ('{"base": {"pool_after": "1:3"}, "parameters": {"freq": [1]}}', "must be a list of layers"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, form, message):
    (tmp_path / "bad.json").write_text(form)
    with pytest.raises(ValueError, match=message):
        find_space(str(tmp_path / "bad.json"))


def test_a_file_in_utf_16_is_refused(tmp_path):
    """As PowerShell's `>` writes it."""
    (tmp_path / "bad.json").write_text('{"parameters": {"freq": [1]}}', "utf-16")
    with pytest.raises(ValueError, match=r"bad.json is not text in UTF-8; save it as that"):
        find_space(str(tmp_path / "bad.json"))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="squeeze_ratio, pct_3x3, bypass, pool_after, full"):
        find_space("squeez")


def test_a_grid_needs_steps():
    with pytest.raises(ValueError, match="pct_3x3 has none between"):
        list(SPACES["full"].grid())
    assert any("16 to 192" in line for line in dry_run_lines(SPACES["full"], ModelSpec()))


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        ({"low": 0.1, "high": 0.7, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ({"low": 0.125, "high": 0.375, "step": 0.125}, [0.125, 0.25, 0.375]),
    ],
)
def test_a_grids_values_are_the_decimal_ones_and_never_beyond_the_end(tmp_path, dimension, values):
    (tmp_path / "mine.json").write_text(json.dumps({"parameters": {"squeeze_ratio": dimension}}))
    assert [point["squeeze_ratio"] for point in find_space(str(tmp_path / "mine.json")).grid()] == values


def test_a_grid_of_too_many_points_is_refused_before_it_is_made(tmp_path):
    dimensions = {name: {"low": 2, "high": 60_000, "step": 1} for name in ("base_e", "incr_e", "stem_filters")}
    (tmp_path / "mine.json").write_text(json.dumps({"parameters": dimensions}))
    with pytest.raises(ValueError, match="and a grid at most 100,000"):
        find_space(str(tmp_path / "mine.json")).grid()


def test_layers_and_pools_may_vary_together(tmp_path):
    form = {"parameters": {"num_fire_modules": [2, 4], "pool_after": ["", "1:2"]}}
    (tmp_path / "mine.json").write_text(json.dumps(form))
    space = find_space(str(tmp_path / "mine.json"))
    nets = [space.spec(ModelSpec(), point).metaparameters for point in space.grid()]
    assert [(net.num_fire_modules, net.pool_after) for net in nets] == [(2, ()), (2, (1, 2)), (4, ()), (4, (1, 2))]


def test_a_net_whose_pools_need_a_larger_input_is_refused():
    small = ModelSpec(input_size=20)
    with pytest.raises(ValueError, match="20 pixels is too small"):
        SPACES["bypass"].spec(small, {"bypass": "none"})
    assert "no net" in list(dry_run_lines(SPACES["bypass"], small))[-1]
