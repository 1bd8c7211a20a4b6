"""What a crew scores for a study: recorded, taken up, never asked twice."""

import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from clasp_calib.baselines.cdpruner import CDPruner
from clasp_calib.baselines.registry import METHODS, method
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.score_tasks import ScoreTask
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.entrants import ByMethod, ByQuestion, nothing
from clasp_calib.calib.studies.own_entrants import AsSet, AtRandom
from clasp_calib.calib.studies.scorer import UNIT, ScoreLedger, Scorer, units_of
from clasp_calib.common.errors import StudyError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.runtime.schedule import RelativeSchedule, Schedule, parse_budget

IDENTITY = {"model": "tiny"}
OWN, OTHER = Candidate("own", (1.0, 0.0), 1.0), Candidate("other", (0.5, 0.5), 0.3)
PRUNING = Pruning(Schedule(16, 17, (2, 6, 15), (8, 4, 2)))


class Fake:
    """Scores by the sample's number; stops the process after ``life`` calls."""

    def __init__(self, life=10**9):
        self.life, self.asked = life, []

    def scores(self, sample, candidates, pruning):
        if self.life == 0:
            raise KeyboardInterrupt
        self.life -= 1
        self.asked.append((sample.id, pruning))
        return Scores(tuple(int(sample.id) + candidate.rho for candidate in candidates))


def tasks(folder, count, pictures):
    """Two tasks of each sample; samples take turns in being of so many pictures."""
    for number in range(pictures):
        (folder / f"{number}.png").write_text(f"picture {number}")
    samples = [Sample(f"{n}", "?", folder / f"{n * pictures // count}.png", ("yes",)) for n in range(count)]
    return [ScoreTask(s, (OWN, OTHER), pruning) for s in samples for pruning in (Pruning(None), PRUNING)]


def scored(fake, ledger, asked):
    return Scorer(InProcess(fake), ledger).scores(asked)


@pytest.mark.parametrize("life", [0, 1, 7, 19])
def test_an_interrupted_call_goes_on(life, tmp_path):
    asked = tasks(tmp_path, 10, 4)
    alone = scored(Fake(), None, asked)
    assert alone == [(int(task.sample.id) + 1, int(task.sample.id) + 0.3) for task in asked]
    first, second = Fake(life), Fake()
    with ScoreLedger(tmp_path / "kept", IDENTITY) as ledger, pytest.raises(KeyboardInterrupt):
        scored(first, ledger, asked)
    with ScoreLedger(tmp_path / "kept", IDENTITY) as ledger:
        kept = len(ledger)
        assert scored(second, ledger, asked) == alone
        assert len(second.asked) == len(asked) - kept
        ledger.discard()
    assert not list((tmp_path / "kept").iterdir())
    in_flight = life - kept
    assert 0 <= in_flight < 2 * 3, "no more than one picture's"


def test_what_stands_twice_is_asked_once(tmp_path):
    fake, asked = Fake(), tasks(tmp_path, 3, 1)
    assert scored(fake, None, [*asked, *asked])[: len(asked)] == scored(Fake(), None, asked)
    assert len(fake.asked) == len(asked)


@given(st.lists(st.integers(1, 2 * UNIT + 1), max_size=5))
def test_a_unit_is_of_one_picture_and_not_too_large(sizes):
    asked = [
        (f"{picture} {number}", ScoreTask(Sample("s", "?", f"{picture}.png"), (OWN,), PRUNING))
        for picture, size in enumerate(sizes)
        for number in range(size)
    ]
    units = list(units_of(asked))
    assert [pair for unit in units for pair in unit.items()] == asked
    assert all(len({task.sample.media for task in unit.values()}) == 1 and len(unit) <= UNIT for unit in units)
    for unit, following in pairwise(units):
        together = {task.sample.media for task in (*unit.values(), *following.values())}
        assert len(unit) == UNIT or len(together) == 2


def test_scores_are_kept_under_all_that_they_are_of(tmp_path):
    task = tasks(tmp_path, 1, 1)[1]
    (tmp_path / "same.png").write_text("picture 0")
    (tmp_path / "other.png").write_text("another")
    schedule = PRUNING.schedule
    options = PruningOptions(raters="all")
    with ScoreLedger(tmp_path / "kept", IDENTITY) as ledger:
        key = ledger.key(task)
        for sample in ({"image": tmp_path / "same.png"}, {"label": "text"}, {"split": "test"}):
            assert ledger.key(replace(task, sample=replace(task.sample, **sample))) == key
        assert ledger.key(replace(task, candidates=(replace(OWN, prototype="x"), OTHER))) == key
        others = [
            *(
                replace(task, sample=replace(task.sample, **change))
                for change in (
                    {"id": "x"},
                    {"question": "x"},
                    {"answers": ("no",)},
                    {"metric": "vqa"},
                    {"image": tmp_path / "other.png"},
                )
            ),
            *(replace(task, candidates=of) for of in ((OWN,), (OTHER, OWN), (OWN, replace(OTHER, drawn=1)))),
            *(
                replace(task, pruning=of)
                for of in (
                    Pruning(None),
                    replace(PRUNING, options=options),
                    replace(PRUNING, schedule=replace(schedule, counts=(8, 4, 1))),
                    replace(PRUNING, schedule=RelativeSchedule(parse_budget("50%"), 17, (2, 6, 15))),
                )
            ),
        ]
        assert len({key, *map(ledger.key, others)}) == 1 + len(others)


def test_a_ledger_is_of_one_call_and_refuses_damage(tmp_path):
    asked = tasks(tmp_path, 2, 1)
    with ScoreLedger(tmp_path / "kept", IDENTITY) as ledger:
        scored(Fake(), ledger, asked)
        with pytest.raises(StudyError, match="another process is writing to"):
            ScoreLedger(tmp_path / "kept", IDENTITY)
        with ScoreLedger(tmp_path / "kept", {"model": "another"}) as other:
            assert len(other) == 0
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    with pytest.raises(StudyError, match=r"line 2 of .* is damaged"):
        ScoreLedger(tmp_path / "kept", IDENTITY)


def test_all_that_other_processes_are_asked_can_be_sent_to_them(tmp_path):
    setting = Setting("calibrated", PRUNING, {"object": OTHER})
    questioned = ByQuestion(CDPruner(keep="6"), {"one": (3, 4)}, None)
    for one in (
        nothing,
        AsSet(setting),
        AtRandom(setting),
        questioned,
        *(ByMethod(method(name)) for name in METHODS),
        *tasks(tmp_path, 1, 1),
    ):
        assert pickle.loads(pickle.dumps(one)) == one
