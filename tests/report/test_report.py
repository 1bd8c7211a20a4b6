"""Results as rows, as Markdown and as a picture."""

from dataclasses import replace

import pytest
from made_artifacts import CLASSES, made
from PIL import Image

from clasp_calib.artifacts.manifest import Measured
from clasp_calib.calib.studies.evaluation import SETTINGS, BudgetResult, Evaluation
from clasp_calib.calib.studies.intervals import Interval
from clasp_calib.common.token_range import TokenRange
from clasp_calib.report.plots import plot_evaluation, plot_search
from clasp_calib.report.tables import markdown, points, rows, score
from clasp_calib.runtime.schedule import RelativeSchedule, Schedule, parse_budget

SCHEDULE = Schedule(16, 17, (2, 6, 15), (10, 6, 5))


def result(budget="50%", seconds=True):
    scores = {
        setting: {label: Interval(number / 4, number / 8, number / 3, 12) for label in ("object", "text", "macro")}
        for number, setting in enumerate(SETTINGS)
    }
    gain = {label: Interval(-0.1, -0.25, 0.05, 12) for label in ("object", "text", "macro")}
    sizes = TokenRange(16, 16, 16), TokenRange(8, 8, 8), TokenRange(7, 6, 8)
    return BudgetResult(budget, SCHEDULE, *sizes, scores, gain, dict.fromkeys(SETTINGS, 0.25) if seconds else {})


def test_numbers_are_in_percent_and_points():
    assert score(Interval(0.5, 0.25, 0.751, 3), digits=1) == "50.0 [25.0, 75.1]"
    assert score(Interval(0.5, 0.25, 0.751, 3), digits=0) == "50 [25, 75]"
    assert points(Interval(0.05, -0.1, 0.2, 3), digits=1) == "+5.0 [-10.0, +20.0]"


def test_rows_are_classes_tokens_and_seconds():
    header, body = rows(result(), SETTINGS)
    assert header == ["class", "n", "unpruned", "default", "random", "calibrated", "calibrated - default"]
    assert [line[0] for line in body] == ["object", "text", "macro", "tokens a layer", "seconds an answer"]
    assert all(len(line) == len(header) for line in body)
    assert body[0][1:4] == ["12", "0.0 [0.0, 0.0]", "25.0 [12.5, 33.3]"]
    assert body[0][-1] == "-10.0 [-25.0, +5.0]"
    assert body[3][1:] == ["", "16.0", "8.0", "8.0", "7.0 (6 to 8)", ""]
    assert body[4][2] == "0.250"
    assert [line[0] for line in rows(result(seconds=False), SETTINGS)[1]][-1] == "tokens a layer"


def test_tokens_that_differ_are_told_as_mean_and_range():
    schedule = RelativeSchedule(parse_budget("33%"), 17, SCHEDULE.starts)
    ragged = replace(result("33%"), schedule=schedule, pictures=TokenRange(575.5, 196, 1225))
    ragged = replace(ragged, a_layer=TokenRange(190.25, 64.4, 405))
    assert ragged.title == (
        "budget 33%: shares of 575.5 (196 to 1225) visual tokens, 190.2 (64 to 405) a layer on average"
    )
    tokens = rows(ragged, SETTINGS)[1][3]
    assert tokens[2:4] == ["575.5 (196 to 1225)", "190.2 (64 to 405)"]


def test_a_budget_of_several_pictures_is_told_by_the_picture():
    pairs = replace(result(), pictures=TokenRange(24, 16, 32), a_layer=TokenRange(12, 8, 16))
    told = f"{SCHEDULE.mean_tokens:.1f} a layer on average; 1.5 (1 to 2) pictures a question"
    assert pairs.title == f"budget 50%: 10 / 6 / 5 of 16 visual tokens a picture, {told}"
    alike = replace(result(), pictures=TokenRange(32, 32, 32), a_layer=TokenRange(16, 16, 16))
    assert alike.title.endswith("on average; 2.0 pictures a question")


def test_metrics_of_all_samples_have_rows_of_their_own():
    corpus = {setting: {"mme accuracy_plus": Interval(0.5, 0.25, 0.75, 12)} for setting in SETTINGS}
    _, body = rows(replace(result(), corpus=corpus), SETTINGS)
    assert body[3] == ["mme accuracy_plus", "12", *["50.0 [25.0, 75.0]"] * 4, ""]
    assert body[4][0] == "tokens a layer"


def test_markdown_is_a_table_for_every_budget():
    text = markdown(Evaluation((result("50%"), result("6", seconds=False))))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("###")] == [
        "### budget 50%: 10 / 6 / 5 of 16 visual tokens, 8.0 a layer on average",
        "### budget 6: 10 / 6 / 5 of 16 visual tokens, 8.0 a layer on average",
    ]
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 2 + 5 + 2 + 4
    assert {line.count("|") for line in tables} == {8}


def test_other_settings_are_columns_of_the_markdown_without_a_time():
    more = result()
    scores = {**more.scores, "global": more.scores["default"]}
    lines = markdown(Evaluation((replace(more, scores=scores),))).splitlines()
    assert lines[2] == "| class | n | unpruned | default | random | calibrated | global | calibrated - default |"
    assert lines[-1].split(" | ")[5:] == ["0.250", "", " |"]


@pytest.mark.parametrize("budgets", [1, 3])
def test_the_plot_has_a_panel_for_every_budget(tmp_path, budgets):
    plot_evaluation(Evaluation(tuple(result(str(n)) for n in range(budgets))), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (11 * 120, round(2.8 * budgets * 120))


def test_a_class_may_be_called_like_a_formula(tmp_path):
    odd, plain = r"$\oops{$", result()
    scores = {setting: {**of, odd: of["text"]} for setting, of in plain.scores.items()}
    plot_evaluation(
        Evaluation((replace(plain, scores=scores, gain={**plain.gain, odd: plain.gain["text"]}),)), tmp_path / "p.png"
    )
    assert (tmp_path / "p.png").is_file()


@pytest.mark.parametrize("budgets", [("8",), ("8", "50%")])
def test_the_plot_of_a_search_has_a_row_for_every_budget(tmp_path, budgets):
    plot_search(made(*budgets), tmp_path / "new" / "search.png")
    with Image.open(tmp_path / "new" / "search.png") as picture:
        assert picture.size == (1200, pytest.approx(120 * (0.6 + len(budgets) * (1 + 0.28 * 3)), abs=1))


def test_what_the_plot_of_a_search_shows_is_the_verdict(tmp_path, monkeypatch):
    drawn = {}

    def kept(figure, path, **how):
        gains, risks = figure.axes
        drawn["gains"] = [line.get_xydata().tolist() for line in gains.lines]
        drawn["risks"] = [bar.get_width() for bar in risks.patches]
        drawn["labels"] = [label.get_text() for label in gains.get_yticklabels()]

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", kept)
    plot_search(made("8"), tmp_path / "search.png")
    assert drawn["labels"] == list(CLASSES)
    assert drawn["gains"][:2] == [[[-6.25, 0], [25.0, 0]], [[12.5, 0]]]
    assert drawn["risks"] == [6.25] * 3 + [3.125] * 3


def test_scores_are_recorded_and_durations_are_not():
    artifact = made("50%", "6")
    measured = Measured(samples="5" * 64, split="test", seed=3)
    recorded = Evaluation((result("6"),)).recorded_in(artifact, measured)
    assert (recorded.entry("6").measured, recorded.entry("50%").measured) == (measured, None)
    assert recorded.entry("50%") == artifact.entry("50%")
    found = recorded.entry("6").results["default"]["text"]
    assert (found.mean, found.low, found.high, found.samples) == (1 / 4, 1 / 8, 1 / 3, 12)
    assert "seconds" not in recorded.manifest.model_dump_json()
