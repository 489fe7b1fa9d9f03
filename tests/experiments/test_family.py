"""What is computed from a family's trained points; training them takes too long for a test."""

import pytest
from PIL import Image

pytest.importorskip("altair", reason="the figures need the extra `train`")

from experiments import family
from trainers.reports.page import save_chart


def tables(space, accuracies):
    """One table per seed, from each point's accuracies, which are listed by seed."""
    seeds = zip(*accuracies.values(), strict=True)
    return [
        {
            value: {"number": number, "test_top1": top1, "compressed_bytes": 1000 + seed, "parameters": 5}
            | {"mebibytes": 1.5, "multiply_accumulates": 7}
            for number, (value, top1) in enumerate(zip(accuracies, of_seed, strict=True))
        }
        for seed, of_seed in enumerate(seeds)
    ]


def test_means_intervals_and_findings(tmp_path):
    seen = tables("bypass", {"none": (0.5, 0.6, 0.7), "simple": (0.7, 0.8, 0.9), "complex": (0.6, 0.9, 0.9)})
    rows = family.summarize("bypass", seen)
    assert [row["value"] for row in rows] == ["none", "simple", "complex"]
    assert rows[1]["top1"] == pytest.approx(0.8) and rows[1]["half"] == pytest.approx(4.303 * 0.1 / 3**0.5)
    lines = "\n".join(family.describe("bypass", rows, seen))
    assert "| none | 5 | 1.50 | 1,001 | 60.0% | +- 24.8 |" in lines
    # For every seed, simple bypass is 20 points better than none, however much the seeds differ.
    assert "| simple bypass beats none: simple less none | +20.0 | +20.0 to +20.0 |" in lines
    assert "| simple bypass beats complex: simple less complex | +0.0 | -24.8 to +24.8 |" in lines

    ratios = dict.fromkeys((0.125, 0.25, 0.5, 0.75, 1.0), (0.9, 0.91, 0.92))
    rows += family.summarize("squeeze_ratio", tables("squeeze_ratio", ratios))
    save_chart(family.plot(rows), tmp_path / "family.svg")
    drawn = (tmp_path / "family.svg").read_text("utf-8")
    assert drawn.count("bypass") >= 1 and "squeeze_ratio" in drawn and drawn.count("aria-roledescription") > 8


@pytest.fixture
def image_dir(tmp_path):
    """A folder of two classes, with its three splits."""
    for folder in ("train", "validation", "test"):
        for label in "ab":
            (tmp_path / "images" / folder / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "images" / folder / label / "0.png")
    return tmp_path / "images"


def test_each_sweep_is_that_of_its_seed_and_images(image_dir, tmp_path, monkeypatch, run_command):
    points = tables("bypass", {"none": (0.5,), "simple": (0.7,), "complex": (0.6,)})[0]
    records = [record | {"state": "complete", "point": {"bypass": value}} for value, record in points.items()]
    configs = {}
    monkeypatch.setattr(
        "trainers.search.study.sweep", lambda config, folder, data_dir: configs.update({folder: config}) or records
    )
    run_command(family, f"--workdir={tmp_path}", "--spaces=bypass", "--seeds=3,4", f"--image_dir={image_dir}")
    assert [folder.relative_to(tmp_path).as_posix() for folder in configs] == ["bypass/seed-3", "bypass/seed-4"]
    for seed, config in zip((3, 4), configs.values(), strict=True):
        assert config.train.seed == seed and config.train_flags.endswith(f"--seed={seed}")
        assert config.images["labels"] == ["a", "b"] and config.images["sizes"]["test"] == 2


def test_one_seed_for_all_is_refused(tmp_path, run_command):
    with pytest.raises(ValueError, match="--seed is refused"):
        run_command(family, f"--workdir={tmp_path}", "--seed=5")


def test_one_seed_has_no_interval():
    seen = tables("pool_after", dict.fromkeys(("1:2:3", "1:3:5", "1:4:8", "4:6:8"), (0.5,)))
    lines = "\n".join(family.describe("pool_after", family.summarize("pool_after", seen), seen))
    assert "| 1:2:3 | 5 | 1.50 | 1,000 | 50.0% | one seed |" in lines and "| +0.0 | one seed |" in lines
