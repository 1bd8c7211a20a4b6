"""Files that are replaced whole, and what is no file is not."""

import os
import socket

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.replacing import replaced


def write(path, text="new"):
    with replaced(path) as partial:
        partial.write_text(text)


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "numbers.json"
    write(path, "old")
    with pytest.raises(UnicodeEncodeError), replaced(path) as partial:
        partial.write_text("half" * 10_000 + "\udc80", encoding="utf-8")
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced(tmp_path):
    """As root, a rename would put a file in the place of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as heard:
        heard.bind(os.fspath(tmp_path / "socket"))
        for name, kind in {"pipe": "a pipe", "folder": "a directory", "link": "a pipe", "socket": "a socket"}.items():
            before = (tmp_path / name).lstat()
            with pytest.raises(InputError, match=f"the output .*{name} is {kind}"):
                write(tmp_path / name)
            assert os.path.samestat((tmp_path / name).lstat(), before)
