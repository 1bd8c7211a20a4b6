"""Texts brought into one form, so that only what a reader would call a difference is one."""

import re
import string
import unicodedata
from functools import lru_cache

_ONE_FORM = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−﹘﹣－", "-"),
        **dict.fromkeys("‘’‚‛′`´ʼ", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        "⁄": "/",
    }
)
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTION = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")
_GROUPED = re.compile(r"(?<=\d)[\u00a0\u202f\u2009'’](?=\d{3}(?!\d))")
THOUSANDS = r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"
"""Whole numbers with commas between groups, in the west and in India."""
_THOUSANDS = re.compile(rf"(?<![\d.,])(?:{THOUSANDS})(?!,\d)")
_CURRENCY = re.compile(r"(?<=[-+])[$€£¥]\s?(?=\.?\d)")
_MARKS = re.compile(
    r"(?P<kept>(?<=\d)[^\w\s](?=\d)"  # within a number, a date, a range
    r"|(?<![^\W_])[-<>](?=\.?\d)|(?<![^\W_])\.(?=\d)"  # at its beginning
    r"|(?<=[^\W_])[+#]+(?!\w)|(?:(?<=\b[a-z])|(?<=\b[a-z]{2}))-(?![\w-]))"  # C++, A+, B-
    r"|[^\w\s]|_"
)


@lru_cache(4096)
def plain(text: str) -> str:
    """A text in one Unicode form (NFKC), without case, with straight quotes and one kind of dash.

    Raised digits keep their meaning (10² is ``10^2``), and so do fractions (2½ is ``2 1/2``).
    """
    text = _RAISED.sub(lambda found: "^" + unicodedata.normalize("NFKC", found.group()), text)
    text = _FRACTION.sub(" ", _GROUPED.sub(",", text)).translate(_ONE_FORM)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_ONE_FORM)
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


@lru_cache(4096)
def folded(text: str) -> str:
    """A text in its `plain` form and without punctuation and runs of white space.

    What belongs to a number stays, its sign, its point and whatever else stands between two digits; commas between
    thousands go. So does what stands behind a letter in C++, A+ and B-. A text of nothing but punctuation stays whole.
    """
    bare = _CURRENCY.sub("", _THOUSANDS.sub(lambda found: found.group().replace(",", ""), plain(text)))
    words = _MARKS.sub(_kept, bare).split()
    return " ".join(words or bare.split())


def _kept(mark: re.Match[str]) -> str:
    text = mark.group()
    dropped = not mark["kept"] and (text in string.punctuation or unicodedata.category(text)[0] == "P")
    return "" if dropped else text
