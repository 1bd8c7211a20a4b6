"""Numbers as people write them, in digits and in English words."""

import re
from dataclasses import dataclass
from fractions import Fraction

from clasp_calib.calib.scoring.folding import THOUSANDS, plain

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_SCALES = {"hundred": 100, "dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORD = rf"(?:{'|'.join([*_VALUES, *_SCALES])})"
_PERCENT = r"\s?(?P<percent>%|per\s?cent\b)"
_DIGITS = r"(?P<body>\.?\d(?:[\d.,:/^'-]*\d)?)(?:e(?P<power>[-+]?\d{1,3})(?!\w))?"
_POINT = rf"\spoint(?P<point>(?:\s(?:{'|'.join(_SMALL[:10])})\b)+)"
_ODD = r"(?:\sand\sa)?[\s-](?:half|halves|thirds?|quarters?|fifths?|sixths?|eighths?|tenths?)\b"
_FIRST = re.compile(
    r"(?P<sign>(?<![\w)])[-+]|\b(?:minus|negative)\s)?"
    rf"(?:{_DIGITS}(?P<parts>\s\d+/\d+)?(?:\s?(?P<scale>{'|'.join(_SCALES)})\b|(?P<kilo>k)\b)?"
    rf"|(?<!\bno )\b(?P<words>{_WORD}\b(?:[\s-]+(?:and\s)?{_WORD}\b)*)(?:{_POINT})?(?P<odd>{_ODD})?)"
    rf"(?:{_PERCENT})?"
)
_WHOLE = re.compile(rf"(?P<sign>[-+])?{_DIGITS}(?:{_PERCENT})?\.?")
_SPACED = re.compile(r"\d{1,3}(?:\s\d{3})+(?!\d)")
_PLAIN = re.compile(rf"(?:{THOUSANDS}|\d+)?(?:\.\d+)?")
_CURRENCY = re.compile(r"[$€£¥]\s?")
_LONGEST = 400


@dataclass(frozen=True)
class Numeral:
    """A number that a text holds."""

    value: Fraction
    """As it is written: 50 for ``50 %``."""
    percent: bool = False

    def same(self, other: "Numeral") -> bool:
        """Whether both mean one number: 50 % is 50 %, and 50 in answer to how many per cent, and one half."""
        if self.percent == other.percent:
            return self.value == other.value
        share, number = (self, other) if self.percent else (other, self)
        return number.value in (share.value, share.value / 100)


def first_number(text: str) -> Numeral | None:
    """The first number in a text: ``-5``, ``.5``, ``1,000``, ``$3.50``, ``1e3``, ``2 1/2``, ``50 %``, ``3 million``,
    ``two hundred and five``, ``minus three``, ``two point five``, ``a dozen``.

    None where there is none, or where it is unclear which it is: a range, a date, a time, ``1,5``, ``1 000``,
    ``one third``, ``nineteen eighty``.
    """
    bare = _CURRENCY.sub("", plain(text))
    found = _FIRST.search(bare)
    if found is None or found["odd"] or (found["body"] and _SPACED.match(bare, found.start("body"))):
        return None
    if found["words"]:
        value = _of_words(found["words"])
        if value is not None and found["point"]:
            value += Fraction("0." + "".join(str(_VALUES[word]) for word in found["point"].split()))
    else:
        value = _of_digits(found["body"], found["power"])
        parts = _of_digits(found["parts"].strip(), None) if found["parts"] else Fraction(0)
        value = None if value is None or parts is None else value + parts
        if value is not None:
            value *= 1000 if found["kilo"] else _SCALES.get(found["scale"] or "", 1)
    if value is None:
        return None
    return Numeral(-value if found["sign"] and found["sign"] != "+" else value, found["percent"] is not None)


def whole_number(text: str) -> Numeral | None:
    """The number that a text is, in digits; None if there is anything else in it."""
    found = _WHOLE.fullmatch(_CURRENCY.sub("", plain(text)).strip())
    value = None if found is None else _of_digits(found["body"], found["power"])
    if found is None or value is None:
        return None
    return Numeral(-value if found["sign"] == "-" else value, found["percent"] is not None)


def _of_digits(body: str, power: str | None) -> Fraction | None:
    if len(body) > _LONGEST:
        return None
    over = re.fullmatch(r"(\d+)/(\d+)", body)
    if over and power is None:
        return Fraction(int(over[1]), int(over[2])) if int(over[2]) else None
    if not _PLAIN.fullmatch(body):
        return None
    return Fraction(body.replace(",", "")) * Fraction(10) ** int(power or 0)


def _of_words(text: str) -> Fraction | None:
    """The first number of a run of number words; None if the next one is not parted from it by *and*."""
    total, part, last = 0, 0, 10**15
    told = False
    for joint, word in re.findall(rf"(and\s)?({_WORD})\b", text):
        value = _VALUES.get(word, 0)
        if word in _SCALES:
            scale = _SCALES[word]
            fits = scale < last and (told or total == 0) and (scale != 100 or part < 100) and not (told and part == 0)
            if fits and scale == 100:
                part, told = (part or 1) * scale, True
            elif fits:
                total, part, told, last = total + (part if told else 1) * scale, 0, False, scale
        else:
            units = not joint and part % 100 >= 20 and part % 10 == 0 and 0 < value < 10
            fits = not told or (value > 0 and ((part > 0 and part % 100 == 0) or units))
            part, told = (part + value, True) if fits else (part, told)
        if not fits:
            return Fraction(total + part) if joint else None
    return Fraction(total + part)
