"""The tar file holds what a container image needs, and its bytes depend on names and contents alone."""

import os
import tarfile

import pytest

from export import serving_tar


@pytest.fixture
def base_path(tmp_path):
    version = tmp_path / "serving" / "7"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"graph")
    (version / "variables" / "variables.index").write_bytes(b"index")
    return tmp_path / "serving"


def read(path):
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        return {member.name: archive.extractfile(member).read() if member.isfile() else None for member in members}


def test_a_model_and_its_configuration(base_path, tmp_path, run_command):
    config = tmp_path / "models.config"
    config.write_bytes(b"config")
    output = tmp_path / "layer.tar"
    entries = [f"--entry=models/squeezenet={base_path}", f"--entry=models/models.config={config}"]
    run_command(serving_tar, f"--output={output}", *entries)
    content = read(output)
    assert content == {
        "models": None,
        "models/models.config": b"config",
        "models/squeezenet": None,
        "models/squeezenet/7": None,
        "models/squeezenet/7/saved_model.pb": b"graph",
        "models/squeezenet/7/variables": None,
        "models/squeezenet/7/variables/variables.index": b"index",
    }
    assert list(content) == sorted(content)
    with tarfile.open(output) as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o755 if member.isdir() else 0o644)


def test_times_modes_links_and_order_do_not_matter(base_path, tmp_path):
    entries = [("models/a", base_path), ("models/b", base_path)]
    serving_tar.pack(tmp_path / "1.tar", entries)
    os.utime(base_path / "7" / "saved_model.pb", (1, 1))
    (base_path / "7" / "saved_model.pb").chmod(0o600)
    os.rename(base_path / "7" / "variables", tmp_path / "elsewhere")
    (base_path / "7" / "variables").symlink_to(tmp_path / "elsewhere")
    serving_tar.pack(tmp_path / "2.tar", entries[::-1])
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_versions_of_one_model_are_joined(base_path, tmp_path):
    (tmp_path / "other" / "8").mkdir(parents=True)
    serving_tar.pack(tmp_path / "layer.tar", [("models/a", base_path), ("models/a", tmp_path / "other")])
    assert {"models/a/7", "models/a/8"} < set(read(tmp_path / "layer.tar"))


def test_wrong_entries_leave_no_file(base_path, tmp_path, run_command):
    output = tmp_path / "layer.tar"
    for wrong in ("/models", "../models", "a/../../b", ""):
        with pytest.raises(ValueError, match="below its root"):
            serving_tar.pack(output, [(wrong, base_path)])
    with pytest.raises(ValueError, match=r"Two files would be models/7/saved_model\.pb"):
        serving_tar.pack(output, [("models", base_path), ("models", base_path)])
    with pytest.raises(OSError, match="missing"):
        serving_tar.pack(output, [("models", tmp_path / "missing")])
    with pytest.raises(ValueError, match="PATH_IN_TAR"):
        run_command(serving_tar, f"--output={output}", f"--entry={base_path}")
    assert sorted(os.listdir(tmp_path)) == ["serving"]
