"""A version appears whole or not at all, and is never overwritten."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from export import versions


def _put(base_path, version, text="new"):
    with versions.new_version(base_path, version) as new:
        (new.folder / "saved_model.pb").touch()
        (new.folder / "variables").mkdir()
        (new.folder / "variables" / "data").write_text(text)


def test_versions_are_folders_named_by_positive_integers(tmp_path):
    for name in ("1", "12", "9", "0", "-1", "v2", "1.5", ".tmp-4-ab", "٣", "9" * 19, "9" * 40):
        (tmp_path / name).mkdir()
    (tmp_path / "77").write_text("a file")
    assert list(versions.list_versions(tmp_path)) == [1, 9, 12]
    assert versions.list_versions(tmp_path / "missing") == {}


def test_without_versions_the_error_names_the_right_folder(tmp_path):
    served = tmp_path / "models" / "squeezenet"
    _put(served, 3)
    assert versions.newest(served) == (3, served / "3")
    for path, advice in (
        (tmp_path / "models", f"Give one of these: {re.escape(str(served))}$"),
        (served / "3", f"a version itself. Give the folder that holds it: {re.escape(str(served))}$"),
        (tmp_path / "missing", "got no folder. Write a version with sqz-export"),
        (tmp_path, "got none. Write one with sqz-export"),
    ):
        with pytest.raises(ValueError, match=advice):
            versions.newest(path)


def test_auto_is_the_newest_plus_one(tmp_path):
    assert versions.choose_version(tmp_path / "missing", "auto") == 1
    for name in ("2", "10", ".tmp-30-ab"):
        (tmp_path / name).mkdir()
    assert versions.choose_version(tmp_path, "auto") == 11
    assert versions.choose_version(tmp_path, "7") == versions.choose_version(tmp_path, 7) == 7


@pytest.mark.parametrize("wrong", ["0", "-1", "1.0", "", "newest", "٣", 0, -3, 2**63, "1" * 5000])
def test_wrong_versions_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="positive integer"):
        versions.choose_version(tmp_path, wrong)


def test_a_file_is_no_folder_of_versions(tmp_path):
    (tmp_path / "model.sqz").touch()
    with pytest.raises(ValueError, match=r"model\.sqz is not a folder; --base_path=DIR"):
        versions.choose_version(tmp_path / "model.sqz", "auto")


def test_a_version_is_never_overwritten(tmp_path):
    _put(tmp_path, 4, "old")
    with pytest.raises(ValueError, match=r"never overwritten.*--model_version=auto"):
        versions.choose_version(tmp_path, 4)
    with pytest.raises(ValueError, match="never overwritten"):
        _put(tmp_path, 4)
    assert (tmp_path / "4" / "variables" / "data").read_text() == "old"
    assert os.listdir(tmp_path) == ["4"]


def test_of_two_exports_at_once_the_later_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="never overwritten"),
        versions.new_version(tmp_path, 4) as new,
    ):
        (new.folder / "data").write_text("late")
        _put(tmp_path, 4, "early")
    assert (tmp_path / "4" / "variables" / "data").read_text() == "early"
    assert os.listdir(tmp_path) == ["4"]


def test_of_two_exports_at_once_the_later_takes_the_next_number(tmp_path):
    _put(tmp_path, 3)
    with versions.new_version(tmp_path, 4, or_next=True) as new:
        (new.folder / "data").write_text("late")
        _put(tmp_path, 4, "early")
        (tmp_path / "5").write_text("a file")
    assert new.version == 6
    assert (tmp_path / "4" / "variables" / "data").read_text() == "early"
    assert (tmp_path / "6" / "data").read_text() == "late"
    assert sorted(os.listdir(tmp_path)) == ["3", "4", "5", "6"]


@pytest.mark.parametrize("failing", ["mkdir", "fsync", "rename"])
def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch, failing):
    def fail(*_, **__):
        raise OSError("the disk is full")

    if failing != "mkdir":
        monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="disk is full"), versions.new_version(tmp_path, 1) as new:
        (new.folder / "data").write_text("new")
        if failing == "mkdir":
            fail()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_export_leaves_is_no_version(tmp_path):
    code = """
import os, signal, sys
from export import versions
with versions.new_version(sys.argv[1], 5) as new:
    (new.folder / "saved_model.pb").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    assert versions.list_versions(tmp_path) == {}
    _put(tmp_path, versions.choose_version(tmp_path, "auto"))
    assert list(versions.list_versions(tmp_path)) == [1]


def test_old_versions_go_and_the_newest_stay(tmp_path):
    for version in (2, 10, 9):
        _put(tmp_path, version)
    (tmp_path / "models.config").write_text("not a version")
    assert versions.prune(tmp_path, 3) == []
    assert versions.prune(tmp_path, 2) == [2]
    assert sorted(os.listdir(tmp_path)) == ["10", "9", "models.config"]
    with pytest.raises(ValueError, match="at least 1"):
        versions.prune(tmp_path, 0)


def test_folders_that_are_no_versions_stay_and_of_links_only_the_link_goes(tmp_path):
    (tmp_path / "5").mkdir()
    (tmp_path / "2023" / "images").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    for base_path, version in ((elsewhere, 7), (tmp_path, 8), (tmp_path, 9)):
        _put(base_path, version)
    (tmp_path / "7").symlink_to(elsewhere / "7")
    assert versions.prune(tmp_path, 1) == [5, 7, 8]
    assert sorted(os.listdir(tmp_path)) == ["2023", "9", "elsewhere"]
    assert (elsewhere / "7" / "saved_model.pb").exists()


def test_a_version_that_would_go_at_once_is_refused(tmp_path):
    for version in (2, 5):
        _put(tmp_path, version)
    assert versions.choose_version(tmp_path, 3, keep_versions=2) == 3
    with pytest.raises(ValueError, match=r"Version 1 would be removed at once.*--keep_versions=2"):
        versions.choose_version(tmp_path, 1, keep_versions=2)
    assert versions.choose_version(tmp_path, "auto", keep_versions=1) == 6


def test_versions_that_another_process_removes_meanwhile_are_skipped(tmp_path, monkeypatch):
    for version in (2, 3, 4):
        _put(tmp_path, version)
    there = versions.list_versions(tmp_path)
    monkeypatch.setattr(versions, "list_versions", lambda _: {1: tmp_path / "1"} | there)
    rename = os.rename

    def remove_first(source, target):
        if source == tmp_path / "2":
            shutil.rmtree(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", remove_first)
    assert versions.prune(tmp_path, 1) == [3]
    assert os.listdir(tmp_path) == ["4"]


def test_an_old_version_is_hidden_before_its_files_go(tmp_path, monkeypatch):
    for version in (1, 2):
        _put(tmp_path, version)
    monkeypatch.setattr(versions.shutil, "rmtree", lambda folder: seen.append((folder.name, os.listdir(tmp_path))))
    seen = []
    versions.prune(tmp_path, 1)
    ((name, listed),) = seen
    assert name.startswith(".old-1-")
    assert sorted(listed) == [name, "2"]
    assert list(versions.list_versions(tmp_path)) == [2]


def test_a_version_can_be_read_by_other_users(tmp_path):
    before = os.umask(0o022)
    try:
        _put(tmp_path, 1)
    finally:
        os.umask(before)
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o755
