"""The router: a small model that names the class of a question in a fraction of a millisecond.

It is linear in hashed n-grams, and may have a network on word vectors beside them. It needs numpy alone. Below its
threshold it abstains: the question gets the default class, because a wrong class may cost more than the default one
(Table 22 of the paper).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clasp_calib.router_labeling.ngrams import Hashing, buckets, canonical, features_of, spans
from clasp_calib.router_labeling.word_network import WordNetwork


@dataclass(frozen=True)
class RouterTraining:
    """What a router was trained on."""

    labels: str
    """sha256 of the labelled table's file."""
    rows: int
    """Labelled questions."""
    labelers: tuple[str, ...] = ()
    """Fingerprints of the labelers whose labels it was distilled from."""


Against = Literal["gold", "labels"]
"""What a router was judged by: classes given by hand, or the labels that it was distilled from."""


@dataclass(frozen=True)
class Shares:
    """Of questions that get their class, in [0, 1]."""

    accuracy: float
    macro: float
    """Mean over the classes that occur."""


@dataclass(frozen=True)
class RouterQuality:
    """How a router did on questions that it was not trained on."""

    against: Against
    """Agreement with labels is not accuracy: who repeats a labeler's mistakes agrees with it."""
    questions: int
    """That it was judged on, at least one."""
    accuracy: float
    """Share that gets its class, in [0, 1], abstentions and all."""
    macro: float
    """Mean over the classes that occur of the share of their questions that get it."""
    without: Shares | None = None
    """What answered without this router when it was trained, on the same questions; ``None``: nothing did, or the
    labels are its own."""

    def __str__(self) -> str:
        """In a few words."""
        by = "classes given by hand" if self.against == "gold" else "their labels"
        told = f"right in {self.accuracy:.1%} of {self.questions} held-out questions (macro {self.macro:.1%}) by {by}"
        other = self.without
        return f"{told}; without it {other.accuracy:.1%} ({other.macro:.1%})" if other else told


@dataclass(frozen=True)
class Decision:
    """What the router makes of one question."""

    label: str
    """The class to use: the default class where the router abstains."""
    likeliest: str
    """The class of largest probability."""
    confidence: float
    """Its calibrated probability, in [0, 1]."""
    abstained: bool


@dataclass(frozen=True)
class Reason:
    """A part of a question that spoke for a class."""

    text: str
    """An n-gram, or words as the network saw them; ``^`` and ``$`` are the ends of the question."""
    weight: float
    """What it adds to the class's logit beyond its mean over classes."""


@dataclass(frozen=True)
class Router:
    """Logits are ``(sum of weights[b] over the different buckets b) / sqrt(their number) + bias``, and the network's.

    Probabilities are the softmax of the logits divided by the temperature.
    """

    classes: tuple[str, ...]
    """Names, in the order of the artifact's."""
    default: str | None
    """The class that a question gets where the router abstains; ``None``: it never does."""
    taxonomy: str
    """Hex sha256 of the taxonomy that the labels follow, or of the classes and their column."""
    weights: NDArray[np.float32]
    """``[2**bits, classes]``"""
    bias: NDArray[np.float32]
    """``[classes]``"""
    temperature: float
    threshold: float
    """It abstains below this probability."""
    training: RouterTraining
    hashing: Hashing = field(default_factory=Hashing)
    network: WordNetwork | None = None
    """What it knows of words beside its n-grams, whose logits are added."""
    quality: RouterQuality | None = None
    """``None``: it is not known, as of files of format 1."""
    name: str = field(default="the router", compare=False)
    """What messages call it: its file, if it was read from one."""

    def __str__(self) -> str:
        """In a few words."""
        training = self.training
        when = (
            "never abstains" if self.default is None or not self.threshold else f"abstains below {self.threshold:.2f}"
        )
        how = str(self.quality) if self.quality else "how often it is right is not known"
        kind = "n-grams and word vectors" if self.network else "n-grams"
        return f"{kind}, trained on {training.rows} labels ({training.labels[:12]}), {when}; {how}"

    def logits(self, question: str) -> NDArray[np.float32]:
        """``[classes]``, before the temperature."""
        text = canonical(question)
        found = features_of(text, self.hashing)
        scores: NDArray[np.float32] = self.weights[found].sum(0) / np.float32(np.sqrt(max(1, len(found)))) + self.bias
        return scores if self.network is None else scores + self.network.logits(text)

    def probabilities(self, question: str) -> NDArray[np.float64]:
        """``[classes]``, calibrated."""
        return softmax(self.logits(question), self.temperature)

    def route(self, question: str) -> Decision:
        """The class of a question; ties go to the class that comes first."""
        probabilities = self.probabilities(question)
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        likeliest = self.classes[best]
        if self.default in (None, likeliest) or confidence >= self.threshold:
            return Decision(likeliest, likeliest, confidence, abstained=False)
        return Decision(self.default, likeliest, confidence, abstained=True)

    def reasons(self, question: str, label: str, limit: int = 8) -> list[Reason]:
        """The parts of a question that weighed most for a class, heaviest first.

        N-grams that share a bucket weigh together and are told by the longest of them.
        """
        text, place = canonical(question), self.classes.index(label)
        found = self._ngram_reasons(text, place)
        if self.network is not None:
            found += [Reason(words, weight) for words, weight in self.network.reasons(text, place)]
        heaviest = sorted(found, key=lambda reason: -reason.weight)[:limit]
        return [reason for reason in heaviest if reason.weight > 0]

    def _ngram_reasons(self, text: str, place: int) -> list[Reason]:
        found = spans(text, self.hashing)
        where = buckets(text, found, self.hashing.bits)
        longest: dict[int, str] = {}
        for bucket, start, end in zip(where.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True):
            if end - start > len(longest.get(bucket, "")):
                longest[bucket] = text[start:end]
        if not longest:
            return []
        rows = self.weights[list(longest)] / np.sqrt(len(longest))
        weights = (rows[:, place] - rows.mean(1)).tolist()
        return [Reason(ngram, weight) for ngram, weight in zip(longest.values(), weights, strict=True)]


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities along the last axis, in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return probabilities
