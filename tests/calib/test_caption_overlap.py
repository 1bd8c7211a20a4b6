"""ROUGE-L of captions, against what COCO's own evaluation gives: pycocoevalcap 1.2, its tokenizer in Java."""

import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.scoring.caption_overlap import caption_words, rouge_l
from clasp_calib.common.errors import InputError

BRACKETS = {"(": "-lrb-", ")": "-rrb-"}


@pytest.mark.parametrize(
    ("caption", "original"),
    [
        (
            'A woman\'s hand holding a "Wii" remote, standing in a living room',
            "a woman 's hand holding a wii remote standing in a living room",
        ),
        ("The woman is holding an umbrella; it's raining.", "the woman is holding an umbrella it 's raining"),
        (
            "A bus that is parked in front of a building (at night).",
            "a bus that is parked in front of a building -lrb- at night -rrb-",
        ),
        ("A baseball player doesn't swing at the ball", "a baseball player does n't swing at the ball"),
        ("A black & white cat laying on a desk", "a black & white cat laying on a desk"),
        ('A teddy bear wearing a t-shirt that says "I\'m #1"', "a teddy bear wearing a t-shirt that says i 'm # 1"),
        ("The clock tower reads 3:45 p.m.", "the clock tower reads 3:45 p.m."),
        ("A man in a suit and tie,he is smiling", "a man in a suit and tie he is smiling"),
        (
            "a street sign at the corner of 5th Ave. and E. 42nd St.",
            "a street sign at the corner of 5th ave. and e. 42nd st.",
        ),
        ("A person's dogs' leashes are tangled", "a person 's dogs leashes are tangled"),
        ("A plate of food with broccoli,carrots and rice", "a plate of food with broccoli carrots and rice"),
        (
            "A kitchen with stainless-steel appliances and wood/marble counters.",
            "a kitchen with stainless-steel appliances and wood/marble counters",
        ),
        ("What can't be seen? The train's last car...", "what ca n't be seen the train 's last car"),
        ("A sign says STOP - ALL WAY.", "a sign says stop all way"),
        (
            "A boy about to hit a baseball with his bat.A catcher waits.",
            "a boy about to hit a baseball with his bat.a catcher waits",
        ),
        ("A person that cannot ski", "a person that can not ski"),
        ("A Coca-Cola truck w/ red wheels", "a coca-cola truck w / red wheels"),
        ("Bananas cost $1.99 or 50% off", "bananas cost $ 1.99 or 50 % off"),
        ("a cake reading Happy 50th Birthday!!", "a cake reading happy 50th birthday !!"),
        ("1980s photo of a car", "1980s photo of a car"),
        ("'Happy' dog", "happy dog"),
        ("A couple of kids playin' video games", "a couple of kids playin video games"),
        ("She'll surf at 5 a.m. tomorrow", "she 'll surf at 5 a.m. tomorrow"),
        ("The dog says no.", "the dog says no"),
        ("Train no. 5 at mt. fuji is 6 ft. tall", "train no. 5 at mt. fuji is 6 ft. tall"),
        ("Harry S. Truman", "harry s. truman"),
    ],
)
def test_captions_are_divided_as_the_original_does(caption, original):
    assert " ".join(BRACKETS.get(word, word) for word in caption_words(caption)) == original


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        (
            "A man riding a wave on a surfboard.",
            [
                "A surfer rides a big wave.",
                "A man is riding a wave on top of a surfboard in the ocean.",
                "Person surfing",
            ],
            0.693181818181818,
        ),
        ("A man's hat isn't red", ["The man 's hat is not red .", "a hat"], 0.8591549295774649),
        (
            "A red double-decker bus, parked on a street!",
            ["The red bus is parked on the street.", "A double-decker bus parked."],
            0.8026315789473684,
        ),
        ("bus", ["A red double decker bus"], 0.2975609756097561),
        ("A cat on the mat. The cat sleeps on the mat near a door.", ["A cat sleeps on the mat."], 0.646643109540636),
        ("two dogs", ["A cat sleeps on a couch."], 0.0),
    ],
)
def test_scores_are_those_of_the_original(answer, references, score):
    assert rouge_l(answer, references) == pytest.approx(score, abs=1e-12)


WORDS = st.lists(st.sampled_from(["cat", "dog", "red"]), min_size=1, max_size=6).map(" ".join)


@settings(deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3), WORDS)
def test_another_caption_never_hurts(answer, references, another):
    assert rouge_l(answer, [*references, another]) >= rouge_l(answer, references) - 1e-12


def test_captions_without_a_word_are_refused():
    with pytest.raises(InputError, match=r"rouge_l compares words, and \['\?', ''\] have none; give captions"):
        rouge_l("a cup", ["?", ""])
