"""What a search maximises on a sample."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import note
from clasp_calib.common.samples import Sample

Objective = Literal["metric", "nll", "kl"]
METRIC, NLL, KL = OBJECTIVES = get_args(Objective)
"""``metric``: the sample's own metric, in [0, 1]. ``nll``: the log-likelihood in nats of the accepted answer that the
candidate finds most likely. ``kl``: minus the divergence in nats of the candidate's distribution over the next token
from the unpruned model's, along the unpruned model's own greedy answer; it needs no accepted answers.

Our choice: both are summed over the tokens of the answer, the end of sequence included, so that they are those of whole
answers: the likelihood of one, and the divergence along one."""

ENOUGH = 8
"""Accepted answers of a class with which ``metric`` already chooses far better than ``kl`` does with any number."""
_BLIND = (
    "the objective kl cannot see where a mixture of layers is better than the unpruned model (on the embedded model it "
    f"is 11 to 12 points worse than {ENOUGH} accepted answers of each class)"
)


def check_objective(name: str) -> None:
    """Refuse other names.

    Raises:
        InputError: with the names that there are.
    """
    if name not in OBJECTIVES:
        raise InputError(f"unknown objective {name!r}; expected one of {', '.join(OBJECTIVES)}")


def check_likeness(samples: Sequence[Sample], anyway: bool) -> None:
    """Refuse ``kl`` where there are enough accepted answers to search by, and say elsewhere what it cannot see.

    Args:
        samples: of any split; those of ``test`` are not searched on and do not count.
        anyway: say it, and go on.

    Raises:
        InputError: every class has `ENOUGH` samples with answers, or has them for all of its samples.
    """
    searched = [sample for sample in samples if sample.split != "test"]
    every = Counter(sample.label for sample in searched)
    answered = Counter(sample.label for sample in searched if sample.answers)
    if every and all(answered[label] >= min(ENOUGH, count) for label, count in every.items()) and not anyway:
        lacking = len(searched) - answered.total()
        left_out = f", and leave out the {lacking} samples that have none" if lacking else ""
        raise InputError(
            f"{_BLIND}, and {answered.total()} of {len(searched)} samples have accepted answers; search by them with "
            f"--objective metric (objective='metric' in Python){left_out}, or by kl all the same with --anyway "
            "(anyway of CalibrationOptions)"
        )
    note(f"{_BLIND}; docs/guide/without-answers.md says how to get answers to search by")
