"""Which selectors a search goes on with: the three that complement CLASP, the same however often it is killed."""

import json
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_searches import desk
from speaking_architectures import speaking_directory, speaking_processor, write_questions
from speaking_models import load_speaking, speaking_llava_directory, write_samples
from transformers import AutoModelForImageTextToText

import clasp_calib as cc
from clasp_calib.artifacts.choices import ChoiceRule
from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common import plugins
from clasp_calib.common.containing import contained
from clasp_calib.common.errors import CacheError, ClaspError, InputError, PictureError
from clasp_calib.common.samples import Sample
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.selectors import GROUP
from clasp_calib.search.shortlist import (
    KEPT,
    QUESTIONS,
    FirstRound,
    able,
    complementing,
    contenders,
    first_asks,
    first_space,
)
from clasp_calib.search.space import Prototype, SearchSpace, SpaceSelector, default_space, write_space
from clasp_calib.search.watchers import EventLines, Watcher

BUDGETS = ("9", "12")
NAMES = ("divprune", "fastv", "scope", "vispruner")
FEW, TRIED = 3, 2 * (1 + len(NAMES)) + 1
"""Questions of each class in quick searches; scores that show at both budgets which selectors can run."""
STARTS = cc.PruningOptions(starts=(1, 2, 3))
SPACE = SearchSpace(
    prototypes=(Prototype(name="own", weights={3: 1}), Prototype(name="mixed", weights={1: 0.5, 3: 0.5})), rhos=(0.5,)
)


@given(st.data())
def test_what_stays_is_the_best_of_all_sets(data):
    count, draws = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    names = [f"s{n}" for n in range(count)]
    worth = {name: [data.draw(st.integers(0, 3)) for _ in range(draws)] for name in (*reversed(names), "clasp")}
    costs = {name: data.draw(st.integers(0, 1)) for name in reversed(names)}

    def slowly(kept):
        best = sum(max(worth[name][draw] for name in ("clasp", *kept)) for draw in range(draws))
        return -best, sum(costs[name] for name in kept), kept

    found = complementing({name: np.array(of, float) for name, of in worth.items()}, costs)
    assert found == min(map(slowly, combinations(names, min(KEPT, count))))[-1]


def test_what_is_good_for_another_class_is_preferred_to_what_is_better_for_the_same():
    worth = {
        "clasp": np.array([0.9, 0.5, 0.5, 0.5]),
        "a": np.array([0.5, 0.9, 0.8, 0.0]),
        "b": np.array([0.5, 0.9, 0.79, 0.0]),
        "c": np.array([0.5, 0.89, 0.8, 0.0]),
        "poor": np.array([0.0, 0.0, 0.0, 0.6]),
        "like clasp": np.array([0.95, 0.4, 0.4, 0.4]),
    }
    assert complementing(worth, dict.fromkeys([*worth][1:], 0)) == ("a", "like clasp", "poor")


def test_equal_sets_are_told_apart_by_cost_and_then_by_name():
    same = dict.fromkeys(("clasp", *"dcbae"), np.array([0.7, 0.1]))
    costs = {"a": 1, "b": 0, "c": 0, "d": 0, "e": 0}
    assert complementing(same, costs) == ("b", "c", "d")
    assert complementing(same, {**costs, "c": 1, "d": 1}) == ("a", "b", "e")


def test_mixtures_are_those_that_differ_most():
    space = default_space((3, 9, 15, 20, 23), 23).beside_clasp([])
    assert [one.name for one in first_space(space, 23).prototypes] == ["own", "uniform", "middle"]
    assert first_space(space, 23).rhos == (0.25, 1.0)
    small = Prototype(name="small", weights={3: 1.0}, downsample=0.5)
    few = SearchSpace(prototypes=(small, *space.prototypes[1:3]), rhos=(0.5,), seedings=("farthest", "k-center"))
    first = first_space(few, 23)
    assert [one.name for one in first.prototypes] == ["deep", "middle"]
    assert (first.rhos, first.seedings) == ((0.5,), ("farthest",))
    alone = first_space(SearchSpace(prototypes=few.prototypes[1:2], rhos=(0.5,)), 23)
    assert len(first_asks(alone, alone.candidates(24, 23), {"object": ("one", "two")})) == 2


GOOD = {"object": ("fastv", "dart", "btp"), "text": ("scope",), "scene": ("holov",), "action": ()}


class Planted:
    """Right where a selector is good for a class; the model fails on every third question, whoever chooses."""

    def __init__(self):
        self.asked = 0

    def scores(self, sample, live, pruning):
        label, number = sample.id.split()
        self.asked += len(live)
        names = [one.selector.name if one.selector else "clasp" for one in live]
        right = [float(int(number) % 3 > 0 and name in GOOD[label]) for name in names]
        return Scores(tuple(right), tuple(1.0 - 0.9 * value for value in right))


def test_the_round_finds_what_complements_and_tells_it_to_the_search(tmp_path):
    names = ("btp", "dart", "divprune", "fastv", "holov", "scope", "sparsevlm")
    wide = default_space((3, 9, 15, 20, 23), 23)
    wide = SearchSpace(**{**dict(wide), "selectors": ("clasp", *names)})
    space = first_space(wide, 23)
    classes = (("object", 12), ("text", 7), ("scene", 6), ("action", 4))
    one = desk(tmp_path, classes=classes)
    other = replace(desk(None, classes=classes, budget="16"), journal=one.journal)
    round_ = FirstRound(space, [replace(of, candidates=space.candidates(24, 23)) for of in (one, other)])
    planted, lines = Planted(), []
    best = round_.best(InProcess(planted), EventLines(lines.append))
    # One of the three that are good for the same, and those that alone are good for another.
    assert {"scope", "holov"} < {*best}
    assert len({*best} & {*GOOD["object"]}) == 1
    # Each question saw the model's own layer and one of the other two mixtures, with all of eight selectors.
    asked = 2 * (3 * QUESTIONS + 4) * (7 * 2 + 4)
    assert planted.asked == asked
    assert json.loads(lines[0])["event"] == "begin"
    assert round_.best(InProcess(planted), Watcher()) == best
    assert planted.asked == asked

    kept = wide.beside_clasp(selector for selector in wide.selectors if selector.name in best)
    search = replace(one, candidates=kept.candidates(24, 23))
    told = round_.told(search)
    assert [(ask.label, *ask.samples) for ask in told] == [
        (label, number) for label, count in classes for number in range(min(count, QUESTIONS))
    ]
    for ask in told:
        assert {search.candidates[c].prototype for c in ask.live} == {"own", ("uniform", "middle")[ask.samples[0] % 2]}
        assert len(ask.live) == 3 * 2 + 4
        (key,) = (one.identity.key(one.pools[ask.label][number]) for number in ask.samples)
        live = [search.candidates[c] for c in ask.live]
        assert one.journal.known(key, live) == live
    one.journal.close()


@dataclass(frozen=True)
class Broken(DivPrune):
    """Fails when it is to choose."""

    def kept(self, image, token_P, count):
        raise RuntimeError("out of luck")


@dataclass(frozen=True)
class Filmed(DivPrune):
    def solved(self, adapter, budget):
        raise InputError("there is nothing to see; look away")


@pytest.fixture
def installed(monkeypatch):
    """Four selectors that run on the model, two that do not, and what else a test brings."""
    known = plugins.brought(GROUP)
    made = {name: known[name] for name in NAMES}
    for name, kind in (("broken", Broken), ("filmed", Filmed)):
        made[name] = [type("Point", (), {"load": lambda self, kind=kind: kind, "dist": None, "value": name})()]
    plain = plugins.brought
    monkeypatch.setattr(plugins, "brought", lambda group: made if group == GROUP else plain(group))
    return made


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("shortlist")
    directory = speaking_llava_directory(root / "model", decoder_layers=5)
    model, processor = load_speaking(directory)
    table = write_samples(root, {"calibration": 8})
    samples = [
        Sample(row["id"], row["question"], root / row["image"], tuple(row["answers"]), label=row["gold_class"])
        for row in map(json.loads, table.open())
    ]
    return model, processor, [replace(sample, split="calibration") for sample in samples], directory


def options(**more):
    return cc.CalibrationOptions(**{"space": SPACE, "pruning": STARTS, "anyway": True, "method": "auto", **more})


@pytest.fixture
def tasks(monkeypatch):
    """How many candidates each call of the evaluator scored; ``dies`` names the calls at which the process ends."""

    class Tasks(list):
        dies = ()

    tasks, plain = Tasks(), Evaluator.scores

    def counts(self, sample, candidates, pruning, **more):
        tasks.append(len(candidates))
        if len(tasks) in tasks.dies:
            raise KeyboardInterrupt
        return plain(self, sample, candidates, pruning, **more)

    monkeypatch.setattr(Evaluator, "scores", counts)
    return tasks


def test_a_search_goes_on_with_what_the_round_leaves(bench, installed, tasks, tmp_path, capsys):
    model, processor, samples, _ = bench
    lines, words = [], {"run": tmp_path, "options": options(per_class=FEW)}
    artifact = cc.calibrate(model, processor, samples, BUDGETS, **words, watcher=EventLines(lines.append))
    told = capsys.readouterr().err
    assert "the selector 'broken' is left out of this search: scoring the sample" in told
    assert "the selector 'filmed' is left out of this search: there is nothing to see; look away\n" in told
    (event,) = [one for one in map(json.loads, lines) if one["event"] == "shortlisted"]
    chosen = event["selectors"]
    assert len(chosen) == KEPT < len(NAMES)
    assert {*chosen} < {*NAMES}
    assert f"the search tries clasp, {', '.join(chosen)}\n" in told
    for budget in BUDGETS:
        assert list(artifact.entry(budget).decision.shortlist) == chosen
        choice = artifact.entry(budget).choices["counting"]
        assert choice.candidates == 2 * (1 + KEPT) + 1
        # A search of 15 % sees each candidate once; the questions of the round are evidence too.
        assert choice.evaluations == FEW * choice.candidates
    assert {name for one in artifact.manifest.budgets for name in _tried(one)} <= {None, *chosen}

    tasks.clear()
    written = (tmp_path / "artifact" / "artifact.json").read_bytes()
    cc.calibrate(model, processor, samples, BUDGETS, **words)
    assert tasks == [1] * TRIED
    assert (tmp_path / "artifact" / "artifact.json").read_bytes() == written


@pytest.mark.slow
def test_a_killed_search_comes_to_the_same_choice(bench, installed, tasks, tmp_path):
    model, processor, samples, _ = bench
    chosen = options(per_class=QUESTIONS)
    cc.calibrate(model, processor, samples, BUDGETS, run=tmp_path / "whole", options=chosen)
    complete, run = len(tasks), tmp_path / "killed"
    tasks.clear()
    # In the round, and in the search behind it.
    tasks.dies = (20, complete - 10)
    for _ in tasks.dies:
        with pytest.raises(KeyboardInterrupt):
            cc.calibrate(model, processor, samples, BUDGETS, run=run, options=chosen)
    cc.calibrate(model, processor, samples, BUDGETS, run=run, options=chosen)
    # What can run is tried again, and what was killed is done again; nothing else is.
    assert len(tasks) == complete + 2 * TRIED + 2
    whole, killed = ((tmp_path / name / "artifact" / "artifact.json").read_bytes() for name in ("whole", "killed"))
    assert whole == killed


def _tried(entry):
    return [choice.selector and choice.selector.name for choice in entry.choices.values()]


def test_a_space_that_names_selectors_restricts_the_round(bench, installed):
    model, processor, samples, _ = bench
    space = SPACE.model_copy(update={"selectors": SPACE.beside_clasp([]).selectors})
    assert options(space=space).selectors == []
    named = SearchSpace(**{**dict(SPACE), "selectors": ("divprune", {"name": "fastv", "knobs": {"layer": [1, 2]}})})
    artifact = cc.calibrate(model, processor, samples, "9", options=options(space=named, per_class=2))
    # They are no more than would be left, so there is no round.
    assert artifact.entry("9").decision.shortlist == ("divprune", "fastv")
    assert artifact.entry("9").choices["counting"].candidates == 2 * (1 + 1 + 2) + 1
    wrong = SearchSpace(**{**dict(SPACE), "selectors": ("divprune", "nosuch")})
    with pytest.raises(InputError, match="no selector 'nosuch'"):
        cc.calibrate(model, processor, samples, "9", options=options(space=wrong))


def test_a_named_selector_that_cannot_run_is_left_out(bench, installed, capsys):
    model, processor, samples, _ = bench
    named = SearchSpace(**{**dict(SPACE), "selectors": ("divprune", "filmed")})
    artifact = cc.calibrate(model, processor, samples, "9", options=options(space=named, per_class=2))
    assert (
        "the selector 'filmed' is left out of this search: there is nothing to see; look away"
        in capsys.readouterr().err
    )
    assert artifact.entry("9").decision.shortlist == ("divprune",)


@pytest.mark.parametrize("error", [CacheError("gone"), PictureError("a.png", "damaged"), MemoryError()])
def test_what_is_not_the_selectors_ends_the_search(error):
    def attempt(selector):
        with contained("scoring the sample '1'"):
            raise error

    with pytest.raises(ClaspError):
        able([SpaceSelector(name="divprune")], attempt)


def test_where_no_other_selector_can_run_the_search_is_clasps(bench, installed, capsys):
    model, processor, samples, _ = bench
    for name in NAMES:
        del installed[name]
    artifact = cc.calibrate(model, processor, samples, "9", options=options(per_class=2))
    assert "the search tries clasp alone\n" in capsys.readouterr().err
    assert artifact.entry("9").decision.shortlist == ()


def test_what_is_called_auto_is_no_selector(bench, installed):
    model, processor, samples, _ = bench
    installed["auto"] = installed["divprune"]
    with pytest.raises(InputError, match="an installed package brings a selector called 'auto'"):
        cc.calibrate(model, processor, samples, "9", options=options())
    with pytest.raises(ValueError, match="no selector is called 'auto'; --method auto lets the search choose"):
        SearchSpace(**{**dict(SPACE), "selectors": ("clasp", "auto")})
    small = Prototype(name="small", weights={3: 1.0}, downsample=0.5)
    with pytest.raises(InputError, match=r"all prototypes of the space show smaller pictures, .* method is 'auto'"):
        options(space=SearchSpace(prototypes=(small,), rhos=(0.5,)))


def test_before_the_decoder_only_what_a_server_can_run_enters_by_itself(bench, capsys):
    space, adapter = options().space, adapter_for(bench[0])
    everywhere = [selector.name for selector in contenders(space, "layered", adapter)]
    before = [selector.name for selector in contenders(space, "input", adapter)]
    assert {"fastv", "dart", "divprune"} <= {*everywhere}
    assert before == ["divprune", "fastervlm", "holov", "scope", "vispruner"]
    assert "the selector 'fastv' is left out of this search: it cannot tell how many" in capsys.readouterr().err
    named = space.model_copy(update={"selectors": (SpaceSelector(name="clasp"), SpaceSelector(name="fastv"))})
    assert [selector.name for selector in contenders(named, "input", adapter)] == ["fastv"]


def test_artifacts_without_a_round_keep_their_bytes():
    rule = ChoiceRule(method="pooled", regret=0.0)
    assert "shortlist" not in rule.model_dump(mode="json")
    chosen = rule.model_copy(update={"shortlist": ("scope",)})
    assert ChoiceRule.model_validate_json(chosen.model_dump_json()) == chosen


@pytest.mark.slow
def test_two_workers_choose_the_same(bench, installed, tmp_path):
    *_, samples, directory = bench
    model, processor = load_speaking(directory)
    made = []
    for count in (1, 2):
        words = {"run": tmp_path / str(count), "options": options(per_class=6), "crew": cc.Crew(workers=count)}
        cc.calibrate(model, processor, samples, BUDGETS, **words)
        made.append((tmp_path / str(count) / "artifact" / "artifact.json").read_bytes())
    assert made[0] == made[1]


def test_where_pictures_differ_in_size(installed, tmp_path):
    name = "qwen2_5_vl"
    model = AutoModelForImageTextToText.from_pretrained(speaking_directory(tmp_path / "model", name)).eval()
    table = cc.load_samples(write_questions(tmp_path, name, {"calibration": 9}))
    samples = [sample for sample in table if sample.modality == "image" and len(sample.media) == 1]
    layer = adapter_for(model).vision_layers
    own = {"name": "own", "weights": {layer: 1.0}}
    space = SearchSpace(prototypes=(own, {**own, "name": "half", "downsample": 0.5}), rhos=(0.5,))
    chosen = options(space=space, pruning=cc.PruningOptions(profile="input"), per_class=3)
    artifact = cc.calibrate(model, speaking_processor(name), samples, ["50%", "40%"], options=chosen)
    for budget in ("50%", "40%"):
        stayed = artifact.entry(budget).decision.shortlist
        assert len(stayed) == KEPT
        # The smaller picture is clasp's alone.
        assert artifact.entry(budget).choices["counting"].candidates == 3 + KEPT


def test_from_the_shell(bench, installed, tmp_path, command):
    *_, samples, directory = bench
    table, run, space = tmp_path / "samples.jsonl", tmp_path / "run", tmp_path / "space.yaml"
    rows = [
        {"id": s.id, "image": str(s.image), "question": s.question, "answers": list(s.answers)}
        | {"split": s.split, "class": s.label}
        for s in samples
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_space(SPACE, space)
    words = ["search", "--run", run, "--model", directory, "--samples", table, "--space", space, "--budget", "9"]
    words += ["--starts", "1,2,3", "--anyway", "--recompute", "--method", "auto", "--workers", "1", "--json"]
    words += ["--per-class", FEW]
    planned = command(*words, "--plan")
    assert planned.code == 0, planned.err
    (plan,) = planned.json["plans"]
    assert plan["other selectors"] == f"3 of {', '.join(NAMES)}"
    # Three classes and two mixtures: with four selectors, and with clasp at 0.5 and at 1 with its own.
    assert plan["evaluations of the first round"] == 3 * FEW * (2 * len(NAMES) + 3)
    assert plan["candidates a class"] == 2 * (1 + KEPT) + 1
    found = command(*words)
    assert found.code == 0, found.err
    (rule,) = [one["decision"] for one in json.loads(found.out.splitlines()[-1])["budgets"]]
    assert len(rule["shortlist"]) == KEPT
