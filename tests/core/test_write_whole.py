"""Files that are whole, whoever writes them at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_jsigr.core.write_whole import whole_file, write_whole


def test_threads_that_write_one_file(tmp_path):
    path, contents = tmp_path / "file", [bytes([n]) * 300_000 for n in range(4)]

    def write_and_read(content):
        for _ in range(10):
            write_whole(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_read, contents))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"old")

    def fail():
        with whole_file(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert len(list(path.parent.iterdir())) == 1
