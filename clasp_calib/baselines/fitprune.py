"""FitPrune: a recipe of how many tokens to drop after each layer, fitted so that attention stays as it was.

Ye et al., Fit and Prune: Fast and Training-free Visual Token Pruning for Multi-modal Large Language Models,
arXiv 2409.10197; released in https://github.com/ywh187/FitPrune (in ``LLaVA_1.5/llava`` commit 36bb116,
``model/language_model/modeling_llama.py``, and commit 2b70a5d, ``eval/statistical_analysis.py``).

N visual tokens of one row that are left, R tokens that attend.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row, RowPlan
from clasp_calib.baselines.method import Reader
from clasp_calib.baselines.solving import ImageDependent, Spread, solve_knob, spread_of
from clasp_calib.baselines.staged import count_of, everything
from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.checks import check_decoder
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.stages import PromptLengths

MOST = 24
"""Images that a recipe is fitted on. Our choice: means of this many shares are steady, and every layer is a stage."""
AT_ONCE = 64
"""Tokens that attend whose attention is in memory together."""
SHIPPED = {
    60: (14, 33, 89, 36, 36, 20, 55, 21, 18, 4, 7, 5, 2, 5, 7, 4, 26, 5, 11, 24, 4, 18, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    80: (128, 127, 118, 35, 26, 8, 13, 3, 2, 1, 0, 0, 0, 2, 1, 8, 7, 8, 5, 11, 2, 6, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0),
    90: (262, 153, 80, 19, 13, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0),
}
"""Of LLaVA-1.5-7B's 576 tokens, by the reduction of FLOPs in percent that the authors name them by."""


def shipped(reduction: int) -> tuple[float, ...]:
    """A recipe that the authors fitted for LLaVA-1.5-7B, as shares."""
    return tuple(count / 576 for count in SHIPPED[reduction])


def ratings(row: Row) -> tuple[Tensor, Tensor]:
    """What each visual token gets in the layer before, in the head where it is most: means over those who attend.

    Returns:
        float32 [N] from the text after the picture, and [N] from the visual tokens.
    """
    found = []
    for givers_R in (row.text_W, row.visual_N):
        sums = [row.attention(part).amax(0).sum(0) for part in torch.split(givers_R, AT_ONCE)]
        found.append(torch.stack(sums).sum(0) / len(givers_R))
    return found[0], found[1]


def droppable(given_N: Tensor, whole: float, alpha: float) -> Tensor:
    """The tokens that get least, as many as leave ``1 - alpha`` of what all got without pruning, bool [N].

    One is always left; of equal ones the first goes first.

    Args:
        given_N: attention, floating.
        whole: of all tokens, before any was dropped.
        alpha: the share of it that may be lost.
    """
    order_N = first_largest(-given_N, len(given_N))
    left_N = given_N.sum() - given_N[order_N].cumsum(0)
    many = int((left_N[:-1] >= (1 - alpha) * whole).sum())
    return torch.zeros_like(given_N, dtype=torch.bool).index_fill(0, order_N[:many], True)


@dataclass(frozen=True)
class FitPrune(ImageDependent):
    """Drops the tokens with the least product of both ratings, as many after each layer as the recipe says.

    Position ids are kept. A recipe is fitted on images (`calibrated`), and the number of tokens does not depend on the
    picture then.

    Our choice: the authors look for the ratio of attention that may be lost at which FLOPs come down far enough, and
    stop dropping where that is so; here the mean number of tokens a layer decides, and all layers follow the ratio.
    """

    name: ClassVar[str] = "fitprune"
    paper: ClassVar[str] = "arXiv 2409.10197"
    semantics: ClassVar[str] = "reduction of FLOPs"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {f"{cut}%": {"recipe": shipped(cut)} for cut in SHIPPED}

    recipe: tuple[float, ...] = shipped(60)
    """Share of the row's tokens that is dropped after each layer, before the next."""

    def calibrated(
        self, model: nn.Module, images: Iterable[Mapping[str, Any]], budget: str | int
    ) -> tuple[Self, Spread]:
        """See `ImageDependent`; of more images `MOST` are taken, evenly."""
        adapter = self.adapter_for(model)
        check_decoder(model, "keep")
        wanted, given = pruning_budget(adapter, budget), list(images)
        few = min(MOST, len(given))
        fit = _Fit(model, adapter, [given[number * len(given) // few] for number in range(few)])
        what = f"{self.name} with ratio of attention that may be lost"
        offered = [tokens[0] for tokens in fit.tokens(0.0)]
        alpha, _ = solve_knob(fit.means, fmean(map(wanted.of, offered)), 0.0, 1.0, what, near=0.5, steps=0)
        rows = [(*row, row[-1]) for row in fit.tokens(alpha)]
        shares = [[(a - b) / row[0] for a, b in pairwise(row)] for row in rows]
        method = replace(self, recipe=tuple(map(fmean, zip(*shares, strict=True))))
        return method, spread_of([fmean(count_of(1 - gone, row) for gone in method.gone) for row in offered])

    @property
    def gone(self) -> tuple[float, ...]:
        """Share of the tokens that each layer does not see any more."""
        return tuple(accumulate(self.recipe[:-1], initial=0.0))

    def choose(self, layer: int, row: Row) -> KeptTokens:
        """What goes on into a layer."""
        keep = count_of(1 - self.gone[layer], row.came)
        if keep >= len(row.visual_N):
            return everything(row)
        by_text_N, by_others_N = ratings(row)
        return KeptTokens(first_largest(by_text_N * by_others_N, keep).sort().values)

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`.

        Raises:
            BudgetError: the recipe is for a decoder of another depth.
        """
        layers = adapter.decoder_layers
        if len(self.recipe) != layers:
            raise BudgetError(
                f"fitprune's recipe is for a decoder of {len(self.recipe)} layers, and this one has {layers}; "
                "fit one on images of yours with FitPrune().calibrated(model, images, budget)"
            )
        check_decoder(model, "keep")
        starts = tuple(layer for layer in range(1, layers) if self.recipe[layer - 1] > 0)
        plan = RowPlan(
            lambda stage, row: self.choose(starts[stage], row),
            starts,
            "keep",
            adapter.language_model(model),
            prompt_lengths,
        )
        pruner = Pruner(model, adapter, plan)
        with pruner.attached():
            yield lambda: pruner.stats


class _Fit:
    """What a ratio of attention that may be lost would leave of some prompts, layer by layer."""

    def __init__(self, model: nn.Module, adapter: Adapter, prompts: list[Mapping[str, Any]]) -> None:
        self._model, self._adapter, self._prompts = model, adapter, prompts
        self._whole: dict[tuple[int, int, int], tuple[float, float]] = {}
        self._prompt, self._alpha = 0, 0.0

    def means(self, alpha: float) -> list[float]:
        """Mean tokens a layer of every row."""
        return [fmean(row) for row in self.tokens(alpha)]

    @torch.no_grad()
    def tokens(self, alpha: float) -> list[tuple[int, ...]]:
        """Tokens that each layer works on, of every row with a picture.

        The first call learns what attention is without pruning, and prunes nothing.
        """
        decoder, self._alpha = self._adapter.language_model(self._model), alpha
        plan = RowPlan(self._choose, tuple(range(1, self._adapter.decoder_layers)), "keep", decoder)
        pruner, found = Pruner(self._model, self._adapter, plan), list[tuple[int, ...]]()
        with pruner.attached():
            for number, prompt in enumerate(self._prompts):
                self._prompt = number
                self._model(**prompt, use_cache=False, logits_to_keep=1)
                assert pruner.stats is not None
                found += [row for row in pruner.stats.tokens if row[0]]
        return found

    def _choose(self, stage: int, row: Row) -> KeptTokens:
        rated, place = ratings(row), (self._prompt, row.number, stage)
        if place not in self._whole:
            self._whole[place] = (float(rated[0].sum()), float(rated[1].sum()))
            return everything(row)
        lost_N = torch.ones_like(rated[0], dtype=torch.bool)
        for given_N, whole in zip(rated, self._whole[place], strict=True):
            lost_N &= droppable(given_N, whole, self._alpha)
        return KeptTokens((~lost_N).nonzero().flatten())
