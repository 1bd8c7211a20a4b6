"""Answers and solved knobs on disk as they come, so that nothing is done twice, whenever the process dies."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from clasp_calib.baselines.controls import RandomTokens
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.journal import Journal, JournalKind, number
from clasp_calib.common.samples import Sample

KIND = JournalKind(InputError, elsewhere="give another --run")
FORMERLY = "random"
"""What `RandomTokens` was called before random pruning at the stages had this name in a comparison, too."""


@dataclass(frozen=True)
class Asked:
    """What was asked of whom: which method with which knobs, at which budget, by which seed, about which sample."""

    method: str
    budget: str
    knobs: str
    seed: int
    sample: str


def knobs_key(knobs: Mapping[str, Any]) -> str:
    """What stands for knobs in `Asked`."""
    return sha256_json(dict(knobs))[:16]


def content_of(sample: Sample) -> str:
    """What stands for all of a sample that its answers and their scores depend on, pictures by what is in them.

    Raises:
        InputError: a picture cannot be read.
    """
    pictures = [image_key(one.picture) for one in sample.alone]
    return sha256_json([sample.question, pictures, sample.answers, sample.metric, sample.label])[:16]


@dataclass(frozen=True)
class Answered:
    """What came of it."""

    text: str
    score: float
    tokens: float
    """Mean visual tokens that a decoder layer worked on."""
    flops: float
    """Of the decoder layers in the prefill."""


class AnswerJournal:
    """The journal ``<directory>/answers-<16 hex of the identity's hash>.jsonl``, which begins with the identity.

    Args:
        directory: made if it is missing; ``None`` keeps answers in memory only.
        identity: all that decides answers but for what `Asked` says and for samples: model, prompt, decoding.
        contents: id of a sample -> `content_of` it; answers about another content are passed over. Without it samples
            never change.

    Raises:
        InputError: the file is damaged, cannot be written to, or another process is writing to it.
    """

    def __init__(
        self, directory: Path | None, identity: dict[str, Any], contents: Mapping[str, str] | None = None
    ) -> None:
        self._known: dict[Asked, Answered] = {}
        self._contents = contents or {}
        self.path = directory and directory / f"answers-{sha256_json(identity)[:16]}.jsonl"
        self._journal = Journal(self.path, self._take, KIND, head=identity)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, asked: Asked) -> Answered | None:
        """The answer, if it is known."""
        return self._known.get(asked)

    def add(self, asked: Asked, answered: Answered) -> None:
        """Keep an answer."""
        content = {"content": self._contents[asked.sample]} if self._contents else {}
        self._journal.append({"asked": asdict(asked), "answered": asdict(answered), **content})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def _take(self, entry: Any) -> None:
        found = Answered(**entry["answered"])
        if not isinstance(found.text, str):
            raise TypeError(f"{found.text!r:.40} is no text")
        for value in (found.score, found.tokens, found.flops):
            number(value)
        asked = Asked(**entry["asked"])
        if (asked.method, asked.knobs) == (FORMERLY, knobs_key({"keep": asked.budget})):
            asked = replace(asked, method=RandomTokens.name)
        if self._contents and self._contents.get(asked.sample) != entry.get("content"):
            return
        self._known[asked] = found


class SolvedKnobs:
    """The journal ``<directory>/knobs-<16 hex of the identity's hash>.jsonl``: knobs that took forwards to solve.

    Args:
        directory: made if it is missing; ``None`` keeps knobs in memory only.
        identity: all that decides them but for method and budget.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, directory: Path | None, identity: dict[str, Any]) -> None:
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self.path = directory and directory / f"knobs-{sha256_json(identity)[:16]}.jsonl"
        if self.path and self.path.exists():
            Journal(self.path, self._take, KIND, writable=False)

    def get(self, method: str, budget: str) -> dict[str, Any] | None:
        """The knobs of a method at a budget, if they are known."""
        return self._known.get((method, budget))

    def add(self, method: str, budget: str, knobs: dict[str, Any]) -> None:
        """Keep knobs.

        Raises:
            InputError: the file cannot be written to, or another process is writing to it.
        """
        with Journal(self.path, self._take, KIND) as journal:
            journal.append({"method": method, "budget": budget, "knobs": knobs})

    def _take(self, entry: Any) -> None:
        self._known[entry["method"], entry["budget"]] = dict(entry["knobs"])
