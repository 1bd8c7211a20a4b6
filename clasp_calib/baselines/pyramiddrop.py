"""PyramidDrop: a pyramid of stages, each keeping what the last token of the instruction is about to attend to.

Xing et al., PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy Reduction,
arXiv 2410.17247.

S tokens of a row, N of them visual, D width of the decoder, H query and G key heads, d width of a head.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.knobs import require_falling
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row, attention_to
from clasp_calib.baselines.staged import StagedMethod, count_of, in_depth, spans_of
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.stages import Rope

SOLVED_STARTS = (2, 8, 16)
"""Where the authors prune for budgets that their own stages cannot meet (issue 29 of their repository)."""


def queries_and_keys(layer: Any, hidden_SD: Tensor, rope: Rope | None) -> tuple[Tensor, Tensor]:
    """Queries [H, S, d] and keys [G, S, d] that a decoder layer is about to attend with.

    Args:
        layer: a layer of a Llama, Mistral or Qwen decoder, with ``input_layernorm`` and ``self_attn``.
        hidden_SD: what enters it.
        rope: cosines and sines [S, d] of the positions; ``None`` leaves them as they are before the rotation.
    """
    attention, normed_SD = layer.self_attn, layer.input_layernorm(hidden_SD)
    rotated = []
    for projection, norm in (("q_proj", "q_norm"), ("k_proj", "k_norm")):
        heads_SHd = getattr(attention, projection)(normed_SD).unflatten(-1, (-1, attention.head_dim))
        heads_HSd = getattr(attention, norm, nn.Identity())(heads_SHd).transpose(0, 1)
        if rope is None:
            rotated.append(heads_HSd)
            continue
        half = attention.head_dim // 2
        turned_HSd = torch.cat([-heads_HSd[..., half:], heads_HSd[..., :half]], dim=-1)
        rotated.append(heads_HSd * rope[0] + turned_HSd * rope[1])
    return rotated[0], rotated[1]


def about_to_be_looked_at(row: Row, name: str) -> Tensor:
    """Attention [N] that the last text token of the prompt gives in the layer that is entered, mean over heads.

    Args:
        row: as it comes to a stage.
        name: of the method, for the error.

    Raises:
        ModelError: there are keys in the cache already, which the layer would attend to as well.
    """
    if row.key_GTd.shape[1] > len(row.hidden_SD):
        raise ModelError(
            f"{name} scores with a layer that has not run, and cannot join a cache that is already filled; "
            "begin anew without past_key_values"
        )
    query_HSd, key_GSd = queries_and_keys(row.layer, row.hidden_SD, row.rope)
    return attention_to(query_HSd, key_GSd, row.text_W[-1:], row.visual_N, row.scaling).mean((0, 1))


@dataclass(frozen=True)
class PyramidDrop(StagedMethod):
    """Keeps a falling share of the tokens at each stage; what is left is numbered anew.

    Scored with queries and keys of the layer that the stage enters, which are computed for that beforehand. Positions
    with several axes cannot be numbered anew and are kept.

    Our choice: shares are rounded to the nearest token, where the authors' code rounds down.
    """

    name: ClassVar[str] = "pyramiddrop"
    paper: ClassVar[str] = "arXiv 2410.17247"
    semantics: ClassVar[str] = "mean over layers"
    positions: ClassVar[str] = "compact"
    whole_prompt: ClassVar[bool] = True

    starts: tuple[int, ...] = (8, 16, 24)
    ratios: tuple[float, ...] = (0.5, 0.25, 0.125)
    """Share of the row's visual tokens that is left at each stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_falling(self, "ratios")

    def at_share(self, layers: int, share: float) -> Self:
        """Stages at layers 2, 8 and 16 that keep lambda, lambda^2 and lambda^3, after the authors' recipe.

        Raises:
            BudgetError: the layers before the first stage alone cost more.
        """
        first, *spans = spans_of(in_depth(SOLVED_STARTS, layers), layers)
        if share * layers <= first:
            raise BudgetError(
                f"pyramiddrop cannot work on {100 * share:.4g}% of the tokens in the mean: nothing is dropped before "
                f"layer {first} of {layers}, which is {100 * first / layers:.4g}% already; give a larger budget"
            )
        low, high = 0.0, 1.0
        for _ in range(100):
            ratio = (low + high) / 2
            mean = sum(span * ratio**power for power, span in enumerate(spans, start=1))
            low, high = (ratio, high) if mean < share * layers - first else (low, ratio)
        return replace(self, starts=SOLVED_STARTS, ratios=(high, high**2, high**3))

    def choose(self, stage: int, row: Row) -> KeptTokens:
        """See `StagedMethod`."""
        attention_N = about_to_be_looked_at(row, self.name)
        best = first_largest(attention_N, count_of(self.ratios[stage], row.came))
        return KeptTokens(best.sort().values)
