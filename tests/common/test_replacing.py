"""Files that are replaced whole, also by several at once, and what is no file is not."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from threading import Barrier

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.replacing import clear_leftovers, replaced


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


def test_two_at_once_write_each_their_own_and_the_last_to_end_wins(tmp_path):
    path = tmp_path / "config.json"
    with replaced(path) as first:
        first.write_text("first")
        write(path, "second")
        assert path.read_text() == "second"
        first.write_text(first.read_text() + ", to the end")
    assert path.read_text() == "first, to the end"
    assert list(tmp_path.iterdir()) == [path]


def test_many_at_once_never_meet(tmp_path):
    path, start = tmp_path / "config.json", Barrier(8)

    def writes(number):
        start.wait()
        for _ in range(20):
            write(path, str(number) * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(writes, range(8)))
    text = path.read_text()
    assert text in {digit * 10_000 for digit in "01234567"}
    assert list(tmp_path.iterdir()) == [path]


def _killed(path):
    with replaced(path) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    path = tmp_path / "a[1].json"
    child = get_context("spawn").Process(target=_killed, args=(path,))
    child.start()
    child.join()
    (left,) = tmp_path.iterdir()
    clear_leftovers(tmp_path, "other*")
    with replaced(path) as partial:
        assert not left.exists()
        partial.write_text("whole")
        clear_leftovers(tmp_path, "*")
        assert partial.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_what_others_have_beside_it_is_theirs(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.json.1.tmp").symlink_to("folder")
    (tmp_path / "a.json.2.tmp").write_text("mine")
    write(tmp_path / "a.json")
    assert (tmp_path / "a.json.1.tmp").is_dir()
    assert (tmp_path / "a.json.2.tmp").read_text() == "mine"


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
