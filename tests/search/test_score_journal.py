"""The journal of a search: what was scored stays scored, and is valid for whoever asks next."""

import json

import pytest
import xxhash

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.search.score_journal import JOURNAL, ScoreJournal

BOTH = [Candidate("own", (0.0, 1.0), 1.0), Candidate("deep", (0.1, 0.9), 0.5)]
SETTING = {"prompt": "p", "schedule": {"starts": (2, 6), "tokens": 16}}


@pytest.fixture
def opened():
    """Opens journals, one at a time as processes do, and closes them."""
    last = []

    def open_(root):
        while last:
            last.pop().close()
        last.append(ScoreJournal(root))
        return last[-1]

    yield open_
    for journal in last:
        journal.close()


def filled(journal, samples=3):
    journal.settle("8", SETTING)
    for sample in range(samples):
        journal.record(f"metric {sample}", BOTH, Scores((1.0, sample / 3), (0.1, 1e-5 * sample)))
    return journal


def test_what_was_recorded_is_read_back_as_it_was_when_it_was_new(tmp_path, opened):
    keys = [f"metric {sample}" for sample in range(3)]
    new = filled(opened(tmp_path)).scores(keys, BOTH[::-1])
    journal = opened(tmp_path)
    assert journal.count(["metric 0", "metric 2", "metric 9"]) == 4
    assert journal.scores(keys, BOTH[::-1]).tolist() == new.tolist()
    # Rounded, so that the last bits of a forward decide nothing.
    assert new.tolist() == [[[round(n / 3, 6), 1e-5 * n], [1.0, 0.1]] for n in range(3)]
    stranger = Candidate("own", (0.0, 1.0), 0.999)
    assert journal.known("metric 1", [stranger, *BOTH]) == BOTH
    assert journal.known("metric 3", BOTH) == []
    assert journal.scores([], BOTH).shape == (0, 2, 2)
    assert (
        str(journal.scores(["metric 1", "metric 9"], [BOTH[0], stranger])[..., 0].tolist())
        == "[[1.0, nan], [nan, nan]]"
    )


def test_a_candidate_is_what_it_mixes_and_not_what_it_is_called(tmp_path, opened):
    filled(opened(tmp_path))
    renamed = [Candidate("x", (0.1, 0.9), 0.5), Candidate("y", (0.1, 0.9 + 1e-16), 0.5)]
    assert opened(tmp_path).known("metric 0", renamed) == renamed[:1]


def test_a_score_may_have_no_likelihood_and_a_sample_several_lines(tmp_path, opened):
    journal = opened(tmp_path)
    journal.record("a", BOTH[:1], Scores((0.5,)))
    journal.record("a", BOTH[1:], Scores((1.0,), (2.0,)))
    for of in (journal, opened(tmp_path)):
        assert str(of.scores(["a"], BOTH).tolist()) == "[[[0.5, nan], [1.0, 2.0]]]"


def test_a_setting_is_kept_by_name_and_another_is_named(tmp_path, opened):
    filled(opened(tmp_path))
    journal = opened(tmp_path)
    journal.settle("8", SETTING)
    journal.settle("9", {"prompt": "another"})
    changed = {"prompt": "q", "schedule": {"starts": (2, 7), "tokens": 16, "more": None}}
    with pytest.raises(
        StudyError,
        match=r"budget '8' in .*scores\.jsonl were recorded with other settings: prompt was 'p', is now 'q'; "
        r"schedule\.starts was \[2, 6\], is now \[2, 7\]; search with those again, give another --run, or remove",
    ):
        journal.settle("8", changed)


def test_without_a_directory_scores_are_kept_in_memory(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    assert filled(opened(None)).count(["metric 0"]) == 2
    assert opened(None).count(["metric 0"]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [b"{}", b"[]"])
def test_a_line_that_says_nothing_is_damaged(tmp_path, text):
    (tmp_path / JOURNAL).write_bytes(b"%s %s\n" % (xxhash.xxh64_hexdigest(text).encode(), text))
    with pytest.raises(StudyError, match=r"line 1 of the journal .*remove the line to measure it again"):
        ScoreJournal(tmp_path)


def test_lines_are_json_behind_a_checksum(tmp_path, opened):
    filled(opened(tmp_path), samples=1)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    for line in lines:
        checksum, text = line.split(" ", 1)
        assert checksum == xxhash.xxh64_hexdigest(text.encode())
    assert [json.loads(line.split(" ", 1)[1]) for line in lines] == [
        {"budget": "8", "setting": {"prompt": "p", "schedule": {"starts": [2, 6], "tokens": 16}}},
        {
            "sample": "metric 0",
            "candidates": ["1.0*1 rho=1.0", "0.1*0+0.9*1 rho=0.5"],
            "score": [1.0, 0.0],
            "nll": [0.1, 0.0],
        },
    ]


def test_a_search_writes_to_it_alone(tmp_path, opened):
    opened(tmp_path)
    with pytest.raises(StudyError, match=r"another process is writing to .*wait for it, or give another --run"):
        ScoreJournal(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot use .*; give another --run"):
        ScoreJournal(tmp_path / "file" / "study")


def test_what_an_earlier_version_recorded_is_refused(tmp_path):
    lines = [{"study": "8/race/object", "setup": "9c0e"}, {"study": "8/race/object", "begun": "9c0e"}]
    for line in map(json.dumps, lines):
        (tmp_path / JOURNAL).write_text(f"{xxhash.xxh64_hexdigest(line.encode())} {line}\n")
        with pytest.raises(StudyError, match=r"another version .* give another --run, or remove the file") as told:
            ScoreJournal(tmp_path)
        assert "line" not in str(told.value)
    (tmp_path / JOURNAL).write_text(f"{json.dumps(lines[0])}\n")
    with pytest.raises(StudyError, match=r"another version .*its lines have no checksums.*remove the file"):
        ScoreJournal(tmp_path)


@pytest.mark.parametrize("score", ["1.0", True, float("nan"), [0.5], None])
def test_a_score_that_is_no_number_is_refused(tmp_path, opened, score):
    filled(opened(tmp_path)).close()
    line = json.dumps({"sample": "metric 0", "candidates": [BOTH[0].key], "score": [score], "nll": None})
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(f"{xxhash.xxh64_hexdigest(line.encode())} {line}\n")
    with pytest.raises(StudyError, match="line 5"):
        opened(tmp_path)
