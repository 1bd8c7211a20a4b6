"""Keyword rules against classes given by hand: which of them lose more questions than they win."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import comb
from typing import Literal

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_set import Samples
from clasp_calib.router_labeling.labelers import Scheme
from clasp_calib.router_labeling.replies import class_answered
from clasp_calib.router_labeling.rules import Rule
from clasp_calib.router_labeling.table import classes_by_hand

SIGNIFICANT = 0.05
"""Our choice: a rule is said to lose if chance alone would make as many of its changes bad with less probability."""

Role = Literal["overriding", "alone"]
OVERRIDING: Role = "overriding"


@dataclass(frozen=True)
class JudgedRule:
    """What a rule is worth in one of its roles, beside what the questions would get without it."""

    rule: str
    """Its id."""
    role: Role
    """``overriding``: in place of a labeler's answer; ``alone``: where nobody was asked."""
    questions: int
    """That it decides, of those with a class by hand."""
    right: int
    right_without: int
    """Without it: the labeler's answer, or what the other rules say."""
    won: int
    """Questions that are right because of it."""
    lost: int
    """Questions that would be right without it."""

    @property
    def chance(self) -> float:
        """Probability that at least as many of the questions that it turns are lost, if each is won or lost by a coin.

        This is the exact sign test, one-sided.
        """
        turned = self.won + self.lost
        return float(sum(comb(turned, lost) for lost in range(self.lost, turned + 1)) / 2**turned)

    @property
    def loses(self) -> bool:
        """Whether it loses more than it wins, by more than chance explains."""
        return self.lost > self.won and self.chance < SIGNIFICANT


@dataclass
class _Count:
    questions: int = 0
    kinds: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    """(right, right without the rule) -> questions."""


def judged_rules(samples: Samples, scheme: Scheme) -> list[JudgedRule]:
    """Judge each rule by the questions that it decides, one rule at a time, as if all others stayed.

    Where a column ``raw`` holds what a labeler answered, only rules that override decide, and without them this answer
    stands. Elsewhere the first rule that matches decides, and without it the next one, or the default class.

    Args:
        samples: with classes by hand, in a column ``gold_class`` or in rows of the source gold.
        scheme: the rules, and the taxonomy of these classes.

    Returns:
        Those that decide a question with a class by hand, those that lose most first.

    Raises:
        InputError: there is no class by hand, or one that the taxonomy lacks.
    """
    taxonomy, table = scheme.taxonomy, samples.table
    truth = classes_by_hand(table, taxonomy)
    if not any(truth):
        raise InputError(
            f"{samples.name} has no classes by hand to judge rules by; give a table with a column 'gold_class' "
            f"({', '.join(taxonomy.classes)})"
        )
    raws = table["raw"].to_pylist() if "raw" in table.column_names else [None] * table.num_rows
    counts: dict[tuple[str, Role], _Count] = {}
    for gold, raw, sample in zip(truth, raws, samples, strict=True):
        if gold is None:
            continue
        matching = scheme.rules.matching(sample.question)
        rule = next(matching, None)
        if rule is None or (raw and not rule.overrides):
            continue
        without = class_answered(raw, taxonomy) if raw else _class_of(matching, scheme)
        count = counts.setdefault((rule.id, OVERRIDING if raw else "alone"), _Count())
        count.questions += 1
        count.kinds[taxonomy.class_of(rule.intent) == gold, without == gold] += 1
    found = [_judged(*key, count) for key, count in counts.items()]
    return sorted(found, key=lambda one: (one.won - one.lost, one.chance))


def _judged(rule: str, role: Role, count: _Count) -> JudgedRule:
    kinds = count.kinds
    both, won, lost = kinds[True, True], kinds[True, False], kinds[False, True]
    return JudgedRule(rule, role, count.questions, both + won, both + lost, won, lost)


def _class_of(matching: Iterator[Rule], scheme: Scheme) -> str:
    rule = next(matching, None)
    return scheme.taxonomy.default_class if rule is None else scheme.taxonomy.class_of(rule.intent)
