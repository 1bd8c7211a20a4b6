"""Random selection in some rows at some stages: what a control replaces, beside what it is compared with.

B candidates of a forward, N visual tokens of a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clasp_calib.baselines.random_pruning import RandomPruning
from clasp_calib.runtime.selection import DualStage, Selection


class PartlyRandom:
    """The dual-stage selection, but at random in some rows at some stages; a `Selector`, made anew for each forward.

    Random choices depend on the seed and the stage alone, so that they do not change with what is scored beside.
    """

    needs_gram = True

    def __init__(self, seed: int, random: Sequence[Sequence[int]], stages: Sequence[int]) -> None:
        self._seed, self._stages = seed, list(stages)
        self._random = [frozenset(of) for of in random]
        self._dual = DualStage()

    def __call__(
        self, relevance_BN: Tensor, gram_BNN: Tensor | None, counts_B: Tensor, rho_B: Tensor, valid_BN: Tensor
    ) -> Selection:
        """See `clasp_calib.runtime.selection.Selector`; all rows have equally many tokens."""
        stage = self._stages.pop(0)
        at_random = torch.tensor([stage in of for of in self._random])
        dual = ~at_random
        keep_BN, pivots_BN = torch.zeros_like(valid_BN), torch.zeros_like(valid_BN)
        if at_random.any():
            chooser = RandomPruning(self._seed + stage)
            row = slice(0, 1)
            keep_1N = chooser(relevance_BN[row], None, counts_B[row], rho_B[row], valid_BN[row]).keep_BN
            keep_BN[at_random] = keep_1N
        if dual.any():
            gram = None if gram_BNN is None else gram_BNN[dual]
            chosen = self._dual(relevance_BN[dual], gram, counts_B[dual], rho_B[dual], valid_BN[dual])
            keep_BN[dual], pivots_BN[dual] = chosen.keep_BN, chosen.pivots_BN
        return Selection(keep_BN, pivots_BN)
