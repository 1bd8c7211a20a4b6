from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.runtime.selection import DualStage, gram_matrix
from clasp_calib.search.space import OWN
from tools.reference.measure import measure, missing
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.choosing import choose
from tools.reference.measuring.partly_random import PartlyRandom
from tools.reference.measuring.peers import RANDOM as CHANCE, Peers, ask_peers
from tools.reference.measuring.results import BLIND, Results
from tools.reference.measuring.score_journal import ScoreJournal
from tools.reference.measuring.settings import (
    BUDGETS,
    RANDOM,
    RHOS,
    SHALLOW,
    SHUFFLED,
    STAGES,
    UNPRUNED,
    Setting,
    ablated,
    at_rho,
    comparison_plan,
    control_plan,
    mixed,
    mixtures_of,
    selection_plan,
)
from tools.reference.measuring.speed import Speed
from tools.reference.report import Report

pytestmark = pytest.mark.slow
MIXTURES = list(mixtures_of(7, 6))
FAST = Speed(0.3, 40.0, 13.0)
PEERS = (CHANCE, "fastv", "grid")
"""Random pruning, a published method, and a control."""
Accuracy = Callable[[str, str], float]
"""Class and name of a setting -> how often it is right."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.open(tmp_path_factory.mktemp("work"))


FEW = dict.fromkeys(CLASSES, (UNPRUNED, SHUFFLED, at_rho(64, 0.5), RANDOM[64]))


def test_measuring_goes_on_where_it_stopped_and_shards_join(bench: Bench) -> None:
    measure(bench, "selection", 2, FEW, (1, 2))
    samples, directory = bench.samples("selection", 2), bench.root / "selection"
    half = ScoreJournal(directory, "read").read()
    assert 0 < len(half) < len(samples)
    (path,) = directory.glob("scores-*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])  # a process that was killed while it wrote
    assert missing(samples, FEW, ScoreJournal(directory, "read").read()) == len(samples) - len(half) + 1
    measure(bench, "selection", 2, FEW, (1, 2))
    assert path.read_bytes() == whole
    measure(bench, "selection", 2, FEW)
    scores = ScoreJournal(directory, "read").read()
    assert missing(samples, FEW, scores) == 0
    assert {value for of in scores.values() for value in of.values()} <= {0.0, 1.0}
    assert path.read_bytes() == whole
    lines = sum(len(p.read_bytes().splitlines()) for p in directory.glob("scores-*.jsonl"))
    assert lines == len(samples)


def test_a_shard_or_a_split_that_is_none_is_refused(bench: Bench) -> None:
    with pytest.raises(InputError, match="shard 2/2"):
        measure(bench, "selection", 2, FEW, (2, 2))
    with pytest.raises(InputError, match="'exam'"):
        measure(bench, "exam", 2, FEW)


def test_a_shared_picture_gives_the_evaluators_scores(bench: Bench) -> None:
    samples = bench.samples("selection", 2)
    evaluator, shared = bench.evaluators("selection", samples)
    asked = [s for s in samples if s.image == samples[0].image][:4]
    asked = [replace(s, answers=answers) for s in asked for answers in (s.answers, ("yes", "red"), ("no", "2", "3"))]
    own = [Candidate(OWN, bench.mixtures[OWN], 1.0)]
    expected = [evaluator.scores(sample, own, Pruning(None)).score[0] for sample in asked]
    assert shared.hits(asked[0], asked) == expected
    assert len(set(expected)) == 2
    mixture = [Candidate("hybrid", bench.mixtures["hybrid"], 1.0)]
    mixed = [evaluator.scores(sample, mixture, Pruning(None)).score[0] for sample in asked]
    assert shared.hits(asked[0], asked, bench.mixtures["hybrid"]) == mixed


def test_random_rows_leave_the_others_alone_and_do_not_depend_on_them() -> None:
    generator = torch.Generator().manual_seed(0)
    features_BND = torch.randn(1, 40, 8, generator=generator).expand(3, -1, -1)
    relevance_BN = torch.rand(1, 40, generator=generator).expand(3, -1)
    gram_BNN, valid_BN = gram_matrix(features_BND), torch.ones(3, 40, dtype=torch.bool)
    counts_B, rho_B = torch.full((3,), 10), torch.full((3,), 0.5, dtype=torch.float64)

    def chosen(random: list[tuple[int, ...]], seed: int = 0) -> list[torch.Tensor]:
        selector, rows = PartlyRandom(seed, random, STAGES), slice(len(random))
        given = (relevance_BN[rows], gram_BNN[rows], counts_B[rows], rho_B[rows], valid_BN[rows])
        return [selector(*given).keep_BN for _ in STAGES]

    expected = DualStage()(relevance_BN, gram_BNN, counts_B, rho_B, valid_BN).keep_BN[0]
    together = chosen([(), (6,), STAGES])
    for stage, keep_BN in zip(STAGES, together, strict=True):
        assert keep_BN.sum(1).tolist() == [10, 10, 10]
        assert keep_BN[0].equal(expected)
        assert keep_BN[1].equal(expected) == (stage != 6)
        assert not keep_BN[2].equal(expected)
    assert together[1][1].equal(together[1][2])
    assert together[0][2].equal(chosen([STAGES])[0][0])
    assert not together[0][2].equal(chosen([STAGES], seed=1)[0][0])


def test_what_is_chosen() -> None:
    def by_rho(budget: int, rho: float, label: str) -> float:
        wanted = {"text": 1.0, "scene": 0.0}.get(label, 0.5)
        return 0.9 - {192: 0.1, 128: 0.3, 64: 0.4}[budget] * abs(rho - wanted)

    def by_mixture(name: str, label: str) -> float:
        return float((name, label) in {("uniform", "text"), ("deep", "scene"), ("deep", "action")})

    choices = choose(by_rho, by_mixture, BUDGETS, RHOS, ["deep", "uniform"], ["text", "scene", "action"])
    assert choices.wide == 128
    assert choices.pairs == {128: ("text", "scene"), 64: ("text", "scene")}
    assert choices.best[64] == {"text": 1.0, "scene": 0.0, "action": 0.5}
    assert choices.worst[128]["text"] == 0.0
    assert choices.mixture == {"text": "uniform", "scene": "deep", "action": "deep"}
    plan = comparison_plan(choices, ["text", "scene", "action"])
    assert at_rho(128, 0.0) in plan["text"]
    assert at_rho(192, 0.0) not in plan["text"]
    assert all(len(of) == len({setting.name for setting in of}) for of in plan.values())


def good(label: str, name: str) -> float:
    """A model that fulfils everything."""
    budget = name.split("/", maxsplit=1)[0]
    found = {"unpruned": 0.92, BLIND: 0.3, "shuffled": 0.3}.get(name, 0.88)
    if name.endswith("/random"):
        found -= {"192": 0.2, "128": 0.3, "64": 0.45}[budget]
    elif "rho=" in name:
        rho = float(name.split("rho=")[1].split("/", maxsplit=1)[0])
        wanted = 1.0 if label in ("text", "action") else 0.0
        found -= (0.12 if f"/{OWN}/" in name else 0.0) + 0.3 * abs(rho - wanted) - 0.15
        found -= 0.25 * ("random at" in name) + 0.4 * (SHALLOW in name)
        found = min(found, 0.9) - 0.1 * ("/uniform/" not in name and f"/{OWN}/" not in name)
    return found


def measured(accuracy: Accuracy, pictures: int = 150) -> Report:
    """A report on scores that are drawn, alike for all settings but for a threshold."""
    splits = {}
    choices = choose(
        lambda budget, rho, label: accuracy(label, at_rho(budget, rho).name),
        lambda name, label: accuracy(label, mixed(name).name),
        BUDGETS,
        RHOS,
        [name for name in MIXTURES if name != OWN],
        CLASSES,
    )
    plans = {
        "selection": selection_plan(MIXTURES, CLASSES),
        "test": comparison_plan(choices, CLASSES),
        "challenge": control_plan(CLASSES),
    }
    for number, (split, plan) in enumerate(plans.items()):
        samples = [Sample(f"{p}-{c}", "?", Path(f"{p}.png"), label=c) for p in range(pictures) for c in CLASSES]
        luck = np.random.default_rng(number).random(len(samples))
        scores = {
            s.id: {
                name: float(x < accuracy(str(s.label), name))
                for name in (BLIND, *PEERS, *(setting.name for setting in plan[str(s.label)]))
            }
            for s, x in zip(samples, luck, strict=True)
        }
        splits[split] = Results(samples, scores, resamples=4000)
    return Report("a model", splits, choices, FAST, Peers(splits["test"], PEERS[1:]))


def changed(**values: float) -> Accuracy:
    """The good model, but for settings whose names hold a word."""

    def accuracy(label: str, name: str) -> float:
        return next((value for word, value in values.items() if word in name), good(label, name))

    return accuracy


def met(report: Report) -> list[bool]:
    return [found.met for found in report.requirements()]


def test_a_model_that_does_what_is_asked_meets_it_and_the_page_says_so(tmp_path: Path) -> None:
    report = measured(good)
    assert met(report) == [True] * 8
    page = report.markdown("plot.png")
    assert "NOT met" not in page
    assert "A class has fewer than 500 test questions" in page
    report.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("number", "accuracy"),
    [
        (1, changed(unpruned=0.5)),
        (1, changed(blind=0.85)),
        (2, changed(random=1.0)),
        (3, changed(random=0.9)),
        (4, lambda label, name: good("object", name)),
        (4, lambda label, name: 0.8 if "/own/" in name else good(label, name)),
        (5, changed(layer=0.85)),
        (5, changed(uniform=0.5)),
        (6, lambda label, name: good(label, name.replace("/random at 6", ""))),
        (8, changed(fastv=0.5)),
    ],
)
def test_a_fault_in_what_was_measured_is_a_requirement_not_met(number: int, accuracy: Accuracy) -> None:
    report = measured(accuracy)
    assert not met(report)[number - 1]
    assert "**NOT met**" in report.markdown("plot.png")


def test_the_last_stage_does_not_decide_and_slowness_does() -> None:
    report = measured(lambda label, name: good(label, name.replace("/random at 15", "")))
    assert met(report)[5]
    assert met(replace(report, speed=Speed(0.7, 40, 13)))[6] is False
    assert met(replace(report, speed=Speed(0.3, 80, 13)))[6] is False


def test_a_method_under_random_needs_a_reason_and_a_control_does_not() -> None:
    assert met(measured(changed(grid=0.5)))[7]
    peers = measured(changed(fastv=0.5)).peers
    assert not peers.requirement({"dart": "of its pivots"}).met
    explained = peers.requirement({"fastv": "it looks away"})
    assert explained.met
    assert "fastv is under random, since it looks away" in [row.what for row in explained.rows]


def test_methods_answer_the_same_questions_as_random_pruning_with_its_seeds(bench: Bench) -> None:
    peers = ask_peers(bench, 1, ["grid"], resamples=10)
    assert peers.methods == ("grid",)
    assert len(peers.results.samples) > 5
    scores = [peers.results.scores[sample.id] for sample in peers.results.samples]
    assert {round(3 * of[CHANCE]) / 3 for of in scores} == {of[CHANCE] for of in scores} <= {0, 1 / 3, 2 / 3, 1}
    (kept,) = (bench.root / "peers").glob("answers-*.jsonl")
    lines = kept.read_text().splitlines()
    assert len(lines) == 1 + 4 * len(scores)
    ask_peers(bench, 1, ["grid"], resamples=10)
    assert kept.read_text().splitlines() == lines


def test_what_was_not_measured_is_no_result() -> None:
    report = measured(good, pictures=3)
    test = report.splits["test"]
    lacking = {id_: {name: x for name, x in of.items() if "random at" not in name} for id_, of in test.scores.items()}
    with pytest.raises(InputError, match="was not measured"):
        replace(report, splits={**report.splits, "test": replace(test, scores=lacking)}).requirements()


def test_names_tell_all_settings_apart() -> None:
    settings = [*selection_plan(MIXTURES, CLASSES)["text"], ablated(6, 0.25), Setting(128, "uniform", 0.25)]
    assert len({setting.name for setting in settings}) == len(settings)
