"""HAWK: before the decoder, what the question's queries meet in its first layer, with heads weighed by importance.

Zhu et al., HAWK: Head Importance-Aware Visual Token Pruning in Multimodal Models, arXiv 2604.07812; released in
https://github.com/peppery77/HAWK (commit 312c710, ``src/hawk/pruning.py`` and ``src/hawk/config.py``).

M rows, S tokens of a row, N of them visual, W of the question, D width of the decoder, H query and G key heads, d width
of a head.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.method import Method, Reader
from clasp_calib.baselines.pyramiddrop import queries_and_keys
from clasp_calib.baselines.staged import count_of
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.checks import check_decoder, positions_on
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.gates import Admitted, entering
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.scoring import choose_raters, gather_index, take
from clasp_calib.runtime.stages import PromptLengths, prompt_of
from clasp_calib.runtime.stats import Stopwatch

QWEN25_VL_7B = (
    0.0875, 0.3000, 0.0480, 0.0321, 0.0104, 0.0102, 0.0336, 0.0460, 0.0540, 0.0472, 0.0234, 0.0537, 0.0109, 0.0573,
    0.0276, 0.0403, 0.0429, 0.0352, 0.0162, 0.0519, 0.0553, 0.0266, 0.0222, 0.0480, 0.0337, 0.0250, 0.0000, 0.0224,
)  # fmt: skip
"""Importance of the 28 heads that the authors measured for Qwen2.5-VL-7B, the only one that they released."""


def head_weighted(query_HWd: Tensor, key_GNd: Tensor, weight_H: Tensor) -> Tensor:
    """Scores [N] of visual tokens: products with the queries, mean over these, in every head of length 1, weighed.

    A factor of all products would make no difference.

    Args:
        query_HWd: queries of the question, floating.
        key_GNd: keys of the visual tokens; H is a multiple of G.
        weight_H: importance of the heads.
    """
    mean_Hd = query_HWd.float().mean(1)
    product_HN = (mean_Hd.view(len(key_GNd), -1, mean_Hd.shape[1]) @ key_GNd.float().mT).flatten(0, 1)
    return weight_H @ functional.normalize(product_HN, dim=-1)


@dataclass(frozen=True)
class Hawk(Method):
    """Queries and keys of the decoder's first layer before their rotation; kept tokens stay in order.

    The question is all text after the last picture, the prompt's closing words too, which the authors leave out.
    Tokens keep their positions where these have several axes, as released, and are renumbered elsewhere.

    Heads are weighed by what the authors measured for Qwen2.5-VL-7B, where that is the model. For others give
    ``weights``: how much worse answers are without each head. All pictures of a prompt share the budget.

    Our choice: shares are rounded to the nearest token, where the authors' code rounds up.
    """

    name: ClassVar[str] = "hawk"
    paper: ClassVar[str] = "arXiv 2604.07812"
    semantics: ClassVar[str] = "tokens that enter the decoder"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"{100 * share:g}%": {"share": share} for share in (0.4, 0.2, 0.198, 0.1)
    }

    share: float = 0.198
    """Share of the row's visual tokens that enter."""
    weights: tuple[float, ...] | None = None
    """Importance of every query head; ``None`` as above."""

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """The budget is what enters: every layer works on that."""
        tokens = picture_tokens(adapter) or 100
        return replace(self, share=budget.of(tokens) / tokens)

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        config: Any = model.config
        heads = config.get_text_config().num_attention_heads
        if self.weights is None and (config.model_type, heads) != ("qwen2_5_vl", len(QWEN25_VL_7B)):
            return (
                f"it weighs the {heads} heads of the first decoder layer, and its authors measured their importance "
                "for Qwen2.5-VL-7B alone (give weights=, see Hawk)"
            )
        if self.weights is not None and len(self.weights) != heads:
            return f"it was given {len(self.weights)} weights, and the decoder has {heads} heads"
        first: Any = next(iter(adapter.language_model(model).get_submodule("layers").children()))
        return None if hasattr(first, "self_attn") else "its first decoder layer has no queries and keys"

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        positions = positions_on(model, "compact")
        check_decoder(model, positions)
        decoder: Any = adapter.language_model(model)
        gate = _Gate(decoder.layers[0], self.weights or QWEN25_VL_7B, self.share, prompt_lengths)
        entry = Entry(model, adapter, positions, gate)
        with entry.attached():
            yield lambda: entry.stats


class _Gate:
    """A `clasp_calib.runtime.gates.Gate` that lets in a share of the tokens of every row."""

    def __init__(self, layer: Any, weights: tuple[float, ...], share: float, prompt_lengths: PromptLengths) -> None:
        self._layer, self._weight_H = layer, torch.tensor(weights)
        self._share, self._prompt_lengths = share, prompt_lengths

    def see(self, ids_MS: Tensor, inputs: Mapping[str, Any], generating: bool) -> None:
        """Nothing but embeddings counts."""

    def admit(self, embeddings_MSD: Tensor, visual_MS: Tensor, watch: Stopwatch) -> Admitted:
        """See `Gate`. All that enter count as pivots."""
        prompt_MS = prompt_of(torch.ones_like(visual_MS), self._prompt_lengths, 0)
        text_MS = choose_raters(embeddings_MSD, visual_MS, prompt_MS, "all")
        offered: list[int] = visual_MS.sum(1).tolist()
        kept = [count_of(self._share, tokens) for tokens in offered]
        score_MS = torch.zeros(visual_MS.shape, device=visual_MS.device)
        keep_MS = torch.zeros_like(visual_MS)
        with watch.part("selection"):
            for row, count in enumerate(kept):
                visual_N = visual_MS[row].nonzero().flatten()
                if count:
                    query_HSd, key_GSd = queries_and_keys(self._layer, embeddings_MSD[row], None)
                    weight_H = self._weight_H.to(query_HSd.device)
                    score_N = head_weighted(query_HSd[:, text_MS[row]], key_GSd[:, visual_N], weight_H)
                    score_MS[row, visual_N] = score_N
                    keep_MS[row, visual_N[first_largest(score_N, count)]] = True
        visual_MN = gather_index(visual_MS, max(offered))
        keep_MN = take(keep_MS, visual_MN)
        stage = entering(visual_MN, keep_MN, keep_MN, take(score_MS, visual_MN), offered)
        return Admitted(keep_MS, torch.arange(len(kept), device=keep_MS.device), offered, kept, stage)
