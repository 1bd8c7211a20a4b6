"""Task metrics: what an answer is worth against the accepted references, in [0, 1]."""

import re
import string
from collections.abc import Callable, Mapping, Sequence

from clasp_calib.common.errors import InputError

Metric = Callable[[str, Sequence[str]], float]

EXACT = "exact"
"""The answer's tokens, end of sequence included, are those of a reference. Scored without decoding."""


def exact(prediction: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference, to the letter."""
    return float(any(prediction == reference for reference in references))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference after case, punctuation and white space are folded."""
    return float(any(_fold(prediction) == _fold(reference) for reference in references))


def yes_no(prediction: str, references: Sequence[str]) -> float:
    """1 if the first yes or no of the answer is that of the reference (POPE's reading of free answers)."""
    said = re.search(r"\b(yes|no)\b", prediction.casefold())
    return float(said is not None and any(_fold(reference) == said.group() for reference in references))


METRICS: Mapping[str, Metric] = {EXACT: exact, "exact_match": exact_match, "yes_no": yes_no}


def metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
        InputError: there is none.
    """
    try:
        return METRICS[name]
    except KeyError:
        raise InputError(f"unknown metric {name!r}; expected one of {', '.join(METRICS)}") from None


def _fold(text: str) -> str:
    bare = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())
