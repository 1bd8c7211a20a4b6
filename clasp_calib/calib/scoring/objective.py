"""What a search maximises on a sample."""

from typing import Literal, get_args

from clasp_calib.common.errors import InputError

Objective = Literal["metric", "nll", "kl"]
METRIC, NLL, KL = OBJECTIVES = get_args(Objective)
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
