"""How far forwards over references show what greedy decoding says, and what that is worth.

B candidates, T tokens of a reference, V words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clasp_calib.calib.scoring.answer_metrics import exact
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.decoding import Greedy

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What the first bytes of a character are decoded to."""


class GreedyPaths:
    """The tokens that greedy decoding begins with, for each candidate on a sample.

    Args:
        greedy: how the model decodes.
        prompter: of the model.
        sample: with accepted answers.
        candidates: how many.
    """

    def __init__(self, greedy: Greedy, prompter: Prompter, sample: Sample, candidates: int) -> None:
        self._greedy, self._prompter, self._sample = greedy, prompter, sample
        self._known: list[tuple[int, ...]] = [()] * candidates
        self._worth: dict[tuple[int, ...], float | None] = {}

    def follow(self, prompt: Sequence[int], answer: Sequence[int], logits_BTV: Tensor, limit: int) -> None:
        """See how far the paths are a reference's, and the token after that.

        Args:
            prompt: its ids.
            answer: T ids of the reference.
            logits_BTV: of T + 1 tokens along it.
            limit: most new tokens.
        """
        choices_BT = self._greedy.choices(prompt, answer, logits_BTV, limit).cpu()
        alike_BT = choices_BT[:, :-1] == torch.tensor(answer, dtype=torch.long)
        for row, alike in enumerate(alike_BT.long().cumprod(1).sum(1).tolist()):
            if alike >= len(self._known[row]):
                self._known[row] = tuple(choices_BT[row, : min(alike + 1, limit)].tolist())

    @property
    def untold(self) -> bool:
        """Whether a path may still come to an accepted answer, in other tokens or behind white space."""
        return None in map(self._of, self._known)

    def settle(self, generated_BT: Tensor) -> None:
        """Take what was generated where the paths do not tell."""
        self._known = [
            tuple(ids) if self._of(known) is None else known
            for known, ids in zip(self._known, generated_BT.tolist(), strict=True)
        ]
        for ids in self._known:
            if self._of(ids) is None:
                self._worth[ids] = exact(self._text(ids), self._sample.answers)

    @property
    def scores(self) -> tuple[float, ...]:
        """1 where the answer is accepted."""
        return tuple(self._of(known) or 0.0 for known in self._known)

    def _of(self, ids: tuple[int, ...]) -> float | None:
        if ids not in self._worth:
            self._worth[ids] = self._judged(ids)
        return self._worth[ids]

    def _judged(self, ids: tuple[int, ...]) -> float | None:
        if any(token in self._greedy.ends for token in ids):
            return exact(self._text(ids), self._sample.answers)
        begun = _letters(self._text(ids).rstrip(UNFINISHED))
        return None if any(_letters(answer).startswith(begun) for answer in self._sample.answers) else 0.0

    def _text(self, ids: Sequence[int]) -> str:
        (text,) = self._prompter.decode([self._greedy.ended(ids)])
        return text


def _letters(text: str) -> str:
    """Without white space, which decoding may add and remove."""
    return "".join(text.split())
