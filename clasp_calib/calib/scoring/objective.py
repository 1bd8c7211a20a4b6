"""What a search maximises on a sample."""

import torch
from torch import Tensor

from clasp_calib.common.errors import InputError

METRIC, NLL, KL = "metric", "nll", "kl"
OBJECTIVES = (METRIC, NLL, KL)
"""``metric``: the sample's own metric, in [0, 1]. ``nll``: the log-likelihood in nats of the accepted answer that the
candidate finds most likely. ``kl``: minus the divergence in nats of the candidate's distribution over the next token
from the unpruned model's, along the unpruned model's own greedy answer; it needs no accepted answers.

Our choice: both are summed over the tokens of the answer, the end of sequence included, so that they are those of whole
answers: the likelihood of one, and the divergence along one."""


def check_objective(name: str) -> None:
    """Refuse other names.

    Raises:
        InputError: with the names that there are.
    """
    if name not in OBJECTIVES:
        raise InputError(f"unknown objective {name!r}; expected one of {', '.join(OBJECTIVES)}")


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
