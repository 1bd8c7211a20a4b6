"""Looking at a rule file: why a question goes where it goes, and which phrases can never decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clasp_calib.router_labeling.rules import Rule, RuleSet, phrase_matches, phrase_options

FILLER = "zzz"
"""A word that no rule knows; it stands for whatever else a question may hold."""


@dataclass(frozen=True)
class Explanation:
    """What the rules make of one question."""

    bare: str
    """The question as the rules see it: normalised, without what ``ignore`` names."""
    matching: tuple[Rule, ...]
    """All rules that match, in their order; the first decides."""
    phrases: tuple[tuple[str, ...], ...]
    """For each of them, its phrases that occur."""

    @property
    def decides(self) -> Rule | None:
        """The rule that decides, or None."""
        return self.matching[0] if self.matching else None


@dataclass(frozen=True)
class Shadowed:
    """A phrase that can never decide, because earlier rules match every question that holds it."""

    rule: str
    phrase: str
    by: tuple[str, ...]
    """Ids of the rules that come first."""
    whole_rule: bool
    """Whether no other phrase of the rule can decide either."""


def explain(rules: RuleSet, question: str) -> Explanation:
    """Which rules match ``question``, and by which phrases."""
    bare = rules.bare(question)
    matching = tuple(rule for rule in rules.rules if rules.holds(rule, bare))
    phrases = tuple(
        tuple(
            phrase for phrase in (*rule.pattern.any_, *rule.pattern.all_) if phrase_matches(phrase, rules.words, bare)
        )
        for rule in matching
    )
    return Explanation(bare, matching, phrases)


def shadowed(rules: RuleSet) -> list[Shadowed]:
    """Phrases (of ``any``, in rules without other conditions but ``not``) that can never decide.

    A phrase is tried on the shortest questions that hold it: each of its alternatives once, alone and between
    words that no rule knows. It is shadowed if an earlier rule matches all of them, and that earlier rule has no
    ``not``, or only such phrases as its own rule has in ``not`` too. Rules with ``all`` or ``regex`` are not
    judged, and combinations of alternatives are not tried, so what is found is worth a look and not a proof.
    """
    found = []
    for place, rule in enumerate(rules.rules):
        if rule.pattern.all_ or rule.pattern.regex:
            continue
        earlier = [r for r in rules.rules[:place] if set(r.pattern.not_) <= set(rule.pattern.not_)]
        caught = {phrase: _caught(phrase, rules, earlier) for phrase in rule.pattern.any_}
        whole = all(caught.values())
        found += [Shadowed(rule.id, phrase, by, whole) for phrase, by in caught.items() if by]
    return found


def unused_word_lists(rules: RuleSet) -> list[str]:
    """Names of word lists that no phrase uses."""
    phrases = [p for r in rules.rules for p in (*r.pattern.any_, *r.pattern.all_, *r.pattern.not_)]
    return [name for name in rules.words if not any(f"<{name}>" in phrase for phrase in phrases)]


def _caught(phrase: str, rules: RuleSet, earlier: Sequence[Rule]) -> tuple[str, ...]:
    """Ids of the earlier rules that together match all questions tried; empty if one question escapes."""
    by: dict[str, None] = {}
    for question in _questions(phrase, rules.words):
        first = next((rule for rule in earlier if rules.holds(rule, question)), None)
        if first is None:
            return ()
        by[first.id] = None
    return tuple(by)


def _questions(phrase: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Short questions that hold ``phrase``, with each of its alternatives at least once."""
    start, options, end = phrase_options(phrase, words)
    longest = max(len(alternatives) for alternatives in options)
    questions = []
    for turn in range(longest):
        core = " ".join(alternatives[turn % len(alternatives)] for alternatives in options)
        for gap in ("", FILLER):
            filled = " ".join(core.replace("...", gap).replace("*", FILLER).split())
            questions.append(filled)
            questions.append(f"{'' if start else FILLER + ' '}{filled}{'' if end else ' ' + FILLER}")
    return questions
