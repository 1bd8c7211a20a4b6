"""The journal of a search: what was scored stays scored, and is valid for whoever asks next."""

import json

import pytest
import xxhash
from made_searches import Fake, candidates, desk

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.search.identity import Identity
from clasp_calib.search.local_workers import InProcess
from clasp_calib.search.score_journal import JOURNAL, ScoreJournal
from clasp_calib.search.session import Session
from clasp_calib.search.shown import Trials
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.two_step import TwoStep

STUDY = "8/race/object"
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
    journal.begin(STUDY, "setup", {}, BOTH)
    for sample in range(samples):
        journal.record(f"metric {sample}", BOTH, Scores((1.0, sample / 3), (0.1, 1e-17 * sample)))
    return journal


def test_what_was_recorded_is_read_back_bit_for_bit(tmp_path, opened):
    filled(opened(tmp_path))
    journal = opened(tmp_path)
    assert journal.count(["metric 0", "metric 2", "metric 9"]) == 4
    for sample in range(3):
        scores = journal.scores([f"metric {sample}"], BOTH[::-1])
        assert scores.tolist() == [[[sample / 3, 1e-17 * sample], [1.0, 0.1]]]
    stranger = Candidate("own", (0.0, 1.0), 0.999)
    assert journal.known("metric 1", [stranger, *BOTH]) == BOTH
    assert journal.known("metric 3", BOTH) == []
    assert journal.scores([], BOTH).shape == (0, 2, 2)


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


def test_the_setup_of_a_study_is_that_of_its_last_beginning(tmp_path, opened):
    journal = filled(opened(tmp_path))
    size = (tmp_path / JOURNAL).stat().st_size
    journal.begin(STUDY, "setup", {}, BOTH)
    assert (tmp_path / JOURNAL).stat().st_size == size
    journal.begin(STUDY, "grown", {}, BOTH)
    assert opened(tmp_path).setup(STUDY) == "grown"
    assert opened(tmp_path).setup("9/race/object") is None


def test_without_a_directory_scores_are_kept_in_memory(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    assert filled(opened(None)).count(["metric 0"]) == 2
    assert opened(None).count(["metric 0"]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"study":"x","sample":"a","candidates":["b"],"score":[],"nll":null}'])
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
        {"begun": "setup", "study": STUDY},
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


def noise(split, number, sample):
    return hash((number, sample, split == "selection")) % 3 == 0


def searched(root, strategy, worth=noise, life=10**9, **more):
    """Choices of a session, what was asked for them, and the exhaustive choices."""
    fake, at = Fake(worth, life), desk(root, **more)
    session = Session(at, strategy, 0, False, lambda name: Trials())
    try:
        session.begin()
        return session.search(InProcess(fake)), fake.asked, session.exhaustive()
    finally:
        at.journal.close()


def test_the_exhaustive_choice_is_there_once_an_exhaustive_search_was(tmp_path):
    _, asked, exhaustive = searched(tmp_path, TwoStep())
    assert asked
    assert exhaustive == {}
    choices, asked, exhaustive = searched(tmp_path, Grid())
    assert asked
    assert [c.candidate for c in exhaustive.values()] == [c.candidate for c in choices.values()]
    _, asked, again = searched(tmp_path, TwoStep())
    assert asked == []
    assert again == exhaustive
    assert (again["object"].courses, again["object"].gain) == (choices["object"].courses, choices["object"].gain)
    # Of other samples it says nothing, whatever is known of these.
    assert searched(tmp_path, TwoStep(), calibration=11)[2] == {}


def test_an_exhaustive_search_that_was_killed_decides_nothing(tmp_path):
    for life, complete in ((3, False), (18, False), (10**9, True)):  # In the middle of each split.
        if not complete:
            with pytest.raises(KeyboardInterrupt):
                searched(tmp_path, Grid(), life=life)
        else:
            searched(tmp_path, Grid())
        at = desk(tmp_path)
        assert bool(Session(at, TwoStep(), 0, False, lambda name: Trials()).exhaustive()) == complete
        at.journal.close()


def older(path, asked, setup, strategy="grid"):
    """Rewrites a journal as versions before named settings wrote it: by study, sample and name."""
    study, names = f"8/{strategy}/object", {c.key: c.name for c in candidates(6)}
    lines = [{"study": study, "setup": setup}]
    for line in path.read_text().splitlines():
        entry = json.loads(line.split(" ", 1)[1])
        if "sample" in entry:
            _, way, content = entry["sample"].split(" ", 2)
            split = "generated selection" if way == "generated" else "calibration"
            lines.append(
                {
                    **entry,
                    "study": study,
                    "sample": f"{split}/{content.removeprefix('content of ')}",
                    "candidates": [names[key] for key in entry["candidates"]],
                }
            )
    texts = [json.dumps(line, sort_keys=True, separators=(",", ":")) for line in lines]
    path.write_text("".join(f"{xxhash.xxh64_hexdigest(text.encode())} {text}\n" for text in texts))


def test_what_an_earlier_version_recorded_is_taken_up(tmp_path):
    expected, asked, exhaustive = searched(tmp_path, Grid())
    path, setup = tmp_path / JOURNAL, desk(None).identity.setup("object", Grid(), 0)
    older(path, asked, setup)
    before = path.read_bytes()
    for strategy in (TwoStep(), Grid(), Grid()):
        choices, asked, again = searched(tmp_path, strategy)
        assert asked == []
        assert again == exhaustive
        assert path.read_bytes().startswith(before)
    assert choices == expected
    # From then on they are like any others.
    _, asked, _ = searched(tmp_path, Grid(), calibration=13)
    assert {sample for _, sample in asked if sample.startswith("calibration")} == {"calibration/12"}


def test_what_an_earlier_version_recorded_under_other_settings_is_refused(tmp_path):
    _, asked, _ = searched(tmp_path, Grid())
    older(tmp_path / JOURNAL, asked, "another setup")
    with pytest.raises(
        StudyError,
        match=r"'8/grid/object' in .* by an earlier version .* a digest only \(another setup, now [0-9a-f]{64}\): .*"
        r"search once with those of then",
    ):
        searched(tmp_path, Grid())
    # The exhaustive search of other settings is no hindrance to another strategy.
    _, asked, exhaustive = searched(tmp_path, TwoStep())
    assert asked
    assert exhaustive == {}


def test_setups_are_those_of_earlier_versions():
    pruning = {"raters": "r", "positions": "keep", "features": "projected", "iterations": 5}
    schedule = {"tokens": 16, "layers": 17, "starts": (2, 6, 15), "counts": (9, 6, 5)}
    same = {"scoring": 2, "text": {"eps": 0.1}, "weights": "w"}
    of = Identity({**same, "prompt": "p", "pruning": pruning, "schedule": schedule}, {}, {"object": "s"}, "c", "metric")
    assert of.setup("object", TwoStep(), 3) == sha256_json(
        {
            **same,
            "pruning": ["r", "keep", "projected", 5],
            "schedule": [16, 17, [2, 6, 15], [9, 6, 5]],
            "space": "c",
            "samples": "s",
            "objective": "metric",
            "strategy": "two-step, rho 0.5",
            "seed": 3,
        }
    )


@pytest.mark.parametrize("score", ["1.0", True, float("nan"), [0.5], None])
def test_a_score_that_is_no_number_is_refused(tmp_path, opened, score):
    filled(opened(tmp_path)).close()
    line = json.dumps({"sample": "metric 0", "candidates": [BOTH[0].key], "score": [score], "nll": None})
    with (tmp_path / JOURNAL).open("a") as file:
        file.write(f"{xxhash.xxh64_hexdigest(line.encode())} {line}\n")
    with pytest.raises(StudyError, match="line 6"):
        opened(tmp_path)
