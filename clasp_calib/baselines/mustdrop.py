"""MustDrop: tokens are merged in the tower, dropped in the prefill, and then from the cache as well.

Liu et al., Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language Model, arXiv 2411.10803.

N patches of one picture, M tokens after merging, C width of the tower, W text tokens of one row.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row, RowPlan
from clasp_calib.baselines.mechanisms.shrinking import Shrunk, shrinking_tower
from clasp_calib.baselines.method import Reader
from clasp_calib.baselines.solving import ImageDependent, Spread, solve_knob
from clasp_calib.baselines.staged import everything, in_depth
from clasp_calib.baselines.tower_method import patches_of
from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.checks import check_decoder
from clasp_calib.runtime.encoding import Encoded, Kept as KeptOfImage, chosen_tokens
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.flops import tower_flops
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.stages import PromptLengths

EXPONENTS = (-6.0, 0.0)
"""Of ten: the thresholds that a budget is looked for in."""


def merged_windows(
    features_NC: Tensor, grid: tuple[int, int], threshold: float = 0.8, side: int = 3
) -> tuple[Tensor, Tensor]:
    """Windows whose patches are alike become one token each.

    Args:
        features_NC: what leaves the tower's first block, without the class token, row by row of the grid.
        grid: rows and columns of patches.
        threshold: mean cosine of a window's pairs from which on it is merged.
        side: rows and columns of a window.

    Returns:
        The tokens [M, C], merged windows first and the most alike first, then the rest in order; and for every patch
        the token that it went into, long [N].
    """
    rows, columns = grid
    place_yx = torch.arange(rows * columns, device=features_NC.device).view(rows, columns)
    # Our choice: patches beyond the last whole window stay as they are; MustDrop refuses such grids.
    whole_yx = place_yx[: rows // side * side, : columns // side * side]
    windows_Ww = whole_yx.unfold(0, side, side).unfold(1, side, side).reshape(-1, side * side)
    unit_Wwc = functional.normalize(features_NC.float(), dim=1)[windows_Ww]
    pairs = side**2 * (side**2 - 1)
    alike_W = ((unit_Wwc @ unit_Wwc.mT).sum((1, 2)) - unit_Wwc.square().sum((1, 2))) / pairs
    merge_w = first_largest(alike_W, int((alike_W >= threshold).sum()))
    token_N = torch.full((len(features_NC),), -1, device=features_NC.device)
    token_N[windows_Ww[merge_w].flatten()] = torch.arange(len(merge_w), device=token_N.device).repeat_interleave(
        side**2
    )
    rest_N = token_N < 0
    token_N[rest_N] = len(merge_w) + torch.arange(int(rest_N.sum()), device=token_N.device)
    means_wC = features_NC[windows_Ww[merge_w]].float().mean(1).to(features_NC.dtype)
    return torch.cat([means_wC, features_NC[rest_N]]), token_N


def key_tokens(class_attention_M: Tensor, share: float = 0.08) -> Tensor:
    """Tokens that are never dropped: those that the class token attends to most, at least one; bool [M]."""
    keys_M = torch.zeros(len(class_attention_M), dtype=torch.bool, device=class_attention_M.device)
    keys_M[first_largest(class_attention_M, math.ceil(share * len(keys_M)))] = True
    return keys_M


def dual_attention(attention_WM: Tensor, key_M: Tensor, total: float, single: float) -> Tensor:
    """Tokens that stay, bool [M]: key tokens, and what the text as a whole or one token of it looks at.

    Args:
        attention_WM: attention of the text after the picture, mean over heads.
        key_M: bool, key tokens.
        total: share of all the text's attention to the picture that saves a token (``global_thr``).
        single: attention of one text token that saves a token (``individual_thr``).
    """
    sum_M, most_M = attention_WM.sum(0), attention_WM.amax(0)
    return key_M | (sum_M >= total * sum_M.sum()) | (most_M >= single)


@dataclass(frozen=True)
class MustDrop(ImageDependent):
    """Windows are merged after the tower's first block; what leaves decoder layers 2, 6, 10 and 14 is thinned out.

    What the tower merged enters first, the windows most alike leading; all is numbered anew at every stage. Once the
    prefill is over, layers 2 to 14 forget what did not survive all of it; a generated token has in every layer the
    position that counts what this layer still holds. How many tokens there are depends on picture
    and question: a budget is met by solving one threshold for both tests (`calibrated`).

    Deviations: the authors tune two thresholds by benchmark, and let a batch of pictures merge as many windows as the
    picture with the fewest.
    """

    images_only: ClassVar[bool] = True
    merges_in_tower: ClassVar[bool] = True
    name: ClassVar[str] = "mustdrop"
    paper: ClassVar[str] = "arXiv 2411.10803"
    semantics: ClassVar[str] = "mean over layers of what leaves them, as many as attention spares"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "192": {"total": 0.001, "single": 0.001},
        "128": {"total": 0.0012, "single": 0.001},
        "64": {"total": 0.011, "single": 0.01},
    }

    starts: tuple[int, ...] = (2, 3, 7, 11, 15)
    """At the first nothing is dropped: it begins the layers whose keys are dropped afterwards."""
    total: float = 0.001
    """Share of all the text's attention to the picture that saves a token."""
    single: float = 0.001
    """Attention of one text token that saves a token."""
    alike: float = 0.8
    """Mean cosine from which on a window is merged."""
    side: int = 3
    """Patches of a window, each way."""
    keys: float = 0.08
    """Share of the tokens that are never dropped, by class attention in the tower's last block."""
    patches: float | None = None
    """Tokens that the tower leaves in the mean, if `calibrated` has counted them."""

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        if not (adapter.class_tokens and adapter.laid_out):
            return "its vision tower has no class token, whose attention says what is never dropped"
        if adapter.ragged:
            return "tiles are cut to the picture's shape after the tower, where merged tokens have no place any more"
        return None

    def calibrated(
        self, model: nn.Module, images: Iterable[Mapping[str, Any]], budget: str | int
    ) -> tuple[Self, Spread]:
        """See `ImageDependent`; one threshold for both tests is solved."""
        adapter, prompts = self.adapter_for(model), list(images)
        wanted = pruning_budget(adapter, budget).of(patches_of(adapter))
        entered: list[int] = []

        @torch.no_grad()
        def tokens_at(exponent: float) -> list[float]:
            entered.clear()
            threshold = 10**exponent
            found: list[float] = []
            with replace(self, total=threshold, single=threshold).attached(model, adapter, None) as read:
                for prompt in prompts:
                    model(**prompt, use_cache=False, logits_to_keep=1)
                    stats = read()
                    assert stats is not None
                    found += stats.mean_tokens
                    entered.extend(row[0] for row in stats.tokens)
            return found

        most, least = (fmean(tokens_at(exponent)) for exponent in EXPONENTS)
        if not least <= wanted <= most:
            raise BudgetError(
                f"mustdrop can work on {least:.1f} to {most:.1f} tokens of these pictures in the mean, between keeping "
                f"key tokens only and dropping nothing that its tower left, and was to work on {wanted:g}"
            )
        what = f"{self.name} with log10 of total = single"
        exponent, spread = solve_knob(tokens_at, wanted, *EXPONENTS, what, near=0.5, steps=0)
        return replace(self, total=10**exponent, single=10**exponent, patches=fmean(entered)), spread

    def vision_flops(self, model: nn.Module, adapter: Adapter) -> float | None:
        """See `Method`; with the mean number of tokens of the images that it was calibrated on."""
        if self.patches is None:
            return None
        config: Any = adapter.vision_tower(model).config
        first, left = (patches + adapter.class_tokens for patches in (patches_of(adapter), round(self.patches)))
        blocks = [first, *[left] * (adapter.vision_layers - 1)]
        return tower_flops(config, blocks, blocks)

    def spared(self, stage: int, row: Row, key_N: Tensor) -> KeptTokens:
        """What a stage keeps, given the key tokens."""
        if stage == 0:
            return everything(row)
        attention_WN = row.attention(row.text_W).mean(0)
        return KeptTokens(dual_attention(attention_WN, key_N, self.total, self.single).nonzero().flatten())

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        check_decoder(model, "compact")
        side = math.isqrt(patches_of(adapter))

        def shrink(features_NC: Tensor) -> Tensor:
            return merged_windows(features_NC, (side, side), self.alike, self.side)[0]

        with shrinking_tower(model, adapter, shrink) as shrunk:
            run, entry = _Run(self, shrunk), Entry(model, adapter, "compact")
            starts, decoder = in_depth(self.starts, adapter.decoder_layers), adapter.language_model(model)
            plan = RowPlan(run.choose, starts, "compact", decoder, prompt_lengths, thins_cache=True, entry=entry)
            pruner = Pruner(model, adapter, plan, entry)
            seen = chosen_tokens(model, adapter, (adapter.vision_layers - 1,), run.see, in_place=False)
            with seen, entry.attached(), pruner.attached():
                yield lambda: pruner.stats


class _Run:
    """The method at work: it remembers the key tokens of the pictures that were encoded last."""

    def __init__(self, method: MustDrop, shrunk: Shrunk) -> None:
        self._method, self._shrunk, self._run = method, shrunk, 0
        self._keys: list[Tensor] = []

    def see(self, image: Encoded) -> KeptOfImage:
        """What of an image enters the decoder: all that the tower left."""
        if self._run != self._shrunk.runs:
            self._run, self._keys = self._shrunk.runs, []
        count = self._shrunk.lengths[len(self._keys)]
        (attention,) = image.attention.values()
        heads = attention.class_tokens
        query_Hd, key_Htd = attention.query_RHtd[0, :, 0], attention.key_RHtd[0, :, : heads + count]
        logits_Ht = (key_Htd @ query_Hd[:, :, None])[:, :, 0] * attention.scaling
        self._keys.append(key_tokens(logits_Ht.softmax(-1)[:, heads:].mean(0), self._method.keys))
        return KeptOfImage(torch.arange(count, device=key_Htd.device), features_TD=image.features_ND[:count])

    def choose(self, stage: int, row: Row) -> KeptTokens:
        """What a row keeps at a stage. Beams repeat a row, but not its pictures."""
        keys = torch.cat(self._keys)
        beams = sum(row.batch) // len(keys)
        first = sum(row.batch[: row.number // beams * beams : beams])
        return self._method.spared(stage, row, keys[first : first + row.came][row.origin_N])
