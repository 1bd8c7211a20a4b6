"""Backends that name the intent of a question: the door they share, and the one that needs no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from clasp_calib.common.hashing import canonical_json
from clasp_calib.router_labeling.rules import RuleSet
from clasp_calib.router_labeling.taxonomy import Taxonomy

Source = Literal["llm", "rule", "gold", "default"]


@dataclass(frozen=True)
class Guess:
    """What a labeler says about one question."""

    intent: str
    """Slug of the intent."""
    confidence: float | None
    """In [0, 1]; what it means is the labeler's to say. None if it does not say how sure it is."""
    raw: str
    """What the backend answered, word for word; empty if it answered nothing."""
    source: Source = "llm"
    """``default`` says that the labeler could not place the question."""
    rule: str | None = None
    """Id of the rule that decided, if one did."""


class Labeler(Protocol):
    """Names intents. Order is kept: one guess a question."""

    @property
    def fingerprint(self) -> str:
        """JSON text of what decides a label: backend, versions, digests. Equal text, equal labels."""
        ...

    def label(self, questions: Sequence[str]) -> Iterator[Guess]:
        """One guess for each question, in order, as soon as it is known."""
        ...


@dataclass(frozen=True)
class KeywordLabeler:
    """Labels by keyword rules alone; what no rule matches gets the taxonomy's default intent.

    The confidence is 1.0 where a rule matched and 0.0 where none did: it tells the two apart and is not a
    probability. ``raw`` is empty, since nobody was asked.
    """

    rules: RuleSet
    taxonomy: Taxonomy

    @property
    def fingerprint(self) -> str:
        """JSON text with the digests of rules and taxonomy."""
        return canonical_json({"labeler": "keyword", "rules": self.rules.digest, "taxonomy": self.taxonomy.digest})

    def label(self, questions: Sequence[str]) -> Iterator[Guess]:
        """One guess for each question, in order."""
        for question in questions:
            rule = self.rules.match(question)
            if rule is None:
                yield Guess(self.taxonomy.default_intent, 0.0, "", source="default")
            else:
                yield Guess(rule.intent, 1.0, "", source="rule", rule=rule.id)
