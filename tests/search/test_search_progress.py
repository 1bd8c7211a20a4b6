"""What a search says while it runs."""

import io
import json
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from made_searches import Fake, searched
from rich.console import Console

from clasp_calib.search import watchers
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.two_step import TwoStep
from clasp_calib.search.watchers import EventLines, LiveTable, Outline, Progress


def halved(root, watcher, worth=lambda label, number, sample: number == 1):
    return searched(root, Fake(worth), Halving(first=3), watcher=watcher).choices["object"]


def test_events_are_json_one_a_line(tmp_path):
    lines = []
    choice = halved(tmp_path, EventLines(lines.append))
    events = [json.loads(line) for line in lines]
    assert all(event["budget"] == "8" and event["class"] == "object" for event in events)
    assert [event["event"] for event in events] == ["begin", "round", "round", "round", "chosen"]
    assert events[0] | {"candidates": 6, "samples": 12, "recorded": 0} == events[0]
    assert [(e["samples"], e["evaluations"], e["candidates_left"]) for e in events[1:4]] == [
        (3, 18, 6),
        (6, 27, 3),
        (12, 39, 2),
    ]
    last = events[3]
    assert (last["leader"], last["exhaustive"]) == ("p1/rho=0.5", 72)
    assert 0 < last["low"] < last["gain"] < last["high"]
    assert last["worse"] < 0.01
    assert events[4]["candidate"] == choice.candidate.name == "p1/rho=0.5"
    assert events[4]["gain"] == choice.verdict.gain
    assert "probabilities" not in events[4]


def drawn(table):
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


def test_the_table_has_a_row_a_class(tmp_path):
    live = LiveTable()
    choice = halved(tmp_path, live)
    of = choice.verdict
    gain = f"{100 * of.gain:+.1f} [{100 * of.low:+.1f}, {100 * of.high:+.1f}]"
    row = f"8 object p1/rho=0.5 {gain} {of.worse:.0%} 39 54% done"
    assert row in " ".join(drawn(live.table()).split())


def test_a_class_that_keeps_the_default_has_no_gain_and_no_risk(tmp_path, written, clock):
    live = LiveTable()
    with live.shown():
        choice = halved(tmp_path, live, lambda label, number, sample: number == 0)
    assert choice.verdict.candidate == 0
    assert f"8 object {choice.candidate.name} is the default 39 54% done" in " ".join(drawn(live.table()).split())
    assert written()[-1].endswith(f"chosen {choice.candidate.name}, is the default")


def test_a_pair_that_is_asked_again_counts_once_and_is_resumed_only_if_it_was_recorded_before(tmp_path):
    for strategy, spent in ((Halving(first=3), "39"), (Grid(), "72 (39 resumed)"), (Grid(), "72 (72 resumed)")):
        live = LiveTable()
        found = searched(tmp_path, Fake(lambda label, number, sample: number == 1), strategy, watcher=live)
        assert f" {spent} " in drawn(live.table())
        assert spent.split()[0] == str(found.choices["object"].evaluations)
    live = LiveTable()
    searched(tmp_path / "new", Fake(lambda label, number, sample: number == 1), TwoStep(), watcher=live)
    assert " 72 " in drawn(live.table()), "the second step asks again for what the first has asked"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that time has stood at; a test moves them."""
    now = [100.0]
    monkeypatch.setattr(watchers.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def written(monkeypatch):
    """What a console without a terminal got."""
    out = io.StringIO()
    monkeypatch.setattr(watchers, "console", Console(file=out, width=40))
    return lambda: [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]


def test_in_a_file_there_is_a_line_a_minute_and_one_for_each_choice(tmp_path, clock, written):
    def worth(label, number, sample):
        clock[0] += 2
        return number == 1

    live = LiveTable()
    with live.shown():
        halved(tmp_path, live, worth)
    first, last = written()
    number = r"[+-]\d+\.\d"
    standing = rf"p1/rho=0.5, gain {number} \[{number}, {number}\] points, P\(worse\) \d+%"
    assert re.fullmatch(
        rf"budget 8, object: 31 evaluations \(43% of all\), 3 candidates left, leader {standing}, time left < 0:34",
        first,
    )
    assert re.fullmatch(rf"budget 8, object: 39 evaluations \(54% of all\), chosen {standing}", last)
    halved(tmp_path / "later", live)
    assert len(written()) == 2, "nothing is said when it is not shown"


def test_before_the_first_round_a_line_tells_what_is_known(clock, written):
    live, of = LiveTable(), Outline("8", "object", candidates=10, samples=100, most=400)
    with live.shown():
        live.begin(of, 7)
        live.advance(of, 7)
        clock[0] += 59
        live.advance(of, 10, measured=True)
        assert written() == []
        clock[0] += 1
        live.advance(of, 10, measured=True)
        live.advance(of, 10, measured=True)
        assert written() == ["budget 8, object: 27 (7 resumed) evaluations, 10 candidates left"]


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_gets_the_table_if_it_can_draw_one_else_lines(monkeypatch, clock, widgets):
    drawn, said = [], []
    notebook = SimpleNamespace(is_terminal=False, is_jupyter=True, print=lambda line, **_: said.append(line))
    monkeypatch.setattr(watchers, "console", notebook)
    monkeypatch.setattr(watchers, "Live", lambda **more: drawn.append(more) or nullcontext())
    monkeypatch.setattr(watchers, "find_spec", {"ipywidgets": widgets}.get)
    live, of = LiveTable(), Outline("8", "object", candidates=10, samples=100, most=400)
    with live.shown():
        live.begin(of, 0)
        clock[0] += 60
        live.advance(of, 1)
    assert (len(drawn), len(said)) == (int(widgets), int(not widgets))


def test_names_are_shown_as_they_are(clock):
    live, of = LiveTable(), Outline("8", "[red]", candidates=10, samples=100, most=400)
    live.begin(of, 0)
    live.stands(of, Progress(5, 10, "[/bold]a/rho=1", 0.05, -0.1, 0.2, 0.25, 50))
    text = drawn(live.table())
    assert "[red]" in text
    assert "[/bold]a/rho=1" in text


def test_the_time_left_is_told_from_what_was_measured_and_not_from_what_was_resumed(clock):
    live, of = LiveTable(), Outline("8", "object", candidates=10, samples=100, most=400)
    live.begin(of, 50)
    assert "object" in drawn(live.table())
    live.advance(of, 50)
    live.stands(of, Progress(5, 10, "own/rho=1", 0.05, -0.1, 0.2, 0.25, 50))
    text = drawn(live.table())
    assert "+5.0 [-10.0, +20.0]" in text
    assert "25%" in text
    assert "50 (50 resumed)" in text
    assert "<" not in text
    clock[0] += 10
    live.advance(of, 50, measured=True)
    # Fifty in ten seconds: of 400 another 300 are left.
    assert "< 1:00" in drawn(live.table())
