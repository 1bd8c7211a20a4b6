"""The objective ``kl`` is for want of answers, and says what it cannot see."""

import pytest

from clasp_calib.calib.scoring.objective import check_likeness
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample

BLIND = "cannot see where a mixture of layers is better than the unpruned model"


def samples(label, answered, unanswered, split="calibration"):
    of = [("red",)] * answered + [()] * unanswered
    return [
        Sample(f"{label}-{split}-{n}", "?", None, answers, None, split, None, label) for n, answers in enumerate(of)
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (samples("text", 3, 0), r"3 of 3 samples have accepted answers; search by them with --objective metric \(obj"),
        (
            samples("text", 8, 90) + samples("scene", 2, 0),
            "10 of 100 samples .*, and leave out the 90 samples that have",
        ),
    ],
)
def test_it_is_refused_where_answers_are_enough(given, message, capsys):
    with pytest.raises(InputError, match=f"{BLIND} .*{message}"):
        check_likeness(given, anyway=False)
    check_likeness(given, anyway=True)
    assert BLIND in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        samples("text", 0, 3),
        samples("text", 7, 1),
        samples("text", 8, 0) + samples("scene", 0, 1),
        samples("text", 0, 3) + samples("text", 9, 0, "test"),
    ],
)
def test_where_they_are_not_it_warns_and_says_how_to_get_some(given, capsys):
    check_likeness(given, anyway=False)
    said = capsys.readouterr().err
    assert BLIND in said
    assert "docs/guide/without-answers.md" in said
