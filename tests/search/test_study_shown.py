"""What Optuna is shown of a search, in each of its storages."""

import os
from dataclasses import replace

import optuna
import pytest
from made_searches import Fake, candidates, session
from optuna.trial import TrialState

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import StudyError
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.search.optuna_study import Study, open_storage
from clasp_calib.search.strategies.halving import Halving


def trials(url, name="192/race/object 12345678"):
    study = optuna.load_study(study_name=name, storage=open_storage(url))
    return {trial.user_attrs["candidate"]: trial for trial in study.get_trials()}


@pytest.fixture(params=["journal:{}/journal.log", "sqlite:///{}/study.db"])
def url(request, tmp_path):
    return request.param.format(tmp_path)


def test_candidates_are_trials_with_a_report_a_block(url):
    for _ in range(2):  # The second time, as after a kill, nothing is new.
        study = Study(open_storage(url), "192/race/object 12345678", (0, 1))
        own, one, two, _unseen = candidates(4)
        for candidate in (own, one, two):
            study.report(candidate, 4, 0.25)
        study.report(own, 8, 0.5)
        study.reject(one)
        study.reject(candidates(4)[3])
        study.complete(own, 0.5)
        found = trials(url)
        assert list(found) == ["own/rho=1", "p1/rho=0.5", "p2/rho=0.5"]
        states = [(t.state, t.value, t.intermediate_values) for t in found.values()]
        assert states == [
            (TrialState.COMPLETE, 0.5, {4: 0.25, 8: 0.5}),
            (TrialState.PRUNED, 0.25, {4: 0.25}),
            (TrialState.RUNNING, None, {4: 0.25}),
        ]
        assert found["p1/rho=0.5"].params == {"layer 0": 1.0, "layer 1": 0.001, "rho": 0.5}


def test_the_selector_is_a_parameter_where_there_are_several(url, capsys):
    solved = SelectorChoice.of("fastv", {"layer": 2, "ratio": 0.1875})
    fastv = Candidate("a", (1.0, 0.0), 1.0, selector=solved, called="fastv layer=2")
    own, one, two = candidates(3)
    # As they were shown before.
    Study(open_storage(url), "old", (0, 1)).report(one, 4, 0.5)
    for name in ("new", "old"):
        study = Study(open_storage(url), name, (0, 1), ("clasp", "fastv layer=2"))
        for candidate in (own, two, fastv):
            study.report(candidate, 4, 0.25)
        found = trials(url, name)
        assert found["p2/rho=0.5"].params == {"layer 0": 1.0, "layer 1": 0.002, "rho": 0.5, "selector": "clasp"}
        assert found["a/fastv layer=2"].params == {"layer 0": 1.0, "layer 1": 0.0, "selector": "fastv layer=2"}
    assert found["p1/rho=0.5"].params == {"layer 0": 1.0, "layer 1": 0.001, "rho": 0.5}
    Study(open_storage(url), "alone", (0,), ("fastv layer=2",)).report(fastv, 4, 0.25)
    assert trials(url, "alone")["a/fastv layer=2"].params == {"layer 0": 1.0}
    assert capsys.readouterr().err == ""


def test_a_search_reports_once_a_round_and_not_once_a_sample(tmp_path):
    url = f"journal:{tmp_path}/journal.log"
    work = session(tmp_path, Halving(first=5), classes=(("object", 12), ("text", 8)))
    shown = replace(work, shown=lambda name: Study(open_storage(url), name, (0, 1)))
    shown.search(InProcess(Fake(lambda label, number, sample: number == 1)))
    names = optuna.get_all_study_names(storage=open_storage(url))
    assert [name[:-8] for name in names] == ["8/halving/object ", "8/halving/text "]
    for name, ends in zip(names, ([5, 10, 12], [5, 8]), strict=True):
        found = trials(url, name)
        assert list(found["own/rho=1"].intermediate_values) == ends
        assert found["p1/rho=0.5"].value == 1
        left = {"own/rho=1", *[f"p{n}/rho=0.5" for n in ((1, 2) if ends == [5, 8] else (1,))]}
        states = {name: "COMPLETE" if name in left else "PRUNED" for name in found}
        assert {name: trial.state.name for name, trial in found.items()} == states
    work.desk.journal.close()


def test_a_storage_is_shared_by_studies(url):
    for name in ("a", "b"):
        Study(open_storage(url), name, (0,)).report(candidates(1)[0], 1, 1.0)
    assert all(len(trials(url, name)) == 1 for name in ("a", "b"))


def test_optunas_journal_may_be_torn(tmp_path):
    url = f"journal:{tmp_path}/journal.log"
    study = Study(open_storage(url), "a", (0,))
    for number, candidate in enumerate(candidates(3)):
        study.report(candidate, 1, number / 2)
    whole = (tmp_path / "journal.log").read_bytes()
    for cut in [*range(0, len(whole), 61), len(whole) - 1]:
        (tmp_path / "journal.log").write_bytes(whole[:cut])
        again = Study(open_storage(url), "a", (0,))
        for number, candidate in enumerate(candidates(3)):
            again.report(candidate, 1, number / 2)
        assert [t.intermediate_values for t in trials(url, "a").values()] == [{1: 0.0}, {1: 0.5}, {1: 1.0}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("study.db", r"cannot use the storage study.db \(expected journal:FILE, sqlite"),
        ("nosql://there", "cannot use the storage nosql://there"),
        ("journal:{}/file/below", "cannot use the storage journal:"),
        ("journal:/dev/zero", r"/dev/zero is a device.*--storage"),
        ("journal:{}/pipe", r"pipe is a pipe.*--storage"),
        ("sqlite:///{}/none/study.db", "unable to open database file"),
        ("journal:{}/file", r"cannot use the storage journal:.*--storage"),
    ],
)
def test_a_storage_that_cannot_be_used(tmp_path, given, message):
    (tmp_path / "file").write_text("{torn\n{}\n")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StudyError, match=message):
        open_storage(given.format(tmp_path))


def damage(path, how):
    content = path.read_bytes()
    if how == "garbage":
        path.write_bytes(b"\0\xff" * 4096)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2] + b'\n{"op_code": 77}\n' + content[len(content) // 2 :])
    elif how == "wrong":
        path.write_bytes(b'{"op_code": "x", "worker_id": []}\n' + content)
    elif how == "middle":
        path.write_bytes(content[:4096] + bytes(len(content) - 4096))


@pytest.mark.parametrize(
    ("url", "how"),
    [
        ("journal:{}/journal.log", "garbage"),
        ("journal:{}/mine", "cut"),
        ("journal:{}/journal.log", "wrong"),
        ("sqlite:///{}/study.db", "garbage"),
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path, capsys, url, how):
    url = url.format(tmp_path)
    path = tmp_path / url.rpartition("/")[2]
    for number in (1, 2):
        Study(open_storage(url), "a", (0,)).report(candidates(1)[0], 1, 1.0)
        damage(path, how)
        damaged = path.read_bytes()
        assert open_storage(url) is not None
        assert f"{path} is damaged (" in capsys.readouterr().err
        assert path.with_name(f"{path.name}.damaged-{number}").read_bytes() == damaged
    Study(open_storage(url), "a", (0,)).report(candidates(1)[0], 1, 1.0)
    assert len(trials(url, "a")) == 1


@pytest.mark.parametrize("url", ["journal:{}/samples.jsonl", "sqlite:///{}/labels.parquet"])
def test_a_file_of_something_else_is_left_alone(tmp_path, url):
    (tmp_path / url.rpartition("/")[2]).write_bytes(b"PAR1 is not Optuna's\n")
    with pytest.raises(StudyError, match="give another with --storage"):
        open_storage(url.format(tmp_path))
    assert len(list(tmp_path.glob("*.damaged*"))) == 0


def test_a_storage_that_fails_later_does_not_stop_a_search(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    storage = open_storage(f"journal:{tmp_path}/journal.log")
    monkeypatch.setattr(storage, "create_new_trial", fail)
    work = replace(session(tmp_path, Halving(first=4)), shown=lambda name: Study(storage, "shown", (0, 1)))
    found = work.search(InProcess(Fake(lambda label, number, sample: number == 1)))
    work.desk.journal.close()
    assert found.choices["object"].candidate == candidates(2)[1]
    assert capsys.readouterr().err.count("the search goes on without showing shown") == 1


def test_a_sqlite_file_that_is_damaged_within_does_not_stop_a_search(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    Study(open_storage(url), "a", (0,)).report(candidates(1)[0], 1, 1.0)
    damage(tmp_path / "study.db", "middle")
    Study(open_storage(url), "a", (0,)).report(candidates(2)[1], 1, 1.0)


def test_trials_of_others_are_passed_over(url):
    study = optuna.create_study(study_name="a", storage=open_storage(url), direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    Study(open_storage(url), "a", (0,)).report(candidates(1)[0], 1, 1.0)
    assert len(optuna.load_study(study_name="a", storage=open_storage(url)).get_trials()) == 2


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    with pytest.raises(StudyError, match=r"needs a database driver .*pip install psycopg2-binary"):
        open_storage("postgresql://user@localhost/clasp")
