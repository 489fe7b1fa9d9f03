import concurrent.futures
import errno
import os

import pytest

from sqz_keras.files import write_file


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "trials.json"

    def write(number):
        for _ in range(40):
            write_file(path, bytes([number]) * 5000)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    written = path.read_bytes()
    assert len(written) == 5000 and len(set(written)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*trials\.json'$"):
        write_file(tmp_path / "trials.json", b"[]")
    assert list(tmp_path.iterdir()) == []
