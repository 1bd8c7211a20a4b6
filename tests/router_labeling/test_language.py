"""What is plainly not English, and what is left alone."""

import json
import re
from pathlib import Path

import pytest
from other_languages import LATER, NOT_FLAGGED, QUESTIONS

from clasp_calib.router_labeling.language import _ENGLISH, _STRONG, NotEnglish, is_not_english, not_english

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["intents_gold.jsonl", "intents_tuning.jsonl"])
def test_less_than_one_english_question_in_a_hundred_is_flagged(name):
    questions = [json.loads(line)["question"] for line in (HERE / name).open(encoding="utf-8")]
    assert sum(map(is_not_english, questions)) < len(questions) / 100


def test_names_numbers_and_scraps_are_left_alone():
    assert [question for question in NOT_FLAGGED if is_not_english(question)] == []


@pytest.mark.parametrize(("questions", "least"), [(QUESTIONS, 0.95), (LATER, 0.9)])
def test_nearly_all_questions_of_other_languages_are_found(questions, least):
    found = {language: sum(map(is_not_english, of)) for language, of in questions.items()}
    assert sum(found.values()) >= least * sum(map(len, questions.values()))
    assert all(number >= len(questions[language]) / 2 for language, number in found.items())
    other_scripts = ("ru", "zh", "ja", "ko", "ar", "hi")
    assert all(found[language] == len(questions[language]) for language in other_scripts)


def test_no_word_that_tells_a_language_is_an_english_one():
    lines = (HERE / "intents_gold.jsonl").open(encoding="utf-8")
    english = {word for line in lines for word in re.findall(r"\w+", json.loads(line)["question"].casefold())}
    strong = {word for words in _STRONG.values() for word in words.split()}
    assert strong & _ENGLISH == set()
    assert strong & english == set()


def counted(questions):
    return not_english((question, True) for question in questions)


def test_a_few_say_nothing_of_a_table():
    english = ["How many dogs are there?"] * 39
    assert counted(english) is None
    assert counted([]) is None
    assert counted([*english, QUESTIONS["de"][0]]) is None
    found = counted([*english[:18], *QUESTIONS["de"][:2]])
    assert found == NotEnglish(2, 0.1, QUESTIONS["de"][0])
    assert str(found) == f"10% of the questions (2) do not look English, such as {QUESTIONS['de'][0]!r}"
    assert str(counted(["Wo ist das? " * 30])).endswith("Wo ist d...'")
