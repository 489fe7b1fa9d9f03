"""The report of a sweep, as a person sees it in a browser."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("altair", reason="the reports need the extra `train`")
pytest.importorskip("optuna", reason="the sweeps need the extra `sweep`")

from benchmarks.report_speed import DRAWN, write_report

TRIALS = 1000

pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def tab(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "report.html"
    write_report(path, TRIALS)
    tab = browser.open(path.as_uri())
    tab.wait(DRAWN)
    return tab


def test_a_thousand_trials_are_drawn_without_complaint(tab, tmp_path):
    assert tab.complaints() == []
    assert tab.run("document.querySelectorAll('.chart').length") == 3
    assert tab.run("document.querySelectorAll('#chart0 .mark-symbol path').length") == TRIALS
    assert tab.run("document.querySelectorAll('#chart0 .mark-line path').length") == 1  # the front
    # The parallel coordinates are a canvas; more of it is drawn on than the labels alone would cover.
    left, top, right, bottom = tab.run(
        "(box => [box.left, box.top + scrollY, box.right, box.bottom + scrollY])"
        "(document.querySelector('#chart1 canvas').getBoundingClientRect())"
    )
    tab.screenshot(tmp_path / "page.png")
    seen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"), np.int32)
    drawn = seen[round(top) : round(bottom), round(left) : round(right)]
    assert np.mean(np.abs(drawn - seen[0, 0]).sum(-1) > 30) > 0.3


def test_its_table_is_sorted_and_filtered(tab):
    column = "[...document.querySelectorAll('tbody tr{}')].map(row => row.cells[{}].textContent)"
    heads = tab.run("[...document.querySelectorAll('th')].map(head => head.textContent)")
    place = heads.index("top1")
    for _ in range(2):
        tab.run(f"document.querySelectorAll('th button')[{place}].click()")
    top1 = [float(text) for text in tab.run(column.format("", place))]
    assert len(top1) == TRIALS and top1 == sorted(top1, reverse=True)
    every = tab.run(column.format("", heads.index("command")))
    tab.run(
        "(input => { input.value = '--bypass=complex'; input.dispatchEvent(new Event('input')); })"
        "(document.querySelector('.filter input'))"
    )
    shown = tab.run(column.format(":not([hidden])", heads.index("command")))
    assert shown and all("--bypass=complex" in text for text in shown)
    matches = sum("--bypass=complex" in text for text in every)
    assert tab.text(".filter output") == f"{matches} of 1,000"
