"""How likely a candidate finds an answer, and how far its distributions are from what was expected.

Shapes: B candidates, T tokens of an answer, V words.
"""

import torch
from torch import Tensor


def answer_nll(logits_BTV: Tensor, answer_T: Tensor) -> Tensor:
    """Negative log-likelihood [B] of an answer, float32 nats.

    Args:
        logits_BTV: of every token of the answer, given the prompt and the tokens before it.
        answer_T: its ids, long.
    """
    log_BTV = logits_BTV.float().log_softmax(-1)
    return -log_BTV.gather(2, answer_T.expand(len(log_BTV), -1)[..., None]).sum((1, 2))


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
