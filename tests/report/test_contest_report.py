"""A contest as rows, as Markdown, as JSON and as a picture."""

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
from PIL import Image

from clasp_calib.calib.studies.answers import Answered
from clasp_calib.calib.studies.contest import Contest, Entrant
from clasp_calib.calib.studies.costs import PrefillCost
from clasp_calib.calib.studies.entrants import Refusal
from clasp_calib.common.samples import Sample
from clasp_calib.report.contest_tables import contest_json, contest_markdown, contest_rows, equal_flops_rows
from clasp_calib.report.plots import plot_contest

SAMPLES = tuple(Sample(f"s{n}", "?", image=f"{n}.png", label=("object", "text")[n % 2]) for n in range(8))
RIGHT = {"unpruned": 8, "calibrated": 6, "dart": 7, "fastv": 2}


def entrant(name, budget):
    knobs = {"ratio": 0.25, "starts": (2, 6), "alpha": {"object": [0.0] * 30}}
    return Entrant(name, budget, lambda sample, seed: nullcontext(), knobs, published="mean over layers")


@pytest.fixture
def contest():
    entrants = [entrant("unpruned", "100%"), *(entrant(n, b) for b in ("6", "3") for n in RIGHT if n != "unpruned")]
    answers = {
        e.asked(sample, 0): Answered(
            "a", float(number < RIGHT[e.method]), 16.0 if e.budget == "100%" else float(e.budget) + number % 2, 1e9
        )
        for e in entrants
        for number, sample in enumerate(SAMPLES)
    }
    return Contest(tuple(entrants), SAMPLES, answers, 0)


def test_a_method_that_is_off_the_budget_is_named(contest):
    assert "Not at equal cost" not in contest_markdown(contest, {}, [])
    default, astray = entrant("default", "6"), entrant("mustdrop", "6")
    answers = dict(contest.answers)
    for number, sample in enumerate(SAMPLES):
        answers[default.asked(sample, 0)] = Answered("a", 1.0, 6.0 + number % 2, 1e9)
        answers[astray.asked(sample, 0)] = Answered("a", 1.0, 5.0, 1e9)
    with_both = Contest((*contest.entrants, default, astray), SAMPLES, answers, 0)
    told = contest_markdown(with_both, {}, [])
    assert "Not at equal cost: the mean tokens of mustdrop (-23%) are off the budget." in told
    assert told.count("Not at equal cost") == 1


def test_rows_are_ranked_and_say_what_is_kept_of_the_score(contest):
    header, body = contest_rows(contest, "6", {})
    assert header[:6] == ["method", "n", "score", "minus calibrated", "p", "retained"]
    assert [row[0] for row in body] == ["unpruned", "dart", "calibrated", "fastv"]
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert by_name["calibrated"]["retained"] == "75.0 %"
    assert by_name["dart"]["minus calibrated"].startswith("+12.5 [")
    assert by_name["calibrated"]["minus calibrated"] == by_name["calibrated"]["p"] == ""
    assert by_name["fastv"]["tokens a layer"] == "6.5 (6 to 7)"
    assert by_name["unpruned"]["tokens a layer"] == "16.0"


def test_markdown_and_json_hold_costs_settings_and_refusals(contest):
    costs = {(e.method, e.budget): PrefillCost(0.25, 3 * 2**20) for e in contest.entrants}
    refusals = [Refusal("btp", "3", "btp is too costly")]
    text = contest_markdown(contest, costs, refusals)
    assert text.count("### budget") == 2
    assert "ratio 0.25, starts 2/6" in text
    assert "alpha" not in text
    assert text.count("btp is too costly") == 1
    assert "| 250 | 3.0 |" in text
    found = json.loads(json.dumps(contest_json(contest, costs, refusals)))
    assert [of["budget"] for of in found["budgets"]] == ["6", "3"]
    first = {of["method"]: of for of in found["budgets"][0]["methods"]}
    assert first["dart"]["difference"]["macro"]["mean"] == 0.125
    assert first["dart"]["settings"]["alpha"] == {"object": [0.0] * 30}
    assert found["budgets"][1]["refused"] == {"btp": "btp is too costly"}


def test_methods_are_read_off_between_their_budgets_at_equal_flops():
    """At the FLOPs of the calibration at 6: halfway between a cheaper method's 6 and the unpruned model."""
    flops = {("unpruned", "100%"): 9e9, ("calibrated", "6"): 5e9, ("dart", "6"): 1e9, ("fastv", "6"): 7e9}
    flops |= {("calibrated", "3"): 2e9, ("dart", "3"): 5e8, ("fastv", "3"): 6e9}
    entrants = [replace(entrant(*of), knobs={}) for of in flops]
    answers = {
        e.asked(sample, 0): Answered("a", float(number < RIGHT[e.method]), 6.0, flops[e.method, e.budget])
        for e in entrants
        for number, sample in enumerate(SAMPLES)
    }
    contest = Contest(tuple(entrants), SAMPLES, answers, 0)
    header, body = equal_flops_rows(contest, "6")
    assert header == ["method", "score", "minus calibrated", "p", "between budgets"]
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert list(by_name) == ["dart", "calibrated", "fastv"]
    assert by_name["calibrated"]["between budgets"] == "6"
    assert by_name["dart"]["between budgets"] == "6 and 100%"
    # 7 of 8 and 8 of 8.
    assert by_name["dart"]["score"].startswith("93.8 [")
    assert by_name["fastv"] == dict(zip(header, ["fastv", "", "", "", "outside all of them"], strict=True))
    assert "At equal decoder FLOPs (5 GFLOPs), interpolated:" in contest_markdown(contest, {}, [])
    assert equal_flops_rows(contest, "6", mixed=True) == (header, [])
    told = contest_json(contest, {}, [])["budgets"][0]["equal_flops"]
    assert told["methods"][0]["p"] is None
    assert 0 < told["methods"][1]["p"] <= 1
    assert told["outside"] == ["fastv"]
    assert [of["method"] for of in told["methods"]] == ["calibrated", "dart"]


def test_an_artifact_with_mixtures_of_its_own_is_not_led_to_the_unpruned_model():
    """Which has other tokens than it; and of two budgets at the same FLOPs the one that was asked for counts."""
    flops = {("unpruned", "100%"): 9e9, ("calibrated", "6"): 5e9, ("calibrated", "3"): 5e9, ("input", "6"): 4e9}
    entrants = [entrant(*of) for of in flops]
    entrants[-1] = replace(entrants[-1], knobs={"alpha": {"object": [1.0]}})
    answers = {
        e.asked(sample, 0): Answered("a", float(number < (8 if e.budget == "3" else 5)), 6.0, flops[e.method, e.budget])
        for e in entrants
        for number, sample in enumerate(SAMPLES)
    }
    contest = Contest(tuple(entrants), SAMPLES, answers, 0)
    _, body = equal_flops_rows(contest, "6")
    assert [(row[0], row[-1]) for row in body] == [("calibrated", "6"), ("input", "outside all of them")]
    assert body[0][1].startswith("62.5 [")


def test_the_picture_is_drawn(contest, tmp_path):
    plot_contest(contest, tmp_path / "contest.png")
    with Image.open(tmp_path / "contest.png") as image:
        assert image.size[0] > 800
