"""A calibration that cannot come to anything is stopped before it begins, with what to do."""

import pytest

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.templates import EXAMPLE
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample
from clasp_calib.search.first_look import FIRST, LONG, look_first

OWN = Candidate("own", (0.0, 1.0), 1.0)


class Says:
    """Stands for an evaluator whose unpruned model says what a function tells of a sample."""

    template = EXAMPLE

    def __init__(self, says):
        self.says, self.asked = says, []

    def answers(self, sample, candidates, pruning):
        assert pruning.schedule is None
        assert candidates == [OWN]
        self.asked.append(sample.id)
        return [self.says(sample)]


def asked(count, answers=("three",), name=None, label="counting"):
    return [
        Sample(f"{label}{number}", f"How many of {number}?", None, (answers[number % len(answers)],), name)
        for number in range(count)
    ]


def look(says, samples, anyway=False):
    evaluator = Says(says)
    look_first(evaluator, OWN, samples, anyway)
    return evaluator


def test_one_right_answer_is_enough():
    evaluator = look(lambda sample: "three" if sample.id.endswith("3") else "no", {"counting": asked(200)})
    assert len(evaluator.asked) == 4


def test_nothing_right_stops_with_examples_and_the_metric_that_would_count(capsys):
    samples = {"counting": asked(40), "text": asked(30, ("a",), label="text")}
    with pytest.raises(InputError) as stopped:
        look(lambda sample: "Three." if sample.id.startswith("counting") else "a", samples)
    message = str(stopped.value)
    assert f"class 'counting': the unpruned model answers none of the first {FIRST} questions right" in message
    assert message.count("-> 'Three.', expected 'three'") == 3
    assert f"by the metric exact_match {FIRST} of {FIRST} would count: write it in the column metric" in message
    assert "--anyway (anyway of CalibrationOptions)" in message
    look(lambda sample: "Three.", {"counting": asked(40)}, anyway=True)
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith("answers none of the first 24 questions right; the search goes on")


def test_a_chatty_model_is_to_be_asked_for_a_short_answer():
    advice = r"contain what was expected: .* short one, with --prompt \$'USER: <image>\\n\{question\}\\nAnswer the"
    with pytest.raises(InputError, match=advice):
        look(lambda _: "I can see three dogs on a big lawn.", {"counting": asked(40, ("dogs",), "exact_match")})


def test_a_model_that_says_something_else_is_to_be_looked_at():
    with pytest.raises(InputError, match="the prompt is the model's own"):
        look(lambda _: "", {"counting": asked(40)})


def test_few_questions_are_told_and_no_reason_to_stop(capsys):
    evaluator = look(lambda _: "no", {"counting": asked(FIRST - 1)})
    assert len(evaluator.asked) == FIRST - 1
    told = capsys.readouterr().err
    assert "class 'counting': the unpruned model answers none of the first 23 questions right" in told


def test_few_questions_of_many_classes_count_together():
    samples = {name: asked(FIRST // 3, label=name) for name in ("counting", "text", "scene")}
    with pytest.raises(InputError, match="none of the first 8 questions"):
        look(lambda _: "no", samples)
    look(lambda sample: "three" if sample.id == "text7" else "no", samples)


def test_saying_the_same_to_every_question_is_no_answer():
    samples = {"object": asked(60, ("yes", "no", "yes"), "yes_no")}
    with pytest.raises(InputError, match="is right on the first 60 questions only where 'yes' is expected"):
        look(lambda _: "Yes, there is.", samples)
    look(lambda _: "yes", {"object": asked(60, ("yes",), "yes_no")})


@pytest.mark.parametrize("name", [None, "relaxed", "exact_match"])
@pytest.mark.parametrize("answers", [("yes", "no"), ("A", "C", "B")])
def test_given_answers_are_known_whatever_the_metric(name, answers):
    with pytest.raises(InputError, match=rf"only where '{answers[0].lower()}' is expected"):
        look(lambda _: answers[0], {"counting": asked(2 * FIRST, answers, name)})
    look(lambda sample: sample.answers[0], {"counting": asked(2 * FIRST, answers, name)})


def test_other_answers_are_not_given_ones():
    assert len(look(lambda _: "red", {"counting": asked(2 * FIRST, ("red", "blue"))}).asked) == 1


def test_chance_is_no_answer_either():
    def guesses(sample):
        return "yes" if int(sample.id.removeprefix("counting")) % 4 < 2 else "no"

    with pytest.raises(InputError, match=rf"no better than chance on the first {LONG} questions \({LONG // 2} right\)"):
        look(guesses, {"object": asked(LONG + 9, ("yes", "no"), "pope")})
    look(guesses, {"object": asked(LONG - 1, ("yes", "no"), "pope")})
    evaluator = look(lambda sample: sample.answers[0], {"object": asked(LONG, ("yes", "no"), "pope")})
    assert len(evaluator.asked) == LONG // 2 + 1


def test_without_answers_there_is_nothing_to_look_at():
    assert not look(lambda _: "", {"counting": [Sample("a", "Why?", None)] * 99}).asked
