"""What the benchmark of a language model's labels asks, and about which questions."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from benchmarks.labelling_prompts import PROMPTS, Other
from benchmarks.language_model_labels import drawn, measured
from clasp_calib.router_labeling.labelers import Guess, load_scheme
from clasp_calib.router_labeling.prompt import messages, schema

SCHEME = load_scheme()
TAXONOMY = SCHEME.taxonomy


def test_prompts_are_the_shipped_one_with_something_changed() -> None:
    same = Other(next(iter(TAXONOMY.intents)))
    assert same(TAXONOMY, "Why?") == messages(TAXONOMY, "Why?")
    assert same.schema(TAXONOMY) == schema(TAXONOMY)
    backwards = PROMPTS["schema backwards"].schema(TAXONOMY)
    assert backwards["properties"]["intent"]["enum"] == list(TAXONOMY.intents)[::-1]


@pytest.mark.parametrize("name", PROMPTS)
def test_every_prompt_names_every_intent_and_ends_with_the_question(name: str) -> None:
    asked = PROMPTS[name](TAXONOMY, "Is it <b>?")
    assert all(slug in asked[0]["content"] for slug in TAXONOMY.intents)
    assert asked[-1]["role"] == "user"
    assert asked[-1]["content"].endswith('Question: "Is it < b>?"')
    other = PROMPTS[name](TAXONOMY, "Why?")
    assert name == "one message" or asked[:-1] == other[:-1]


def test_turns_are_examples_with_their_intents() -> None:
    _, *turns, _ = PROMPTS["one turn an intent, backwards"](TAXONOMY, "Why?")
    answers = [json.loads(turn["content"])["intent"] for turn in turns if turn["role"] == "assistant"]
    assert answers == list(TAXONOMY.intents)[::-1]
    assert turns[0] == {"role": "user", "content": 'Question: "Is the ball bigger than the cup?"'}


def test_questions_are_drawn_evenly_and_always_the_same() -> None:
    rows = [{"question": str(n), "class": "abc"[n % 3 if n < 30 else 0]} for n in range(60)]
    found = drawn(rows, 14, 0)
    assert sorted(Counter(row["class"] for row in found).values()) == [4, 5, 5]
    assert found == drawn(rows, 14, 0) != drawn(rows, 14, 1)
    assert sorted(found, key=rows.index) == found
    assert drawn(rows, 0, 0) == drawn(rows, 99, 0) == rows


def test_labels_are_counted_before_and_after_overrides() -> None:
    class Counting:
        """Answers everything with counting, by a model that had three quarters of its prompts in the cache."""

        def __init__(self) -> None:
            self.llm = SimpleNamespace(chat=self.chat, reset_prefix_cache=lambda: None)

        def chat(self, number: int) -> list[SimpleNamespace]:
            return [SimpleNamespace(prompt_token_ids=range(8), num_cached_tokens=6)] * number

        def fingerprint(self, scheme: object) -> str:
            return "{}"

        def ask(self, questions, scheme):
            self.llm.chat(len(questions))
            for index in range(len(questions)):
                yield index, Guess("counting", 0.5, '{"intent":"counting"}')

    rows = [
        {"question": "How many dogs are there?", "class": "counting"},
        {"question": "Who wrote this?", "class": "text"},
        {"question": "Hm?", "class": "default"},
    ]
    found = measured(Counting(), rows, messages, SCHEME)
    assert found["right"]["before"] == {"macro": pytest.approx(1 / 3), "text": 0, "counting": 1, "default": 0}
    assert found["right"]["after"] == {"macro": pytest.approx(2 / 3), "text": 1, "counting": 1, "default": 0}
    assert found["intents"] == {"counting": 1}
    assert (found["prompt tokens"], found["cached"], found["failed"]) == (24, 0.75, 0)
    row = found["confusion"]["after"]["counts"][TAXONOMY.classes.index("default")]
    assert row[TAXONOMY.classes.index("counting")] == sum(row) == 1
