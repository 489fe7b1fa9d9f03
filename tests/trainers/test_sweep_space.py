import json

import pytest

from sqz_keras.metaparams import parse_metaparameters
from sqz_keras.spec import ModelSpec
from trainers.sweep_space import SPACES, find_space, point_flags
from trainers.sweep_table import dry_run_lines, listed_size


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


@pytest.mark.parametrize("name", SPACES)
def test_the_flags_of_a_point_build_its_net(name):
    space = SPACES[name]
    points = space.grid() if name != "full" else [_middle(space)]
    for point in points:
        spec = space.spec(ModelSpec(), point)
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in point_flags(spec).split())
        changed = parse_metaparameters(flags.get("metaparameters", ""))
        assert ModelSpec().with_net(flags["version"], flags.get("bypass"), changed) == spec


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
    assert space.name == "mine" and len(list(space.grid())) == 6
    spec = space.spec(ModelSpec(), {"base_e": 16, "bypass": "complex"})
    assert (spec.metaparameters.base_e, spec.metaparameters.pool_after, spec.bypass) == (16, (1, 3), "complex")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("{", "Expecting property name"),
        ('{"parameters": {}}', "expected"),
        ('{"parameters": {"squeeze": [1]}}', "'squeeze' is no metaparameter"),
        ('{"parameters": {"freq": {"lo": 1}}}', "unexpected keyword"),
        ('{"parameters": {"squeeze_ratio": {"low": 2, "high": 1}}}', "low"),
        ('{"base": {"base_e": 0}, "parameters": {"freq": [1]}}', "base_e must be an integer of at least 2"),
        ('{"parameters": {"pool_after": {"low": 1, "high": 2}}}', "takes a list of values"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, form, message):
    (tmp_path / "bad.json").write_text(form)
    with pytest.raises(ValueError, match=message):
        find_space(str(tmp_path / "bad.json"))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="squeeze_ratio, pct_3x3, bypass, pool_after, full"):
        find_space("squeez")


def test_a_grid_needs_steps():
    with pytest.raises(ValueError, match="pct_3x3 has none between"):
        list(SPACES["full"].grid())
    assert any("16 to 192" in line for line in dry_run_lines(SPACES["full"], ModelSpec()))


def test_a_net_whose_pools_need_a_larger_input_is_told():
    small = ModelSpec(input_size=20)
    with pytest.raises(ValueError, match="20 pixels is too small"):
        SPACES["bypass"].spec(small, {"bypass": "none"})
    assert "no net" in list(dry_run_lines(SPACES["bypass"], small))[-1]
