"""How likely a candidate finds an answer, and how far its distributions are from what was expected.

Shapes: B candidates, T tokens of an answer, V words.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def answer_nll(logits_BTV: Tensor, answer_T: Tensor, ends: Sequence[int]) -> Tensor:
    """Negative log-likelihood [B] of an answer that ends, float32 nats.

    Args:
        logits_BTV: of T + 1 tokens, each given the prompt and the tokens before it.
        answer_T: its ids, long.
        ends: ids any of which ends it; if there is none, nothing is asked of the last logits.
    """
    log_BTV = logits_BTV.float().log_softmax(-1)
    log_BT = log_BTV[:, :-1].gather(2, answer_T.expand(len(log_BTV), -1)[..., None])[..., 0]
    end_B1 = log_BTV[:, -1:, list(ends)].logsumexp(-1) if ends else log_BT[:, :0]
    return -torch.cat([log_BT, end_B1], dim=1).sum(1)


def divergence(expected_TV: Tensor, logits_BTV: Tensor) -> Tensor:
    """Kullback-Leibler divergence [B] of candidates from what was expected, summed over an answer, float32 nats.

    Args:
        expected_TV: log-probabilities, float32.
        logits_BTV: of the candidates.
    """
    log_BTV = logits_BTV.float().log_softmax(-1)
    # Of what is never expected nothing is asked: 0 rather than 0 * (-inf + inf).
    terms_BTV = torch.where(expected_TV.isneginf(), 0.0, expected_TV.exp() * (expected_TV - log_BTV))
    return terms_BTV.sum((1, 2)).clamp_min(0)
