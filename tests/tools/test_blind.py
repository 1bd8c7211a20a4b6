import pytest

from clasp_calib.common.samples import CLASSES, Sample
from tools.reference.blind import (
    BlindGuesser,
    blind_accuracy,
    blind_hits,
    features,
    train_blind,
    training_questions,
)

PAIRS = [
    *((f"What color is the {kind}?", "red" if kind == "mug" else "blue") for kind in ("mug", "ball", "hat", "key")),
    *((f"Is the {kind} small or large?", "small") for kind in ("mug", "ball", "hat", "key")),
] * 20


@pytest.fixture(scope="module")
def guesser() -> BlindGuesser:
    return train_blind(PAIRS, epochs=60)


def test_it_learns_what_the_words_tell(guesser: BlindGuesser) -> None:
    assert guesser.guesses([text for text, _ in PAIRS]) == [answer for _, answer in PAIRS]


def test_it_meets_other_wordings_by_their_words(guesser: BlindGuesser) -> None:
    assert guesser.guesses(["tell me: which COLOR has the mug", "The hats: small or large?"]) == ["red", "small"]


def test_words_that_it_never_saw_and_no_words_at_all_get_some_answer(guesser: BlindGuesser) -> None:
    assert set(guesser.guesses(["Quo vadis", "?"])) <= {"red", "blue", "small"}
    assert guesser.guesses([]) == []


def test_the_same_seed_gives_the_same_guesser() -> None:
    first, second = (train_blind(PAIRS, seed=3, epochs=1) for _ in range(2))
    weights = (first.network.answer.weight, second.network.answer.weight)
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(train_blind(PAIRS, seed=4, epochs=1).network.answer.weight)


def test_hits_compare_with_all_accepted_answers(guesser: BlindGuesser) -> None:
    question = "What color is the mug?"
    samples = [Sample(str(i), question, answers=answers) for i, answers in enumerate([("pink", "red"), ("pink",)])]
    assert blind_hits(samples, guesser) == [True, False]


def test_features_fold_case_punctuation_and_plurals_but_remember_the_plural() -> None:
    assert set(features("Count the MUGS!")) >= {"count", "mug", "count the", "mug$", "=mugs"}
    assert set(features("count the mug")) < set(features("Count the mugs."))


def test_no_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="no questions"):
        train_blind([])


def test_guessing_about_scenes_is_far_from_knowing_but_not_nothing() -> None:
    questions = [(q.text, q.answer) for q in training_questions(300)]
    assert questions == [(q.text, q.answer) for q in training_questions(300)]
    accuracy = blind_accuracy("test", 60, train_blind(questions))
    assert set(accuracy) == {*CLASSES, "macro"}
    assert 0.1 < accuracy["macro"] < 0.5
    assert accuracy["text"] < 0.3
