"""Positions of several axes (M-RoPE) where pictures are pruned: every token keeps what the whole picture gave it.

A server lays out positions before it knows which tokens stay. Then time, and all of the text, are right already: what
follows a picture begins where it would have begun behind the whole of it. Rows and columns of a picture are known once
it is encoded. They stand behind its features, and so vLLM keeps them for as long as it keeps these, and brings
those of a picture's part with that part.

S tokens of a prompt, K tokens of a picture that stay, T of those that enter in one step, D width of the decoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

CHANNELS = 4
"""That stand behind features: two digits of the row and two of the column."""
_BASE = 256
"""Of the digits. bfloat16 has every whole number up to it, and no more."""


def with_places(features_KD: Tensor, place_K: Tensor, columns: int) -> Tensor:
    """Features with their places behind them, [K, D + CHANNELS].

    Args:
        features_KD: floating.
        place_K: long, of the whole picture's tokens, line by line.
        columns: tokens of a line.
    """
    row_K, column_K = place_K // columns, place_K % columns
    digits_KC = torch.stack([row_K // _BASE, row_K % _BASE, column_K // _BASE, column_K % _BASE], dim=1)
    return torch.cat([features_KD, digits_KC.to(features_KD)], dim=1)


def without_places(rows_TE: Tensor) -> tuple[Tensor, Tensor]:
    """Features [T, D], and their rows and columns, long [2, T]."""
    digits_CT = rows_TE[:, -CHANNELS:].long().mT
    return rows_TE[:, :-CHANNELS], digits_CT[::2] * _BASE + digits_CT[1::2]


def laid_out(
    tokens: Sequence[int], features: Sequence[Any], whole: Callable[[Any], int], lay_out: Callable[..., Any]
) -> tuple[Tensor, int]:
    """Positions [3, S], and how far what is generated is ahead of the count of tokens.

    Time of a picture's tokens and all of the text are right. Rows and columns are those of its first K tokens.

    Args:
        tokens: S ids, K of them for a picture.
        features: ``MultiModalFeatureSpec`` of the pictures and videos.
        whole: the tokens that one of them would be, had nothing been dropped.
        lay_out: vLLM's own ``get_mrope_input_positions``.
    """
    filled: list[int] = []
    stays: list[bool] = []
    shifted, at = [], 0
    for feature in sorted(features, key=lambda feature: feature.mm_position.offset):
        place, dropped = feature.mm_position, len(filled) - sum(stays)
        shifted.append(replace(feature, mm_position=replace(place, offset=place.offset + dropped)))
        end = place.offset + place.length
        gone = whole(feature) - place.length
        filled += [*tokens[at:end], *[tokens[end - 1]] * gone]
        stays += [True] * (end - at) + [False] * gone
        at = end
    filled += tokens[at:]
    stays += [True] * (len(tokens) - at)
    positions, ahead = lay_out(filled, shifted)
    return positions[:, torch.tensor(stays)], ahead + len(filled) - len(tokens)


def placed(
    ids_S: Tensor, rows: Sequence[Tensor], positions_3S: Tensor, computed: int, image: int, video: int
) -> tuple[list[Tensor], Tensor]:
    """Features [T, D] of every part that enters, and positions with the rows and columns of these tokens.

    Args:
        ids_S: long.
        rows: [T, D + CHANNELS] of every part that enters, in order.
        positions_3S: long, as `laid_out` gave them, or this.
        computed: tokens that entered before.
        image: the id of a picture's tokens.
        video: that of a video's, whose positions are right.
    """
    parts = [without_places(rows_TE) for rows_TE in rows]
    positions_3S = positions_3S.clone()
    if parts:
        offset_2T = torch.cat([offset_2T for _, offset_2T in parts], dim=1).to(positions_3S.device)
        visual_S = (ids_S == image) | (ids_S == video)
        visual_T = visual_S[computed:].nonzero().flatten()[: offset_2T.shape[1]] + computed
        pictured_T = ids_S[visual_T] == image
        place_T = visual_T[pictured_T]
        positions_3S[1:, place_T] = positions_3S[0, place_T] + offset_2T[:, pictured_T]
    return [features_TD for features_TD, _ in parts], positions_3S
