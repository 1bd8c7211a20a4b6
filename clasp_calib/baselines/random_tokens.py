"""Control: tokens at random."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


def at_random(patches: int, count: int, seed: int) -> Tensor:
    """``count`` of so many patches, all sets alike, rising; long, on the CPU."""
    return torch.randperm(patches, generator=torch.Generator().manual_seed(seed))[:count].sort().values


@dataclass(frozen=True)
class RandomTokens(InputMethod):
    """Without replacement, of all tiles together, in order, renumbered.

    The same places in every image of as many tokens, on every device: give each sample a ``seed`` of its own.
    """

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "control"
    by_tile: ClassVar[bool] = False

    seed: int = 0

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        return Kept(token_P[at_random(len(token_P), count, self.seed).to(token_P.device)])
