"""How sure choices are, told: every number in its column, and what to do about the doubt that is left."""

from made_artifacts import CHOICE, VERDICT

from clasp_calib.artifacts.choices import ChoiceRule, ClassChoice, mean_regret
from clasp_calib.artifacts.manifest import BudgetEntry
from clasp_calib.artifacts.sureness import MEASURED_COLUMNS, SURE_COLUMNS, advice, measured_cells, sure_rows
from clasp_calib.commands import output
from clasp_calib.commands.sureness_tables import show_sureness

UNSEARCHED = ClassChoice(prototype="own", candidates=1, evaluations=0, calibration=None)


def choice(evaluations=100, **verdict):
    return CHOICE.model_copy(
        update={"verdict": VERDICT.model_copy(update=verdict), "evaluations": evaluations, "posterior": None}
    )


def told(function, entry):
    return function(entry, list(entry.choices))


def entry(cautious=None, budgets=(), **choices):
    decision = ChoiceRule(method="pooled", regret=mean_regret(choices.values()), cautious=cautious, budgets=budgets)
    return BudgetEntry(name="192", counts=(3, 2, 1), mean_tokens=2.0, choices=choices, decision=decision)


def test_every_number_has_its_column():
    one = entry(object=choice(), text=UNSEARCHED)
    assert [dict(zip(SURE_COLUMNS, row, strict=True)) for row in told(sure_rows, one)] == [
        {
            "class": "object",
            "gain": "+12.5 [-6.2, +25.0]",
            "worse": "6%",
            "> 1 pt": "3%",
            "own": "+25.0",
            "regret": "0.5",
            "settle": "40",
        }
    ]
    assert dict(zip(MEASURED_COLUMNS, measured_cells(CHOICE), strict=True)) == {
        "score": "50.0% of 20",
        "default": "25.0% of 16",
        "spent": "100 (12%)",
    }
    assert measured_cells(UNSEARCHED) == ["-", "-", "0"]


def test_what_is_not_known_is_said_to_be_unknown():
    (row,) = told(sure_rows, entry(object=choice(own=None, settle=None)))
    assert (row[4], row[6]) == ("-", "?")
    assert "object (how many cannot be said)" in told(advice, entry(object=choice(settle=None)))[1]


def test_the_default_is_not_compared_with_itself():
    same = choice(gain=0.0, low=0.0, high=0.0, worse=0.0, much_worse=0.0, own=0.0)
    (row,) = told(sure_rows, entry(object=same))
    assert row == ["object", "is the default", "-", "-", "-", "0.5", "40"]


def test_nothing_is_less_than_nothing():
    (row,) = told(sure_rows, entry(object=choice(own=-0.0001, low=-0.0)))
    assert (row[1], row[4]) == ("+12.5 [+0.0, +25.0]", "+0.0")


def test_nothing_is_said_to_be_impossible():
    (row,) = told(sure_rows, entry(object=choice(worse=0.004, much_worse=0.0)))
    assert row[2:4] == ["<1%", "<1%"]


def test_classes_come_in_the_order_that_is_asked_for():
    one = entry(object=choice(), text=choice())
    assert [row[0] for row in sure_rows(one, ["text", "object"])] == ["text", "object"]
    assert "text (about 40), object (about 40)" in advice(one, ["text", "object"])[1]


def test_likelihoods_are_no_shares():
    assert measured_cells(CHOICE.model_copy(update={"calibration": -1.25}))[0] == "-1.250 of 20"


def test_advice_names_the_unsettled_classes_and_how_many_samples_they_need():
    lines = told(advice, entry(object=choice(settle=40), text=choice(settle=0)))
    assert lines[1] == (
        "worth more samples, being over half a point of expected regret: object (about 40); "
        "measure more (as by a greater --spend of the strategy pooled), or add samples, and search again"
    )
    assert "each class has the candidate of the highest posterior mean (pooled, all classes together)" in lines[0]
    assert "0.5 points of regret" in lines[0]


def test_nothing_more_can_be_spent_where_all_was_measured():
    (_, line) = told(advice, entry(object=choice(evaluations=800, settle=40)))
    assert line.endswith("regret: object (about 40); add samples, and search again")


def test_advice_says_so_where_all_is_settled():
    assert told(advice, entry(object=choice(settle=0)))[1].startswith("settled: ")


def test_a_default_that_caution_kept_is_named_with_what_it_was_kept_from():
    lines = told(advice, entry(cautious=0.3, object=choice(settle=0, leader="deep/rho=0.7"), text=choice(settle=0)))
    assert lines[1] == (
        "the default is kept for object (not deep/rho=0.7): the probability of being worse is not under 0.3, as "
        "--cautious asks"
    )


def test_budgets_that_were_evidence_are_named():
    assert (
        "(pooled, with what was measured at 64, 128)" in told(advice, entry(budgets=("64", "128"), object=choice()))[0]
    )


def test_classes_without_samples_are_named():
    assert (
        told(advice, entry(object=choice(settle=0), text=UNSEARCHED))[-1]
        == "no samples, so the model's own setting: text"
    )


def test_the_table_fits_a_terminal_of_80_columns_on_one_line_a_class(capsys, monkeypatch):
    monkeypatch.setattr(output, "WIDE", 80)
    one = choice(gain=0.1004, low=-0.1234, high=0.2345, worse=1.0, settle=100_000)
    show_sureness(entry(attribute=one), ["attribute"])
    table = capsys.readouterr().out.split("each class")[0].splitlines()
    assert max(len(line.rstrip()) for line in table) <= 80
    (row,) = [line.split() for line in table if "attribute" in line]
    assert row == ["attribute", "+10.0", "[-12.3,", "+23.4]", "100%", "3%", "+25.0", "0.5", "100000"]
