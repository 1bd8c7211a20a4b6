"""Two ways to answer, compared question by question."""

import numpy as np
import pytest

from clasp_calib.calib.scoring.templates import instruction_in
from clasp_calib.calib.studies.paired_accuracy import paired_accuracy, scored
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample


def sample(number, answers=("red",), metric=None):
    return Sample(str(number), "What colour?", f"{number // 2}.png", answers, metric)


def test_each_answer_is_scored_by_the_metric_of_its_sample():
    samples = [sample(0), sample(1, ("Yes",), "yes_no"), sample(2, ())]
    assert scored(samples, [" red\n", "yes, it is", "anything"]) == [1.0, 1.0, None]
    assert scored(samples, ["Red", "no", ""]) == [0.0, 0.0, None]
    with pytest.raises(InputError, match="unknown metric"):
        scored([sample(0, metric="guess")], ["red"])


def test_the_difference_is_paired_and_its_interval_goes_by_picture():
    samples = [sample(number) for number in range(80)]
    plain = ["red" if number % 5 else "blue" for number in range(80)]
    pruned = ["red" if number % 5 > 1 else "blue" for number in range(80)]
    found = paired_accuracy(samples, plain, pruned, 0)
    assert (found.plain.mean, found.pruned.mean) == (0.8, pytest.approx(0.6))
    assert found.difference.mean == pytest.approx(-0.2)
    assert found.difference.low < -0.2 < found.difference.high < 0
    by_picture = (np.array([a == "red" for a in pruned]) * 1.0 - [a == "red" for a in plain]).reshape(40, 2).mean(1)
    drawn = np.random.default_rng(1).choice(by_picture, (4000, 40)).mean(1)
    expected = np.quantile(drawn, [0.025, 0.975])
    assert [found.difference.low, found.difference.high] == pytest.approx(expected, abs=0.03)


def test_without_answers_there_is_no_accuracy():
    assert paired_accuracy([sample(0, ())], ["red"], ["red"], 0) is None
    assert paired_accuracy([sample(0, ()), sample(1)], ["x", "red"], ["x", "x"], 0).difference.samples == 1


@pytest.mark.parametrize(
    ("text", "own", "found"),
    [
        ("USER: <image>\n{question} ASSISTANT:", "USER: <image>\n{question} ASSISTANT:", ""),
        ("USER: <image>\n{question}\nOne word. ASSISTANT:", "USER: <image>\n{question} ASSISTANT:", "\nOne word."),
        ("<image>{question}\nOne word.", "<image>{question}", "\nOne word."),
        ("Q: <image>{question} A:", "USER: <image>{question} A:", None),
        ("<image>{question} ANSWER:", "<image>{question} ASSISTANT:", None),
        ("<u><image>{question} Short.<e>\n<a>\n", "<u><image>{question}<e>\n<a>\n", " Short."),
    ],
)
def test_an_instruction_is_what_stands_between_the_question_and_the_models_own_end(text, own, found):
    assert instruction_in(text, own) == found
