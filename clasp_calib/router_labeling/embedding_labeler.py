"""Labels by a sentence embedding: a model of 23 MB on a CPU, a linear head, and the keyword rules as a weak vote."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json
from clasp_calib.common.progress import note
from clasp_calib.router_labeling.embedders import Embedder, MiniLM, TransformersEmbedder
from clasp_calib.router_labeling.intent_head import NO_VOTE, IntentHead, class_probabilities, load_head
from clasp_calib.router_labeling.labelers import Guess, Scheme
from clasp_calib.router_labeling.language import is_not_english
from clasp_calib.router_labeling.plain_question import plain_question
from clasp_calib.router_labeling.rules import RuleSet
from clasp_calib.router_labeling.taxonomy import packaged

CHUNK = 1024
"""Questions that are embedded between two saves, sorted by length among themselves."""


@dataclass(frozen=True)
class EmbeddingLabeler:
    """Embeds questions on this machine and names the likeliest intent; no language model, no network.

    ``confidence`` is the calibrated probability of the class; the packaged embedding states none of a question that is
    plainly not English. Of the class that is likeliest, the likeliest intent is named.

    Attributes:
        head: what `train_labeler` made, or its file; by default the packaged one, which knows the packaged taxonomy.
        embedder: directory or Hub id of the encoder that the head was trained on; by default the packaged one.
        revision: commit or tag of that Hub id.
        default_below: a question whose class is less probable gets the default intent, and the source ``default``.
    """

    head: IntentHead | str | Path | None = None
    embedder: str | None = None
    revision: str | None = None
    default_below: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not isinstance(self.default_below, int | float) or not 0 <= self.default_below <= 1:
            raise InputError(f"default_below is {self.default_below!r}; expected a probability, from 0 to 1")
        if self.revision is not None and self.embedder is None:
            raise InputError(f"revision {self.revision!r} is given without an embedder; name the one that it is of")

    @cached_property
    def trained(self) -> IntentHead:
        """The head.

        Raises:
            InputError: it cannot be read, or was trained on vectors of another embedder.
        """
        given = packaged("assets/intent-head.safetensors") if self.head is None else self.head
        head = given if isinstance(given, IntentHead) else load_head(Path(str(given)))
        if head.embedder != self.vectors.identity:
            raise InputError(
                f"the labeler's head was trained on vectors of {head.embedder}, and is given those of "
                f"{self.vectors.identity}; name the head's own embedder (--embedder, or none for the packaged one), or "
                "train a head for this one with `clasp-calib train-labeler --embedder`"
            )
        return head

    @cached_property
    def vectors(self) -> Embedder:
        """What embeds."""
        return MiniLM() if self.embedder is None else TransformersEmbedder(self.embedder, self.revision)

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text with the digests of embedder, head, rules and taxonomy.

        Raises:
            InputError: the head cannot be read, or is of another taxonomy.
        """
        head = self.trained
        if (head.taxonomy, head.intents) != (scheme.taxonomy.digest, tuple(scheme.taxonomy.intents)):
            knows = (
                "packaged head knows the packaged taxonomy only" if self.head is None else "head knows its own taxonomy"
            )
            raise InputError(
                f"the {knows}, and labels are asked for of another; train a head on questions labelled by that: "
                "`clasp-calib train-labeler LABELS --taxonomy FILE --out HEAD`, then label with --head HEAD"
            )
        if head.rules != scheme.rules.digest:
            note("the labeler's head was trained with other keyword rules than those given: its confidence may be off")
        told = {"embedder": head.embedder, "head": head.digest, "default_below": self.default_below}
        digests = {"rules": scheme.rules.digest, "taxonomy": scheme.taxonomy.digest}
        return canonical_json({"labeler": "embedding", **told, **digests})

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question, in order.

        Raises:
            LabelerError: the embedder cannot be used.
            InputError: see `trained`.
        """
        head, taxonomy = self.trained, scheme.taxonomy
        classes = np.array([taxonomy.classes.index(taxonomy.class_of(intent)) for intent in head.intents])
        for begin in range(0, len(questions), CHUNK):
            votes = rule_votes(questions[begin : begin + CHUNK], scheme.rules, head.intents)
            chunk = [plain_question(question, scheme.rules) for question in questions[begin : begin + CHUNK]]
            found = head.probabilities(chunk, self.vectors.embed(chunk), votes)
            sums = class_probabilities(found, head.intents, taxonomy)
            likeliest = sums.argmax(1)
            within = np.where(classes[None] == likeliest[:, None], found, -1.0).argmax(1)
            for place, (class_, intent) in enumerate(zip(likeliest, within, strict=True)):
                named, sure = head.intents[intent], round(float(sums[place, class_]), 4)
                if self.embedder is None and is_not_english(questions[begin + place]):
                    # The packaged embedding is just as sure of what it does not understand.
                    yield begin + place, Guess(named, None, canonical_json({"intent": named}), "embedding")
                elif sure < self.default_below:
                    yield begin + place, Guess(taxonomy.default_intent, sure, "", "default")
                else:
                    yield begin + place, Guess(named, sure, canonical_json({"intent": named}), "embedding")


def rule_votes(questions: Sequence[str], rules: RuleSet, intents: Sequence[str]) -> list[int]:
    """Of each question the place of the intent that the first matching rule names, or `NO_VOTE`."""
    matches = [rules.match(question) for question in questions]
    return [NO_VOTE if rule is None else intents.index(rule.intent) for rule in matches]
