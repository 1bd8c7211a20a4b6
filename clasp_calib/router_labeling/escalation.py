"""Asking a better labeler only where a cheaper one is not sure."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json
from clasp_calib.common.progress import note
from clasp_calib.router_labeling.labelers import Guess, Labeler, Scheme


@dataclass(frozen=True)
class EscalatingLabeler:
    """Takes the first labeler's guess where its confidence is ``below`` or more, and asks the second one elsewhere.

    Attributes:
        first: cheap, and states a calibrated confidence, as `EmbeddingLabeler` does.
        second: asked about the rest, for instance a `ServerLabeler`.
        below: in (0, 1].
    """

    first: Labeler
    second: Labeler
    below: float

    def __post_init__(self) -> None:
        """Refuse what asks for nothing."""
        if not isinstance(self.below, int | float) or not 0 < self.below <= 1:
            raise InputError(f"questions are passed on below a confidence of {self.below!r}; expected above 0, up to 1")

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text of both fingerprints and the confidence."""
        both = [json.loads(labeler.fingerprint(scheme)) for labeler in (self.first, self.second)]
        return canonical_json({"labeler": "escalating", "first": both[0], "second": both[1], "below": self.below})

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question: the sure ones first, then the others as they are answered.

        What the second labeler gives no label keeps the first one's guess.

        Raises:
            LabelerError: one of the labelers cannot be used, or stopped answering.
        """
        unsure: dict[int, Guess] = {}
        for index, guess in self.first.ask(questions, scheme):
            if guess.confidence is None or guess.confidence < self.below:
                unsure[index] = guess
            else:
                yield index, guess
        if not unsure:
            return
        places, failed = list(unsure), 0
        for place, guess in self.second.ask([questions[index] for index in places], scheme):
            index = places[place]
            failed += guess.source == "default"
            yield index, unsure[index] if guess.source == "default" else guess
        if failed:
            note(f"{failed} unsure questions got no label from the second labeler, and keep that of the first")
