"""A router beside what answers without one: what is compared on which questions, and what is refused."""

from dataclasses import replace

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.classes import Classes
from clasp_calib.router_labeling.fallback import fallback_applies, packaged_router, packaged_scheme
from clasp_calib.router_labeling.router import RouterQuality, Shares
from clasp_calib.router_labeling.training import LabelledQuestion, train_router
from clasp_calib.router_labeling.worth import JudgedRouter, Worth, check_worth, is_rules_own

PACKAGED = Classes.of_taxonomy(packaged_scheme().taxonomy)
OWN = f'{{"labeler": "keyword", "rules": "{packaged_scheme().rules.digest}"}}'
THINGS = "dog cat car boat tree lamp shoe bird plane chair".split()  # noqa: SIM905


def judged(accuracy=0.5, macro=0.5, questions=20):
    return JudgedRouter(questions, accuracy, accuracy, macro, 0.0, 1 - accuracy)


def worth(**changes):
    known = {"against": "gold", "router": judged(), "packaged": judged(0.4, 0.4), "own_labels": False}
    return Worth(**(known | {"constant": judged(0.3, 0.2), "constant_class": "object"} | changes))


def rows(source="llm", labeler="{}", **changes):
    said = {"counting": "how many {}s are there?", "attribute": "what colour is the {}?"}
    made = [
        LabelledQuestion(text.format(thing), label, source, labeler) for label, text in said.items() for thing in THINGS
    ]
    return [replace(row, **changes) for row in made]


def test_the_mean_over_classes_decides():
    assert worth().objection is None
    assert worth(packaged=judged(0.9, 0.5)).objection is None
    check_worth(worth(packaged=None))
    with pytest.raises(InputError, match=r"gets 50\.0% .* of 20 questions right, and the packaged router.* 40\.0%"):
        check_worth(worth(packaged=judged(0.4, 0.6)))
    with pytest.raises(InputError, match=r"'object' for every question 30\.0% .*50\.0%.*--force, force=True"):
        check_worth(worth(packaged=None, constant=judged(0.3, 0.5)))


def test_questions_of_one_class_say_nothing_of_one_class_for_all():
    assert worth(constant=judged(1.0, 1.0), router=judged(1.0, 1.0), packaged=judged(1.0, 1.0)).objection is None


def test_it_is_what_the_routers_file_says():
    assert worth().quality == RouterQuality("gold", 20, 0.5, 0.5, Shares(0.4, 0.4))
    assert worth(packaged=None, against="labels").quality.without is None


def test_labels_of_a_model_judge_both_without_those_that_rules_gave():
    overridden = rows(source="rule")[:5]
    found = train_router([*rows()[5:], *overridden], PACKAGED, "1" * 64).worth
    assert (found.against, found.router.questions, found.packaged.questions) == ("labels", 15, 15)
    assert not found.own_labels


def test_labels_of_the_packaged_rules_judge_nobody():
    found = train_router(rows("rule", OWN), PACKAGED, "1" * 64).worth
    assert found.own_labels
    assert found.packaged is None
    assert found.quality.without is None
    with pytest.raises(InputError, match="all labels are the keyword rules' own"):
        check_worth(found)


def test_classes_by_hand_judge_whatever_made_the_labels():
    """The labels are all wrong by hand: the router repeats them, and the packaged one is right."""
    swapped = {"counting": "attribute", "attribute": "counting"}
    wrong = [replace(row, gold=row.label, label=swapped[row.label]) for row in rows("rule", OWN)]
    found = train_router(wrong, PACKAGED, "1" * 64)
    assert (found.worth.against, found.worth.packaged.accuracy, found.worth.router.accuracy) == ("gold", 1.0, 0.0)
    assert found.agreement.likeliest > 0.9
    assert found.gold == found.worth.router


def test_a_question_that_nobody_could_place_is_judged_by_its_class_by_hand():
    unplaced = LabelledQuestion("tally?", "default", "default", OWN, gold="counting")
    plain, found = (train_router(made, PACKAGED, "1" * 64) for made in (rows("gold"), [*rows("gold"), unplaced]))
    assert (plain.worth.router.questions, found.worth.router.questions) == (20, 21)
    assert (plain.unplaced, found.unplaced) == (0, 1)
    assert found.router.training.rows == 20


def test_other_classes_have_no_packaged_router_and_are_compared_with_one_class_for_all():
    classes = Classes(("attribute", "counting", "default"), "class", "default", "3" * 64)
    found = train_router(rows(), classes, "1" * 64).worth
    assert found.packaged is None
    assert (found.constant.accuracy, found.constant.macro) == (0.5, 0.5)
    assert not found.own_labels
    assert not fallback_applies(classes.names)
    assert fallback_applies((*PACKAGED.names, "more"))


@pytest.mark.parametrize(
    ("source", "labeler", "own"),
    [
        ("rule", OWN, True),
        ("rule", '{"labeler": "vllm"}', True),
        ("rule", None, True),
        ("rule", "no json", True),
        ("rule", '{"labeler": "keyword", "rules": "of another file"}', False),
        ("llm", OWN, False),
        (None, None, False),
    ],
)
def test_whose_labels_they_are(source, labeler, own):
    assert is_rules_own(source, labeler) is own


def test_the_packaged_router_has_the_packaged_classes():
    assert packaged_router().classes == PACKAGED.names
    assert packaged_router().taxonomy == PACKAGED.digest
    assert packaged_router().default == PACKAGED.default
    assert packaged_router().route("How many dogs are there?").label == "counting"
