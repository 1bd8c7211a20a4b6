"""Relevance: how much attention the instruction gives to every token, without an attention matrix (eq. 4).

B rows, S tokens of this call, T keys (S and what was cached before), N visual and W text tokens, R raters,
H query heads, G key heads, D width, d width of a head.
"""

import torch
from torch import Tensor


def choose_raters(embeddings_BSD: Tensor, visual_BS: Tensor, prompt_BS: Tensor, mode: str = "sparsevlm") -> Tensor:
    """The instruction tokens whose attention scores the visual tokens, from the decoder's input embeddings.

    ``all`` takes the text after the last visual token of the prompt, ``last`` its last token. ``sparsevlm``
    (arXiv 2410.04417) takes those of the text whose mean over visual tokens of ``softmax(V T^T)``, the
    softmax over text, is above the mean of these means, or all if none is.

    Our choice: the paper follows SparseVLM and says no more than "instruction tokens".

    Args:
        embeddings_BSD: floating.
        visual_BS: bool, tokens that stand for patches.
        prompt_BS: bool, tokens that are neither padding nor answer; the visual ones are among them.
        mode: one of `clasp_calib.common.pruning_options.RATERS`.

    Returns:
        bool [B, S]; every row with a prompt has at least one rater.
    """
    position_S = torch.arange(visual_BS.shape[1], device=visual_BS.device)
    last_visual_B1 = torch.where(visual_BS, position_S, -1).amax(1, keepdim=True)
    last_B1 = torch.where(prompt_BS, position_S, -1).amax(1, keepdim=True)
    last_BS = position_S == last_B1
    text_BS = prompt_BS & (position_S > last_visual_B1)
    # Our choice: a prompt that ends with its picture is rated by its last token, which sees all the others.
    text_BS = torch.where(text_BS.any(1, keepdim=True), text_BS, last_BS)
    if mode == "last":
        return last_BS
    if mode == "all":
        return text_BS
    return _above_mean(embeddings_BSD.float(), visual_BS, text_BS)


def _above_mean(embeddings_BSD: Tensor, visual_BS: Tensor, text_BS: Tensor) -> Tensor:
    visual_BN, text_BW = gather_index(visual_BS), gather_index(text_BS)
    logits_BNW = take(embeddings_BSD, visual_BN) @ take(embeddings_BSD, text_BW).mT
    is_visual_BN, is_text_BW = take(visual_BS, visual_BN), take(text_BS, text_BW)
    share_BNW = logits_BNW.masked_fill(~is_text_BW[:, None], -torch.inf).softmax(-1) * is_visual_BN[:, :, None]
    mean_BW = share_BNW.sum(1) / is_visual_BN.sum(1, keepdim=True).clamp_min(1)
    # The means of a row sum to 1. The margin keeps equal tokens, which share alike, from being told apart by
    # rounding.
    above_BW = is_text_BW & (mean_BW * is_text_BW.sum(1, keepdim=True) > 1 + 1e-5)
    raters_BS = torch.zeros_like(text_BS).scatter(1, text_BW, above_BW)
    return torch.where(raters_BS.any(1, keepdim=True), raters_BS, text_BS)


def rater_attention(
    query_BHSd: Tensor,
    key_BGTd: Tensor,
    rater_BR: Tensor,
    is_rater_BR: Tensor,
    *,
    scaling: float,
    key_valid_BT: Tensor | None = None,
) -> Tensor:
    """Attention that every token of this call receives, mean over heads and raters.

    Args:
        query_BHSd: queries as the attention kernel gets them, rotated.
        key_BGTd: keys likewise, those cached before first; H is a multiple of G.
        rater_BR: positions of the raters among the S queries, long.
        is_rater_BR: bool, which entries of ``rater_BR`` count.
        scaling: factor of the logits.
        key_valid_BT: bool, keys that are not padding; all if ``None``.

    Returns:
        float32 [B, S].
    """
    rows, heads, queries, width = query_BHSd.shape
    groups, keys = key_BGTd.shape[1:3]
    raters = rater_BR.shape[1]
    query_BHRd = query_BHSd.gather(2, rater_BR[:, None, :, None].expand(-1, heads, -1, width))
    query_BGRd = query_BHRd.reshape(rows, groups, heads // groups * raters, width)
    logits_BGRT = (query_BGRd.float() @ key_BGTd.float().mT * scaling).view(rows, heads, raters, keys)
    position_T = torch.arange(keys, device=key_BGTd.device)
    seen_BRT = position_T <= rater_BR[:, :, None] + (keys - queries)
    if key_valid_BT is not None:
        seen_BRT = seen_BRT & key_valid_BT[:, None]
    attention_BHRT = logits_BGRT.masked_fill(~seen_BRT[:, None], -torch.inf).softmax(-1)
    weight_BR = is_rater_BR / is_rater_BR.sum(1, keepdim=True).clamp_min(1)
    # What fills up the raters of a row may be padding that sees nothing; NaN of a rater is a model's own.
    attention_BRT = attention_BHRT.mean(1)[:, :, keys - queries :].masked_fill(~is_rater_BR[..., None], 0)
    return (weight_BR[:, None].float() @ attention_BRT)[:, 0]


def gather_index(mask_BS: Tensor, count: int | None = None) -> Tensor:
    """Positions of the true entries in order, at the right end of ``count`` columns; the others before them.

    Args:
        mask_BS: bool.
        count: columns, at least the largest number of true entries, which is the default.
    """
    count = int(mask_BS.sum(1).max()) if count is None else count
    return mask_BS.byte().argsort(dim=1, stable=True)[:, mask_BS.shape[1] - count :]


def take(values: Tensor, index_BK: Tensor) -> Tensor:
    """Entries [B, K] or [B, K, D] of values [B, S] or [B, S, D]."""
    if values.ndim == 2:
        return values.gather(1, index_BK)
    return values.gather(1, index_BK[:, :, None].expand(-1, -1, values.shape[2]))
