"""The README's pictures: they show part of a report as a person sees it, and none is too large."""

import pytest
from PIL import Image

pytest.importorskip("altair", reason="the reports need the extra `train`")
pytest.importorskip("optuna", reason="the sweeps need the extra `sweep`")

from benchmarks.report_speed import write_report
from tools import screenshots


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(screenshots, "IMAGES", tmp_path)
    return tmp_path


def test_a_part_of_a_report(browser, images):
    write_report(images / "report.html", 12)
    screenshots.show_report(browser, "top.png", images / "report.html", "Accuracy and cost")
    screenshots.show_report(browser, "table.png", images / "report.html", "Trials")
    top, table = (Image.open(images / name) for name in ("top.png", "table.png"))
    assert top.size == table.size == (screenshots.WIDTH, screenshots.HEIGHT)
    assert top.convert("RGB").tobytes() != table.convert("RGB").tobytes()


def test_a_sweep_that_was_stopped_is_resumed(tmp_path, monkeypatch):
    """A stopped sweep has a report too, about the networks that are finished."""
    commands = []
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "report.html").touch()
    monkeypatch.setattr(screenshots, "WORK", tmp_path)
    monkeypatch.setattr(screenshots, "run", lambda *words: commands.append(words[0]))
    screenshots.search()
    assert commands == ["sqz-sweep"]


def test_a_large_picture_is_refused(images):
    with pytest.raises(ValueError, match=r"large\.png has 150,001 bytes, and may have 150,000"):
        screenshots.save("large.png", bytes(screenshots.MOST_BYTES + 1))
    assert list(images.iterdir()) == []
