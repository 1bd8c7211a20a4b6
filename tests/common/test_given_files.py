"""Files that a user names: what is no regular file is refused at once, and nothing is read that a size does not say."""

import os
import socket
import time

import pytest

from clasp_calib.common.errors import ArtifactError, InputError
from clasp_calib.common.given_files import check_regular, decoded, inside, read_given


def test_a_regular_file_is_read_whole_up_to_its_limit(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 9)
    assert check_regular(path) == 9
    assert read_given(path, 9) == b"x" * 9
    with pytest.raises(ArtifactError, match=r"the thing .*f has 9 bytes, more than the 8 that one may have; divide it"):
        read_given(path, 8, "thing", ArtifactError)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        for path, kind in (
            (tmp_path / "pipe", "a pipe; give a regular file"),
            (tmp_path, "a directory; give"),
            (tmp_path / "door", "a socket; give"),
            ("/dev/zero", "a device; give"),
            (tmp_path / "none", "No such file"),
            ("a\0b", r"'a\\x00b' of the file holds a null character"),
        ):
            for look in (check_regular, lambda one: read_given(one, 100)):
                with pytest.raises(InputError, match=kind):
                    look(path)
    assert time.monotonic() - started < 2


def test_a_file_without_a_size_is_empty():
    assert os.stat("/proc/self/maps").st_size == 0
    assert read_given("/proc/self/maps", 100) == b""


def test_a_pipe_that_takes_a_files_place_does_not_block(tmp_path, monkeypatch):
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_bytes(b"x")
    before, look = file.stat(), os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: before if path == os.fspath(pipe) else look(path, **more))
    with pytest.raises(InputError, match=r"cannot read the file .*pipe \(it is a pipe"):
        read_given(os.fspath(pipe), 100)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_the_encoding_that_its_mark_names(encoding):
    assert decoded("één\nzwei".encode(encoding)) == "één\nzwei"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb\ncafé".encode("latin-1"), r"line 3 is not UTF-8 \(byte 0xe9\); save"),
        ("a\nb".encode("utf-16-le"), "line 1 holds a null byte"),
        (b"a\nb\n\0", "line 3 holds a null byte"),
        (b"\xff\xfea", "line 1 is not UTF-16"),
    ],
)
def test_text_in_no_known_encoding_is_refused_with_its_line(content, message):
    with pytest.raises(ValueError, match=message):
        decoded(content)


def test_a_place_is_inside_where_links_and_dots_end_there(tmp_path):
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    (home / "out").symlink_to(tmp_path)
    (home / "in").symlink_to(home / "deep")
    (home / "loop").symlink_to(home / "loop")
    for path in ("a.png", "deep/../a.png", "in/a.png", str(home / "a.png")):
        assert inside(path, home), path
    for path in ("../a.png", "/etc/passwd", "out/a.png", "deep/../../a.png", "a\0b", "loop/a.png"):
        assert not inside(path, home), path
