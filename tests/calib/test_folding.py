"""What exact match takes for the same text, against a slow reading of its rules, one character at a time."""

import string
import unicodedata

import pytest
from hypothesis import given, strategies as st

from clasp_calib.calib.scoring.folding import folded, plain

ASCII = st.text(st.sampled_from("ab01 .,-<>+#'()%$/:_!"), max_size=10)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Well-known", "wellknown"),
        ("don\u2019t", "DON'T"),
        ("10\u201312", "10-12"),
        ("1,234,567", "1234567"),
        ("12,34,567", "1234567"),
        ("1\u202f000", "1000"),
        ("-$5", "-5"),
        ("(5)", "5."),
        ("x\u00b2", "x2"),
        ("Stra\u00dfe", "STRASSE"),
        ("\ufb01ne", "fine"),
        ("\uff15", "5"),
        ("soft\u00adware", "software"),
        ("\u00bfQu\u00e9?", "que\u0301"),
        ("red.", "red"),
    ],
)
def test_what_is_the_same(one, other):
    assert folded(one) == folded(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("15", "1.5"),
        ("5", ".5"),
        ("5", "-5"),
        ("-.5", ".5"),
        ("105", "10-5"),
        ("1030", "10:30"),
        ("12", "1/2"),
        ("15", "1,5"),
        ("102", "10\u00b2"),
        ("21/2", "2\u00bd"),
        ("<5", ">5"),
        ("C", "C++"),
        ("B+", "B-"),
        ("5'10", "510"),
        ("+", "-"),
        ("?", ""),
    ],
)
def test_what_is_not(one, other):
    assert folded(one) != folded(other)


def slowly(text):
    """The rules of `folded` for ASCII text without commas between thousands, a character at a time."""
    text = text.casefold()
    for sign in "+-":
        for digit in "01":
            text = text.replace(f"{sign}${digit}", sign + digit).replace(f"{sign}$ {digit}", sign + digit)
            text = text.replace(f"{sign}$.{digit}", f"{sign}.{digit}").replace(f"{sign}$ .{digit}", f"{sign}.{digit}")
    kept, place = [], 0
    while place < len(text):
        character = text[place]
        before, after = text[place - 1 : place], text[place + 1 :]
        within = character != "_" and before.isdigit() and after[:1].isdigit()
        signs = character in "-<>" and after.removeprefix(".")[:1].isdigit()
        begins = not before.isalnum() and (signs or (character == "." and after[:1].isdigit()))
        if character not in string.punctuation or within or begins:
            kept.append(character)
        elif character in "+#" and before.isalnum():
            run = text[place:][: len(text[place:]) - len(text[place:].lstrip("+#"))]
            while run and text[place + len(run) :][:1].isalnum() | (text[place + len(run) :][:1] == "_"):
                run = run[:-1]
                if text[place + len(run) :][:1] in ("+", "#"):
                    break
            kept.append(run)
            place += max(len(run), 1)
            continue
        elif character == "-" and not (after[:1].isalnum() or after[:1] in ("_", "-")):
            word = ""
            for letter in reversed(text[:place]):
                if not (letter.isalnum() or letter == "_"):
                    break
                word = letter + word
            kept.append("-" if word.isalpha() and 1 <= len(word) <= 2 else "")
        place += 1
    return " ".join("".join(kept).split() or text.split())


@given(ASCII.filter(lambda text: "," not in text))
def test_folding_follows_its_rules(text):
    assert folded(text) == slowly(text)


@given(st.text(max_size=20))
def test_forms_of_a_text_fold_to_one(text):
    assert folded(unicodedata.normalize("NFC", text)) == folded(unicodedata.normalize("NFD", text))
    assert folded(text.strip()) == folded(f"  {text} ")
    assert plain(plain(text)) == plain(text)
