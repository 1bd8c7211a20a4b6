"""What names the intent of a question: the door that all labelers share, and the one that needs no model."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json
from clasp_calib.router_labeling.rules import RuleSet, load_rules
from clasp_calib.router_labeling.taxonomy import Taxonomy, load_taxonomy

Source = Literal["llm", "embedding", "rule", "gold", "default"]


@dataclass(frozen=True)
class Guess:
    """What a labeler says about one question.

    Raises:
        InputError: a value is of another type, or out of bounds.
    """

    intent: str
    """Slug of the intent."""
    confidence: float | None
    """In [0, 1]; what it means is the labeler's to say. None if it does not say how sure it is."""
    raw: str
    """What the labeler answered, word for word; empty if it answered nothing."""
    source: Source = "llm"
    """``default`` says that the labeler could not place the question."""
    rule: str | None = None
    """Id of the rule that decided, if one did."""

    def __post_init__(self) -> None:
        """Refuse what would go on into labels and tables: labelers may be anybody's, and journals be damaged."""
        sure = self.confidence
        bounded = sure is None or (isinstance(sure, int | float) and not isinstance(sure, bool) and 0 <= sure <= 1)
        texts = all(isinstance(text, str) for text in (self.intent, self.raw, self.rule or ""))
        if not (bounded and texts and self.source in get_args(Source)):
            raise InputError(
                f"{self!r:.300} is no guess: expected texts, a confidence in [0, 1] or None, and a source among "
                f"{', '.join(get_args(Source))}"
            )


@dataclass(frozen=True)
class Scheme:
    """What questions are sorted into, and the keywords that settle some of them."""

    taxonomy: Taxonomy
    rules: RuleSet


class Labeler(Protocol):
    """Names the intents of questions. It is set up without a scheme, and is told of it with the questions."""

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text of what decides a label: the labeler, versions, digests. Equal text, equal labels.

        Raises:
            LabelerError: the labeler cannot be used.
        """
        ...

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index into ``questions``, guess) for each question, in any order, as soon as it is known.

        Raises:
            LabelerError: the labeler stopped answering.
        """
        ...


@dataclass(frozen=True)
class KeywordLabeler:
    """Labels by keyword rules alone; what no rule matches gets the taxonomy's default intent.

    The confidence is 1.0 where a rule matched and 0.0 where none did: it tells the two apart and is not a
    probability. ``raw`` is empty, since nobody was asked.
    """

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text with the digests of rules and taxonomy."""
        return canonical_json({"labeler": "keyword", "rules": scheme.rules.digest, "taxonomy": scheme.taxonomy.digest})

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question, in order."""
        for index, question in enumerate(questions):
            rule = scheme.rules.match(question)
            if rule is None:
                yield index, Guess(scheme.taxonomy.default_intent, 0.0, "", source="default")
            else:
                yield index, Guess(rule.intent, 1.0, "", source="rule", rule=rule.id)


def by_keywords(fingerprint: str) -> str | None:
    """The digest of the rules by which a `KeywordLabeler` labelled; ``None`` for the fingerprint of another labeler."""
    try:
        told = json.loads(fingerprint)
    except ValueError:
        return None
    known = isinstance(told, dict) and told.get("labeler") == "keyword"
    return str(told.get("rules")) if known else None


def load_scheme(taxonomy: Taxonomy | str | Path | None = None, rules: RuleSet | str | Path | None = None) -> Scheme:
    """A scheme of what is given: YAML files, what was read from them, or None for the packaged ones.

    Raises:
        InputError: a file is missing, is not YAML, or is no consistent taxonomy or rules; see `load_rules`.
    """
    taxonomy = load_taxonomy(taxonomy)
    if not isinstance(rules, RuleSet):
        rules = load_rules(None if rules is None else Path(rules), taxonomy)
    return Scheme(taxonomy, rules)
