"""The parts of small benchmarks that can be tested without measuring."""

import pytest
from absl import flags

from benchmarks import install_size, report_speed, serving_server


def test_an_extra_that_is_named_twice_is_installed_once(monkeypatch, run_command, capsys):
    monkeypatch.setattr(install_size, "installed_sizes", lambda folder, extra: {"numpy": 60.0})
    run_command(install_size, "--extras=,")
    assert capsys.readouterr().out == "sqz-keras: megabytes=60 (required: at most 90); numpy 60\n"


def test_a_report_is_compared_with_a_smaller_one(run_command):
    with pytest.raises(flags.IllegalFlagValueError, match="trials"):
        run_command(report_speed, "--trials=10")


def test_jpeg_files_at_any_depth(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.JPG", "inner/a.jpeg", "c.png"):
        (tmp_path / name).write_bytes(name.encode())
    assert serving_server.read_images(tmp_path) == [b"b.JPG", b"inner/a.jpeg"]
    with pytest.raises(ValueError, match="holds no JPEG files"):
        serving_server.jpeg_files(tmp_path / "none")
