"""DART: from an early decoder layer on, what duplicates a few pivots least.

Wen et al., Stop Looking for Important Tokens: Duplication Matters More, arXiv 2502.11494.

N visual and W text tokens of one row, D width of the decoder, d width of all its key heads together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.knobs import require, require_shares, require_starts
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row
from clasp_calib.baselines.staged import StagedMethod, count_of, in_depth, scaled_shares, spans_of


def dart(
    keys_Nd: Tensor,
    text_keys_Wd: Tensor,
    hidden_ND: Tensor,
    text_hidden_WD: Tensor,
    keep: int,
    image_pivots: int = 4,
    text_pivots: int = 4,
) -> Tensor:
    """Which visual tokens stay: the image pivots, and for every pivot the tokens least like it.

    Pivots are the tokens with the largest 1-norm of their keys. They take turns, image pivots first, each taking of
    what is left the tokens with the smallest cosine to it. Text pivots choose but are not themselves counted.

    Args:
        keys_Nd: keys of the layer before the stage, rotated, heads side by side.
        text_keys_Wd: the same of the text after the picture.
        hidden_ND: what enters the stage, through the decoder's final norm.
        text_hidden_WD: the same of the text after the picture.
        keep: visual tokens to keep, at most N.
        image_pivots: visual tokens that choose.
        text_pivots: text tokens that choose.

    Returns:
        ``keep`` positions, long, rising.
    """
    pivots_P = first_largest(keys_Nd.float().abs().sum(1), min(image_pivots, keep))
    texts_P = first_largest(text_keys_Wd.float().abs().sum(1), text_pivots)
    voters_VD = torch.cat([hidden_ND[pivots_P], text_hidden_WD[texts_P]]).float()
    taken_N = torch.zeros(len(hidden_ND), dtype=torch.bool, device=hidden_ND.device)
    taken_N[pivots_P] = True
    # Our choice: what does not divide by the pivots goes to the first of them, so that any count can be met.
    share, rest = divmod(keep - len(pivots_P), len(voters_VD))
    for number, voter_D in enumerate(voters_VD):
        cosine_N = functional.cosine_similarity(voter_D, hidden_ND.float(), dim=-1)
        # Our choice: near ties go by position, as in our own selection.
        cosine_N = torch.round(cosine_N, decimals=5).masked_fill(taken_N, torch.inf)
        taken_N[first_largest(-cosine_N, share + (number < rest))] = True
    return taken_N.nonzero().flatten()


def published_share(label: int) -> float:
    """Share of 576 tokens that DART's scripts keep at a label: 4 pivots, and an eighth of the label for each of 8."""
    return (4 + 8 * (label // 8)) / 576


@dataclass(frozen=True)
class Dart(StagedMethod):
    """Keeps a share of the tokens from layer 2 on; position ids are kept.

    The authors visit the pivots in the order of a Python set; here image pivots come first, by norm.
    """

    name: ClassVar[str] = "dart"
    paper: ClassVar[str] = "arXiv 2502.11494"
    semantics: ClassVar[str] = "tokens kept from layer 2 on, without 4 pivots"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        str(label): {"kept": published_share(label)} for label in (192, 128, 64)
    }

    starts: tuple[int, ...] = (2,)
    kept: float = published_share(128)
    """Share of the visual tokens that stay."""
    image_pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        require_starts(self, stages=1)
        require_shares(self, "kept")
        for knob in ("image_pivots", "text_pivots"):
            require(self, knob, getattr(self, knob) >= 0, "a number from 0 up")
        require(self, "image_pivots", self.image_pivots + self.text_pivots > 0, "at least one pivot of either kind")

    def at_share(self, layers: int, share: float) -> Self:
        """The share from the mean over layers."""
        spans = spans_of(in_depth(self.starts, layers), layers)
        (kept,) = scaled_shares((1.0,), spans, share, self.name)
        return replace(self, kept=kept)

    def choose(self, stage: int, row: Row) -> KeptTokens:
        """See `StagedMethod`."""
        keys_Td = row.key_GTd.transpose(0, 1).flatten(1)[-len(row.hidden_SD) :]
        hidden_SD = row.norm(row.hidden_SD)
        visual_N, text_W = row.visual_N, row.text_W
        keep = count_of(self.kept, row.came)
        tokens = dart(
            keys_Td[visual_N],
            keys_Td[text_W],
            hidden_SD[visual_N],
            hidden_SD[text_W],
            keep,
            self.image_pivots,
            self.text_pivots,
        )
        return KeptTokens(tokens)
