"""What a search says while it runs."""

import io
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from made_searches import Fake, measuring
from rich.console import Console

from clasp_calib.search import watchers
from clasp_calib.search.engine import search_class
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.two_step import TwoStep
from clasp_calib.search.watchers import Block, EventLines, LiveTable, Outline


def searched(root, watcher, worth=lambda split, number, sample: number == 1):
    work = measuring(root, Fake(worth), watcher=watcher)
    watcher.begin(work.outline, 0)
    choice = search_class(work, Halving(first=3), 0)
    watcher.chosen(work.outline, choice.summary)
    return choice


def test_events_are_json_one_a_line(tmp_path):
    lines = []
    choice = searched(tmp_path, EventLines(lines.append))
    events = [json.loads(line) for line in lines]
    assert all(event["budget"] == "8" and event["class"] == "object" for event in events)
    assert [event["event"] for event in events] == ["begin", "block", "block", "block", "chosen"]
    assert events[0] | {"candidates": 6, "samples": 12, "recorded": 0} == events[0]
    assert [(e["samples"], e["evaluations"], e["candidates_left"]) for e in events[1:4]] == [
        (3, 18, 6),
        (6, 27, 3),
        (12, 39, 2),
    ]
    last = events[3]
    assert (last["leader"], last["mean"], last["exhaustive"]) == ("p1/rho=0.5", 1, 72)
    assert last["low"] < 1 == pytest.approx(last["high"])
    assert events[4]["candidate"] == choice.candidate.name == "p1/rho=0.5"
    assert events[4]["gain"]["mean"] == 1


def drawn(table):
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


def test_the_table_has_a_row_a_class(tmp_path):
    live = LiveTable()
    searched(tmp_path, live)
    text = drawn(live.table())
    assert "8       object        p1/rho=0.5  100.0 [75.8, 100.0]  63           52%     done" in text


def test_a_pair_that_is_asked_again_counts_once_and_is_resumed_only_if_it_was_recorded_before(tmp_path):
    for strategy, spent in ((TwoStep(), "96"), (Grid(), "108 (96 resumed)"), (Grid(), "108 (108 resumed)")):
        live = LiveTable()
        work = measuring(tmp_path, Fake(lambda split, number, sample: number == 1), watcher=live)
        live.begin(work.outline, work.recorded)
        choice = search_class(work, strategy, 0)
        live.chosen(work.outline, choice.summary)
        work.desk.journal.close()
        assert f" {spent} " in drawn(live.table())
        assert spent.split()[0] == str(choice.evaluations)


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
    def worth(split, number, sample):
        clock[0] += 2
        return number == 1

    live = LiveTable()
    with live.shown():
        searched(tmp_path, live, worth)
    assert written() == [
        "budget 8, object: 31 evaluations (26% of all), 3 candidates left, leader p1/rho=0.5 100.0 [61.0, 100.0], "
        "time left < 2:12",
        "budget 8, object: 61 evaluations (51% of all), 2 candidates left, leader p1/rho=0.5 100.0 [75.8, 100.0], "
        "time left < 1:36",
        "budget 8, object: 63 evaluations (52% of all), chosen p1/rho=0.5 100.0 [75.8, 100.0]",
    ]
    searched(tmp_path / "later", live)
    assert len(written()) == 3, "nothing is said when it is not shown"


def test_before_the_first_block_a_line_tells_what_is_known(clock, written):
    live, of = LiveTable(), Outline("8", "object", candidates=10, samples=100, final=40)
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
    live, of = LiveTable(), Outline("8", "object", candidates=10, samples=100, final=40)
    with live.shown():
        live.begin(of, 0)
        clock[0] += 60
        live.advance(of, 1)
    assert (len(drawn), len(said)) == (int(widgets), int(not widgets))


def test_the_interval_of_likelihoods_is_not_that_of_shares():
    block = Block(samples=4, left=1, leader="a", scores=(-2.0, -4.0, -2.0, -4.0), evaluations=4)
    assert block.interval == pytest.approx((-3, -3 - 0.98, -3 + 0.98), abs=0.001)


def test_the_time_left_is_told_from_what_was_measured_and_not_from_what_was_resumed():
    live, of = LiveTable(), Outline("8", "object", candidates=10, samples=100, final=40)
    live.begin(of, 50)
    assert "object" in drawn(live.table())
    live.advance(of, 50)
    live.block(of, Block(samples=5, left=10, leader="own/rho=1", scores=(1.0, 0.0, 1.0, 1.0, 0.0), evaluations=50))
    text = drawn(live.table())
    assert "60.0 [23.1, 88.2]" in text
    assert "50 (50 resumed)" in text
    assert "<" not in text
    live.advance(of, 50, measured=True)
    # Fifty in next to no time: of 950 and the final's 40 some seconds are left, and not the minutes since the kill.
    assert "< 0:0" in drawn(live.table())
