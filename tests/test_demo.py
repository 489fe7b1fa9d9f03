import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks.report_speed import DRAWN

ROOT = pathlib.Path(__file__).parents[1]
STEPS = ["sqz-train", "sqz-compress", "sqz-export", "sqz-serve", "sqz-predict"]


@pytest.mark.large
def test_the_demo_end_to_end(tmp_path, request):
    """It prints each command before it runs it and a table at the end, and writes a page with the table's contents."""
    demo = ROOT / "examples" / "demo.py"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [sys.executable, demo], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not re.search(r"absl::|\.cc:\d+\]|retracing", result.stderr), "lines of TensorFlow's log"
    assert re.findall(r"^\$ (\S+)", result.stdout, re.MULTILINE) == STEPS
    *_, table, last_line = result.stdout.strip().split("\n\n")
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in table.splitlines())
    assert re.search(r"%\s+7$", rows["result for a picture of a 7"])
    assert float(rows["top-1 on the test split"].split("%")[0]) >= 95
    assert re.fullmatch(r"9\d\.\d% to 9\d\.\d%", rows["95% interval"])
    assert rows["parameters"] == "727,626"
    assert float(rows["top-1 when compressed"].rstrip("%")) >= 94
    sizes = {name: float(value.removesuffix(" MB")) for name, value in rows.items() if value.endswith(" MB")}
    assert sizes.keys() == {"model.weights.h5", "model.keras", "small.sqz", "SavedModel"}
    assert 5 * sizes["small.sqz"] < sizes["model.weights.h5"]

    page = pathlib.Path("demo-output", "index.html")
    assert last_line.endswith(f": {page}")
    text = (tmp_path / page).read_text("utf-8")
    for link in re.findall(r'href="(?!#)(.*?)"', text):
        assert (tmp_path / page.parent / link).is_file()
    if shutil.which("chromium"):
        tab = request.getfixturevalue("browser").open((tmp_path / page).as_uri())
        tab.wait(DRAWN)
        assert tab.complaints() == []
        assert tab.text("figcaption").split("\n") == [
            "is 7",
            "served answer 7",
            f"at {rows['result for a picture of a 7'].split()[0]}",
        ]
        assert tab.run("document.querySelectorAll('.chart svg').length") == 2
        assert tab.run("document.querySelector('figure img').naturalWidth") == 8
