"""What an answer is worth."""

import pytest

from clasp_calib.calib.metrics import METRICS, metric
from clasp_calib.common.errors import InputError


@pytest.mark.parametrize(
    ("name", "answer", "references", "score"),
    [
        ("exact", "two", ["two"], 1),
        ("exact", "two", ["three", "two"], 1),
        ("exact", "Two", ["two"], 0),
        ("exact", "two.", ["two"], 0),
        ("exact", "two two", ["two"], 0),
        ("exact_match", "  Two. ", ["two"], 1),
        ("exact_match", "a RED  cup!", ["one cup", "a red cup"], 1),
        ("exact_match", "red", ["a red cup"], 0),
        ("exact_match", "twotwo", ["two two"], 0),
        ("yes_no", "Yes, there is a cup.", ["yes"], 1),
        ("yes_no", "I think no", ["No"], 1),
        ("yes_no", "no, yes", ["yes"], 0),
        ("yes_no", "nothing", ["no"], 0),
        ("yes_no", "eyes", ["yes"], 0),
        ("yes_no", "red", ["red"], 0),
        ("yes_no", "", ["no"], 0),
    ],
)
def test_scores(name, answer, references, score):
    assert metric(name)(answer, references) == score


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=rf"'bleu'; expected one of {', '.join(METRICS)}"):
        metric("bleu")
