"""Random pruning at the stages of a schedule: the floor that any method must beat.

`clasp_calib.baselines.controls.RandomTokens` draws once, before the decoder.

B rows, N visual tokens of a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clasp_calib.runtime.selection import Selection, Selector

NAME = "random"
"""What it is called in tables and on the command line."""


class RandomPruning:
    """Keeps tokens at random, alike for all, without replacement; a `clasp_calib.runtime.selection.Selector`.

    A stage chooses among what the stage before left, so that the choices are nested. The same seed and the
    same calls in the same order give the same choices, on every device: make one for each sample to be
    independent of the order of samples.
    """

    needs_gram = False

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, relevance_BN: Tensor, gram_BNN: Tensor | None, counts_B: Tensor, rho_B: Tensor, valid_BN: Tensor
    ) -> Selection:
        """Keep ``counts_B`` of the valid tokens; none of them is a pivot."""
        noise_BN = torch.rand(valid_BN.shape, generator=self._generator).to(valid_BN.device)
        order_BN = noise_BN.masked_fill(~valid_BN, torch.inf).argsort(dim=1, stable=True)
        first_BN = torch.arange(valid_BN.shape[1], device=valid_BN.device) < counts_B.to(valid_BN.device)[:, None]
        keep_BN = torch.zeros_like(valid_BN).scatter(1, order_BN, first_BN) & valid_BN
        return Selection(keep_BN, torch.zeros_like(keep_BN))


class RandomRows:
    """Random pruning in some rows, and another selection in the others; a `clasp_calib.runtime.selection.Selector`.

    Each random row keeps what `RandomPruning` of its seed keeps alone, whatever stands beside it.

    Args:
        seeds: one a row; ``None`` where ``others`` chooses.
        others: sees its own rows only.
    """

    def __init__(self, seeds: Sequence[int | None], others: Selector) -> None:
        self._random = {row: RandomPruning(seed) for row, seed in enumerate(seeds) if seed is not None}
        self._rest = [row for row, seed in enumerate(seeds) if seed is None]
        self._others = others

    @property
    def needs_gram(self) -> bool:
        """Whether the other selection needs it."""
        return bool(self._rest) and self._others.needs_gram

    def __call__(
        self, relevance_BN: Tensor, gram_BNN: Tensor | None, counts_B: Tensor, rho_B: Tensor, valid_BN: Tensor
    ) -> Selection:
        """See `clasp_calib.runtime.selection.Selector`."""
        keep_BN, pivots_BN = torch.zeros_like(valid_BN), torch.zeros_like(valid_BN)
        parts = [([row], random) for row, random in self._random.items()]
        for rows, selector in [*parts, (self._rest, self._others)] if self._rest else parts:
            gram = gram_BNN[rows] if gram_BNN is not None and selector.needs_gram else None
            chosen = selector(relevance_BN[rows], gram, counts_B[rows], rho_B[rows], valid_BN[rows])
            keep_BN[rows], pivots_BN[rows] = chosen.keep_BN, chosen.pivots_BN
        return Selection(keep_BN, pivots_BN)
