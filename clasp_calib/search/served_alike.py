"""Whether selectors choose the same of features, where they are scored, as of pictures, where they are served."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.containing import contained
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.stats import PruningStats

NEAR = 0.1
"""Of the length of the logits, by which they may differ. Our choice: ten times what roundings made at most of twelve
prompts of the embedded model in bfloat16; a projector whose features were doubled made 0.15."""


def check_served_as_scored(
    model: Any,
    prompter: Prompter,
    evaluator: Evaluator,
    candidates: Sequence[Candidate],
    pruning: Pruning,
    sample: Sample,
) -> None:
    """Refuse selectors that are scored as one thing and served as another, before anything is measured.

    Features are scored without the vision tower. A selector that acts on the tower would not be seen there. So a sample
    goes through the live model and through the evaluator, once for each selector. The layers have to work on as many
    tokens, and where the same are kept the first token of the answer has to get the same logits.

    Args:
        model: the evaluator's.
        prompter: the evaluator's.
        evaluator: which scores.
        candidates: with solved knobs; the last one of each selector is tried.
        pruning: the same for all.
        sample: any.

    Raises:
        InputError: a selector is scored in another way, or does not tell what it keeps.
        ComputationError: it fails.
    """
    last = {candidate.selector.name: candidate for candidate in candidates if candidate.selector}
    for name, candidate in last.items():
        with contained(f"trying the selector {name!r} on the sample {sample.id!r}"):
            scored_V, scored = evaluator.begun(sample, candidate, pruning)
            served_V, served = _served(model, prompter, sample, candidate, pruning)
        if scored is None or served is None:
            where = "scored" if scored is None else "served"
            trouble = f"does not tell what it keeps where it is {where}: its attached() has to yield what reads that"
        elif scored.tokens != served.tokens:
            means = [f"{stats.mean_tokens[0]:.4g}" for stats in (scored, served)]
            trouble = f"works on {means[0]} tokens a layer where it is scored, and on {means[1]} where it is served"
        elif _alike(scored, served) and _apart(scored_V, served_V) > NEAR:
            trouble = (
                "makes the model say something else where it is served than where it is scored, of the same tokens"
            )
        else:
            continue
        raise InputError(
            f"the selector {name!r} {trouble} (sample {sample.id!r}). Features are scored without the vision tower, so "
            "a Method may act on the decoder alone, and what chooses before it has to be an InputMethod; take it out "
            "of the space, or mend the package that brings it"
        )


@torch.inference_mode()
def _served(
    model: Any, prompter: Prompter, sample: Sample, candidate: Candidate, pruning: Pruning
) -> tuple[Tensor, PruningStats | None]:
    """Logits [V] of the answer's first token, as ``generate`` has them, and what was pruned."""
    how = {**Greedy(model, prompter.tokenizer).arguments(1), "output_logits": True, "return_dict_in_generate": True}
    inputs, alpha_1L = prompter.inputs(model, sample), torch.tensor([candidate.alpha])
    with pruning.applied(model, sample, [candidate], alpha_BL=alpha_1L) as pruned:
        logits_V = model.generate(**inputs, **how).logits[0][0]
        return logits_V, pruned.stats if pruned else None


def _apart(one_V: Tensor, other_V: Tensor) -> float:
    """How far logits are from others, as a share of their length; what is added to all of them counts for nothing."""
    one_V, other_V = (of_V.float() - of_V.float().mean() for of_V in (one_V, other_V.to(one_V.device)))
    return float((one_V - other_V).norm() / other_V.norm())


def _alike(one: PruningStats, other: PruningStats) -> bool:
    """Whether the same patches are kept: near ties may fall otherwise."""
    kept, others = ([stage.patches_BK.cpu() for stage in stats.stages] for stats in (one, other))
    return len(kept) == len(others) and all(map(torch.equal, kept, others))
