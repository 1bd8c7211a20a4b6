"""The append-only journal: torn tails, damage, two writers, reading while another writes."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import xxhash

from clasp_calib.common.errors import CacheError, StudyError
from clasp_calib.common.journal import Journal, JournalKind, number

KIND = JournalKind(StudyError, mend="measure again", elsewhere="give another --run")
OLD = JournalKind(StudyError, plain=True)
ENTRIES = [{"a": 1}, ["é", "\udc80", "\u2028"], {"b": [0.1, 1e-17, None]}, "text"]


def read(path, kind=KIND, **more):
    """The values of a journal, without writing."""
    found = []
    Journal(path, found.append, kind, writable=False, **more).close()
    return found


def write(path, entries, kind=KIND, **more):
    found = []
    with Journal(path, found.append, kind, **more) as journal:
        for entry in entries:
            journal.append(entry)
    return found


def test_what_was_appended_is_read_back(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    assert write(path, ENTRIES[:2]) == ENTRIES[:2]
    assert write(path, ENTRIES[2:]) == ENTRIES == read(path)
    for line in path.read_bytes().splitlines():
        checksum, text = line.decode().split(" ", 1)
        assert checksum == xxhash.xxh64_hexdigest(text.encode())


def test_without_a_place_it_is_kept_by_nobody(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write(None, ENTRIES) == ENTRIES
    assert write(None, ENTRIES, head={"of": "x"}) == ENTRIES
    assert not list(tmp_path.iterdir())


def test_it_may_end_anywhere(tmp_path):
    """A kill tears the last line at most; readers pass over it, and the next line does not stick to it."""
    write(tmp_path / "whole", ENTRIES)
    whole = (tmp_path / "whole").read_bytes()
    torn = tmp_path / "torn"
    for cut in range(len(whole) + 1):
        torn.write_bytes(whole[:cut])
        left = whole[:cut].count(b"\n")
        assert read(torn) == ENTRIES[:left]
        assert torn.read_bytes() == whole[:cut], "a reader wrote"
        assert write(torn, ENTRIES[left:]) == ENTRIES
        assert torn.read_bytes() == whole


def test_every_changed_byte_is_found(tmp_path):
    path = tmp_path / "a"
    write(path, ENTRIES)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if place == len(whole) - 1:  # The end of the last line: it is torn.
            assert read(path) == ENTRIES[:-1]
            continue
        line = whole[:place].count(b"\n") + 1
        with pytest.raises(StudyError, match=rf"line {line} of the journal .*/a is damaged \(.*\); measure again"):
            read(path)
    path.write_bytes(whole)
    assert read(path) == ENTRIES


@pytest.mark.parametrize(
    "error", [ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, StudyError]
)
def test_what_nobody_can_take_is_damaged_and_lets_another_write(tmp_path, error):
    write(tmp_path / "a", ENTRIES)

    def take(entry):
        if entry == ENTRIES[2]:
            raise error("strange")

    for writable in (True, False):
        with pytest.raises(StudyError, match=r"line 3 of the journal .* is damaged \('?strange'?\)"):
            Journal(tmp_path / "a", take, KIND, writable=writable)
    write(tmp_path / "a", [])


def test_lines_of_earlier_versions_are_read_before_others(tmp_path):
    path = tmp_path / "old"
    plain = b'{"a": 1}\n{"a":2}\n'
    path.write_bytes(plain + b'{"a": ')
    assert read(path, OLD) == [{"a": 1}, {"a": 2}]
    assert write(path, [{"a": 3}], OLD) == [{"a": 1}, {"a": 2}, {"a": 3}] == read(path, OLD)
    assert path.read_bytes().startswith(plain)
    with pytest.raises(StudyError, match=r"another version .*its lines have no checksums"):
        read(path)
    path.write_bytes(path.read_bytes() + b'{"a": 4}\n')
    with pytest.raises(StudyError, match=r"line 4 of the journal .*its checksum"):
        read(path, OLD)


def test_a_head_says_what_a_journal_is_of(tmp_path):
    head, path = {"of": ("x", 1)}, tmp_path / "a"
    assert write(path, ENTRIES, head=head) == ENTRIES == read(path, head=head)
    assert read(path)[0] == {"of": ["x", 1]}
    with pytest.raises(StudyError, match=r"/a was begun for something else; remove it"):
        write(path, [], head={"of": ("y", 1)})


def test_a_reader_follows_a_writer(tmp_path):
    path, found, restarts = tmp_path / "a", [], []
    with Journal(path, lambda _: None, KIND) as writer:
        reader = Journal(path, found.append, KIND, writable=False, restart=lambda: restarts.append(found.clear()))
        for number, entry in enumerate(ENTRIES, start=1):
            reader.refresh()
            assert len(found) == number - 1
            writer.append(entry)
            reader.refresh()
            assert (found, reader.size) == (ENTRIES[:number], writer.size)
        with path.open("ab") as file:
            file.write(b"half")
        reader.refresh()
        assert (found, restarts) == (ENTRIES, [])
    write(tmp_path / "other", [*ENTRIES, *ENTRIES])
    (tmp_path / "other").replace(path)
    reader.refresh()
    assert (found, len(restarts)) == (ENTRIES * 2, 1)
    write(path, [])
    path.write_bytes(path.read_bytes()[:-1])  # An append that was undone.
    reader.refresh()
    assert (found, len(restarts)) == ((ENTRIES * 2)[:-1], 2)
    path.unlink()
    with pytest.raises(StudyError, match=r"cannot read .*No such file"):
        reader.refresh()


HOLD = """
import sys, time
from pathlib import Path
from clasp_calib.common.errors import StudyError
from clasp_calib.common.journal import Journal, JournalKind, number
with Journal(Path(sys.argv[1]), lambda entry: None, JournalKind(StudyError)) as journal:
    for number in range(100000):
        journal.append({"number": number, "much": "x" * 1000})
        if number == 3:
            print("held", flush=True)
"""


def test_there_is_one_writer_at_a_time_whom_readers_do_not_disturb_and_a_kill_frees_it(tmp_path):
    path, found = tmp_path / "a", []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match=r"another process is writing to .*/a; wait for it, or give another --run"):
            write(path, [])
        reader = Journal(path, lambda entry: found.append(entry["number"]), KIND, writable=False)
        for _ in range(200):
            reader.refresh()
        os.kill(holder.pid, signal.SIGKILL)
    reader.refresh()
    assert found == list(range(len(found)))
    with Journal(path, lambda _: None, KIND) as writer:
        assert writer.size == path.stat().st_size
    assert len(read(path)) == len(found)


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot use .*/file/a \(File exists\); give another --run"):
        write(tmp_path / "file" / "a", [])
    with pytest.raises(StudyError, match=r"cannot use .*/none \(No such file"):
        read(tmp_path / "none")


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_line_that_could_not_be_written_leaves_no_trace(tmp_path, monkeypatch, call, error):
    path, found = tmp_path / "a", []
    kind = JournalKind(CacheError, elsewhere="choose another place", synced=True)
    with Journal(path, found.append, kind) as journal:
        journal.append(ENTRIES[0])
        plain = getattr(os, call)

        def half(descriptor, *more):
            if call == "pwrite" and len(more[0]) > 10:
                return plain(descriptor, more[0][:10], more[1])
            raise error

        monkeypatch.setattr(os, call, half)
        expected = CacheError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match="make room or choose" if expected is CacheError else None):
            journal.append(ENTRIES[2])
        monkeypatch.undo()
        assert read(path) == found == ENTRIES[:1]
        journal.append(ENTRIES[3])
    assert read(path) == [ENTRIES[0], ENTRIES[3]]


def test_a_short_write_goes_on(tmp_path, monkeypatch):
    plain = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, line, at: plain(file, line[:3], at))
    write(tmp_path / "a", ENTRIES)
    assert read(tmp_path / "a") == ENTRIES


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "a", [float("nan")])
    assert json.loads("[]") == read(tmp_path / "a")


@pytest.mark.parametrize("text", [b"[" * 100_000, b"1" * 5000, b"\xff"])
def test_a_line_that_takes_a_parser_down_is_damaged(tmp_path, text):
    checksum = xxhash.xxh64_hexdigest(text).encode()
    (tmp_path / "a").write_bytes(b"%s %s\n" % (checksum, text))
    for writable in (True, False):
        with pytest.raises(StudyError, match=r"line 1 of the journal .* is damaged"):
            Journal(tmp_path / "a", print, KIND, writable=writable)


@pytest.mark.parametrize("writable", [True, False])
def test_a_pipe_is_no_journal(tmp_path, writable):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(StudyError, match=r"the journal .* is a pipe"):
        Journal(tmp_path / "a", print, KIND, writable=writable)


@pytest.mark.parametrize("value", [None, "1", [1], True, {}])
def test_what_is_no_number_is_said(value):
    assert (number(1), number(0.5)) == (1.0, 0.5)
    with pytest.raises(TypeError, match="is no number"):
        number(value)
