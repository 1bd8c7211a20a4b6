"""Numbers as people write them: what is spelt out is read back, and what is unclear is none."""

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from clasp_calib.calib.scoring.numerals import first_number, whole_number

SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
ONES = f"{SMALL} sixteen seventeen eighteen nineteen".split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905


def spelt(number, joint=" ", hundred_and=" and "):
    """A number in English words."""
    for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= scale:
            rest = number % scale
            more = (
                (hundred_and if scale == 100 or rest < 100 else " ") + spelt(rest, joint, hundred_and) if rest else ""
            )
            return f"{spelt(number // scale, joint, hundred_and)} {name}{more}"
    if number < 20:
        return ONES[number]
    return TENS[number // 10] + (joint + ONES[number % 10] if number % 10 else "")


@given(st.integers(0, 10**12 - 1), st.sampled_from([" ", "-"]), st.sampled_from([" ", " and "]), st.booleans())
def test_a_number_in_words_is_read_back(number, joint, hundred_and, negative):
    text = ("minus " if negative and number else "") + spelt(number, joint, hundred_and)
    for around in (text, f"There are {text}.", text.upper()):
        assert first_number(around).value == (-number if negative else number)


@given(st.decimals(-(10**9), 10**9, places=3, allow_nan=False))
def test_a_number_in_digits_is_read_back(number):
    for text in (f"{number}", f"{number:,}", f"{number:,} kg", f"it is {number}.", f"{number}".replace("-", "\u2212")):
        assert first_number(text).value == Fraction(number)
    assert whole_number(f" {number:,} ").value == Fraction(number)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".5", "1/2"),
        ("-.5", "-1/2"),
        ("$1,234.50", "2469/2"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\u20ac 5", "5"),
        ("1e3", "1000"),
        ("2.5e-2", "1/40"),
        ("3k", "3000"),
        ("2 million", "2000000"),
        ("1.5 billion people", "1500000000"),
        ("12,34,567", "1234567"),
        ("1\u00a0000", "1000"),
        ("1'000", "1000"),
        ("\u00bd", "1/2"),
        ("2\u00bd cups", "5/2"),
        ("3 1/4 inches", "13/4"),
        ("two point oh", "2"),
        ("two point five", "5/2"),
        ("a dozen eggs", "12"),
        ("two dozen", "24"),
        ("nineteen hundred", "1900"),
        ("two and three", "2"),
        ("2 and 3", "2"),
        ("3D", "3"),
        ("5 m\u00b2", "5"),
    ],
)
def test_what_is_a_number(text, value):
    assert first_number(text).value == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "none", "no one", "someone", "hundreds", "1,5", "10:30", "2020-01-02", "4-6", "4\u20136", "10\u00b2"),
        *("3.5.1", "1/0", "one third", "two and a half", "nineteen eighty four", "three four", "9" * 500),
        *("1 000", "12 345 678 people", "about 1 000,5"),
    ],
)
def test_what_is_none_or_unclear(text):
    assert first_number(text) is None


def test_percents_are_shares_and_numbers():
    half, fifty, percent = first_number("0.5"), first_number("50"), first_number("fifty per cent")
    assert percent.percent
    assert percent.same(first_number("50%"))
    assert percent.same(fifty)
    assert half.same(percent)
    assert not half.same(fifty)
    assert not percent.same(first_number("0.5 %"))


@given(st.text(max_size=30))
def test_any_text_has_a_number_or_none(text):
    first_number(text)
    found = whole_number(text)
    assert found is None or any(character.isdigit() for character in text) or text.strip()[:1] >= "\u00bc"
