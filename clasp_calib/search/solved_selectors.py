"""The knobs of a space's selectors, solved so that all candidates cost as much at a budget."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.projection import check_scored_as_served
from clasp_calib.common import plugins
from clasp_calib.common.errors import BudgetError, InputError
from clasp_calib.common.selector_choice import CLASP, SelectorChoice
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.selectors import GROUP, failures_named, knobs_of, selector_of


def solved_for(candidates: Sequence[Candidate], model: Any, budget: Budget, filmed: bool) -> list[Candidate]:
    """Candidates whose selectors work on as many tokens as a budget says, in the mean over the decoder's layers.

    Args:
        candidates: of a space, whose selectors have the knobs that it gives and are called by them.
        model: what they are for.
        budget: at which all candidates are to cost as much.
        filmed: some samples have videos.

    Raises:
        BudgetError: see `solved_choice`, as for the following.
        InputError: there is no such selector, it cannot have these knobs, it would be served in another way than it is
            scored, it is for pictures and there are videos, or a package calls its own ``clasp``.
        ModelError: a selector cannot run on the model.
    """
    choices = dict.fromkeys(candidate.selector for candidate in candidates)
    if None in choices:
        plugins.check_single(GROUP, "selector", CLASP, own=(CLASP,))
    solved = {choice: choice and solved_choice(choice, model, budget, filmed) for choice in choices}
    return [
        replace(candidate, selector=solved[candidate.selector], called=str(candidate.selector or ""))
        for candidate in candidates
    ]


def solved_where_met(candidates: Sequence[Candidate], model: Any, budget: Budget, filmed: bool) -> list[Candidate]:
    """The same for a budget at which candidates are not searched, but may have been measured.

    Those whose selectors cannot meet it stay as they are, unsolved. No score is recorded of these.
    Arguments and errors are those of `solved_for`, but for its ``BudgetError``.
    """
    solved: dict[Candidate, Candidate] = {}
    for choice in dict.fromkeys(candidate.selector for candidate in candidates):
        of = [candidate for candidate in candidates if candidate.selector == choice]
        with suppress(BudgetError):
            solved |= zip(of, solved_for(of, model, budget, filmed), strict=True)
    return [solved.get(candidate, candidate) for candidate in candidates]


def solved_choice(choice: SelectorChoice, model: Any, budget: Budget, filmed: bool) -> SelectorChoice:
    """A selector with all its knobs, solved for a budget; arguments and errors as for `solved_for`."""
    with failures_named(choice, f"cannot be solved for a budget of {budget.name}"):
        return _solved(choice, model, budget, filmed)


def _solved(choice: SelectorChoice, model: Any, budget: Budget, filmed: bool) -> SelectorChoice:
    selector = selector_of(choice)
    check_scored_as_served(selector, choice.name)
    if filmed and selector.images_only:
        raise InputError(
            f"the selector {choice.name!r} is defined for images, and some of these samples have videos; leave them "
            "out, or take it out of the space"
        )
    adapter = selector.adapter_for(model)
    wanted = pruning_budget(adapter, budget.name)
    if wanted.full:
        raise BudgetError(
            f"a budget of {budget.name} prunes nothing, so that the selector {choice.name!r} has nothing to choose; "
            "take it out of the space, or give a smaller budget"
        )
    found = selector.solved(adapter, wanted)
    for knob, value in choice.knobs:
        if getattr(found, knob) != value:
            raise InputError(
                f"the knob {knob!r} of the selector {choice.name!r} decides how many tokens are kept, and is solved "
                "for the budget; take it out of the space"
            )
    with found.attached(model, adapter, None):  # it may find only now that it cannot run
        return knobs_of(choice.name, found)
