import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
STEPS = ["sqz-train", "sqz-export", "sqz-serve", "sqz-predict"]


@pytest.mark.large
def test_the_demo_end_to_end(tmp_path):
    """It prints each command before it runs it, and at the end its table; the network is as accurate as promised."""
    demo = ROOT / "examples" / "demo.py"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [sys.executable, demo], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not re.search(r"absl::|\.cc:\d+\]|retracing", result.stderr), "lines of TensorFlow's log"
    assert re.findall(r"^\$ (\S+)", result.stdout, re.MULTILINE) == STEPS
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines()[-8:])
    assert re.search(r"%\s+7$", rows["result for a picture of a 7"])
    assert float(rows["top-1 on the test split"].split("%")[0]) >= 95
    assert re.fullmatch(r"9\d\.\d% to 9\d\.\d%", rows["95% interval"])
    assert rows["parameters"] == "727,626"
    assert all(rows[name].endswith(" MB") for name in ("model.weights.h5", "model.keras", "SavedModel"))
