"""Other methods in the place of the dual-stage selection, by their names: what installed packages bring.

The peers of this package are such methods. They are entry points like everybody's, so that whoever applies an artifact
loads the one method that it names, and only where it names one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from math import isclose
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from clasp_calib.common import plugins
from clasp_calib.common.errors import ArtifactError, ClaspError, InputError, ModelError
from clasp_calib.common.selector_choice import CLASP, SelectorChoice
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.encoding import Encoded
from clasp_calib.runtime.guard import guarded
from clasp_calib.runtime.mixed_batch import RowActions, mixed
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.stages import Plan, PromptLengths
from clasp_calib.runtime.stats import PruningStats
from clasp_calib.runtime.tower import fused_tower

GROUP = "clasp_calib.selectors"
"""Entry points of this group are selectors, under their names."""


class TokenSelector(Protocol):
    """A frozen dataclass whose fields are the knobs; every peer of `clasp_calib.baselines` is one.

    It raises an InputError when it is made with knobs that it cannot have.
    """

    images_only: bool
    """Whether it cannot run on videos."""
    whole_prompt: bool
    """Whether it needs all of a prompt in one forward, and none of it in a cache."""

    def adapter_for(self, model: nn.Module) -> Adapter:
        """The adapter of a model on which it can run; raises ModelError where it cannot."""
        ...

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """With knobs at which a decoder layer works on as many tokens in the mean as the budget says.

        What is solved for a budget is solved to the same for it again.

        Raises:
            BudgetError: it cannot, or not without samples.
        """
        ...

    def attached(
        self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths
    ) -> AbstractContextManager[Callable[[], PruningStats | None]]:
        """Put it on the model and take it off again; yields what reads its statistics."""
        ...

    def actions(self, model: nn.Module, adapter: Adapter) -> RowActions | None:
        """What it does to a row of a batch whose other rows have other selectors; ``None`` if it cannot be in one."""
        ...


class Selected:
    """A model pruned by a selector; a `clasp_calib.runtime.stats.Pruned`."""

    def __init__(self, read: Callable[[], PruningStats | None]) -> None:
        self._read = read

    @property
    def stats(self) -> PruningStats | None:
        """Of the last forward that brought pictures."""
        return self._read()


def selector_of(choice: SelectorChoice) -> Any:
    """The `TokenSelector` of a name with these knobs; the others are as its authors set them.

    Raises:
        ClaspError: there is none of this name, or two; or it cannot have such knobs; or its package cannot be loaded.
    """
    kind = _loaded(choice.name)
    with failures_named(choice, "cannot be made as its authors set it"):
        plain = kind()
        defaults = {of.name: getattr(plain, of.name) for of in fields(plain)}
        # A default may be written as a whole number where any is meant.
        defaults |= {of.name: float(defaults[of.name]) for of in fields(plain) if of.type is float}
    for knob, value in choice.knobs:
        if knob not in defaults:
            raise InputError(
                f"the selector {choice.name!r} has no knob {knob!r}; it has {', '.join(defaults) or 'none'}: give "
                "one of these"
            )
        if not _alike(value, defaults[knob]):
            raise InputError(
                f"the knob {knob!r} of the selector {choice.name!r} is {value!r}; expected something like "
                f"{defaults[knob]!r}, which is its default"
            )
    with failures_named(choice, "cannot have these knobs"):
        return kind(**dict(choice.knobs))


@contextmanager
def failures_named(choice: SelectorChoice, what: str) -> Iterator[None]:
    """Call a selector: somebody's package may fail in any way.

    Args:
        choice: which selector, of an installed package.
        what: then is the matter with it, for the error.

    Raises:
        InputError: whatever went wrong that is no error of ours, with the package.
    """
    try:
        yield
    except ClaspError:
        raise
    except Exception as error:
        raise InputError(
            f"the selector {choice} {what} ({type(error).__name__}: {error}); change its knobs, take another selector, "
            f"or mend the package {plugins.package_of(GROUP, choice.name)}"
        ) from error


def recorded_selector(choice: SelectorChoice, model: nn.Module, budget: str) -> Any:
    """The `TokenSelector` that an artifact records for a budget, which has to cost as much on a model.

    A knob that is not recorded, and that the budget does not decide, may be newer than the artifact: it is as the
    authors set it, and a note says so.

    Args:
        choice: with its knobs, as they were solved.
        model: what it is to be put on.
        budget: for which it is recorded.

    Raises:
        ArtifactError: a knob is not what the budget solves it to, or is missing though the budget decides it.
        ClaspError: see `selector_of`, `TokenSelector.adapter_for` and `TokenSelector.solved`.
    """
    selector = selector_of(choice)
    with failures_named(choice, f"cannot be solved for a budget of {budget}"):
        adapter = selector.adapter_for(model)
        solved = selector.solved(adapter, pruning_budget(adapter, budget))
    missing = {of.name: getattr(selector, of.name) for of in fields(selector) if of.name not in dict(choice.knobs)}
    if decided := [knob for knob, value in missing.items() if not _same(value, getattr(solved, knob))]:
        raise ArtifactError(
            f"the artifact records the selector {choice.name!r} without its knobs {', '.join(decided)}, which decide "
            "how many tokens are kept; take the artifact as it was made, or calibrate again"
        )
    if missing:
        # A server need not have what it is printed with.
        from clasp_calib.common.progress import note_once

        note_once(
            f"the artifact does not record of the selector {choice.name!r} {', '.join(missing)}, which may be new in "
            f"{plugins.package_of(GROUP, choice.name)}: taken as {knobs_of(choice.name, selector)}"
        )
    for knob, value in choice.knobs:
        if not _same(value, wanted := getattr(solved, knob)):
            raise ArtifactError(
                f"the artifact records the knob {knob!r} of the selector {choice.name!r} as {value!r}, and a budget of "
                f"{budget} solves it to {wanted!r} on this model; take the artifact as it was made, or calibrate again"
            )
    return selector


def as_recorded(choice: SelectorChoice | None, model: nn.Module, budget: str) -> SelectorChoice | None:
    """What an artifact records, if it is no selector or one that `recorded_selector` does not refuse."""
    if choice is not None:
        recorded_selector(choice, model, budget)
    return choice


def actions_at_input(selector: Any, adapter: Adapter) -> RowActions:
    """What a selector does that chooses before the decoder alone, and knows before it sees a picture how many stay.

    Servers that plan by numbers of tokens can run no others.

    Args:
        selector: a `TokenSelector`.
        adapter: of the model.

    Raises:
        ModelError: it is another one.
    """
    try:
        found = selector.actions(None, adapter)
        kept_at_input(selector, 1000)
    except Exception as error:  # Whatever a package raises that was written for something else.
        raise ModelError(
            f"it cannot tell how many tokens stay before it sees a picture ({error or type(error).__name__})"
        ) from error
    if found is None or found.choose is None or found.plan is not None:
        raise ModelError("it drops tokens inside the decoder, or does not say what it does")
    assert isinstance(found, RowActions)
    return found


def kept_at_input(selector: Any, tokens: int) -> int:
    """How many of a picture's tokens stay, as a selector of `actions_at_input` says."""
    nothing = torch.empty(0)
    layout = Layout(torch.arange(tokens), 1, (1, tokens))
    return int(selector.count(Encoded(nothing, layout, nothing, None, {}, lambda states: states)))


def knobs_of(name: str, selector: Any) -> SelectorChoice:
    """A selector and all its knobs, in the form in which it is recorded."""
    return SelectorChoice.of(name, {of.name: getattr(selector, of.name) for of in fields(selector)})


@contextmanager
def selected(
    model: nn.Module,
    selector: TokenSelector,
    alpha_BL: Tensor | None,
    prompt_lengths: PromptLengths = None,
) -> Iterator[Selected]:
    """Prune with a selector within the ``with`` block, tokens being what a mixture of the tower's layers makes of them.

    Args:
        model: what is pruned.
        selector: with solved knobs.
        alpha_BL: see `clasp_calib.runtime.pruner.prune`.
        prompt_lengths: likewise.

    Raises:
        ModelError: the model lacks what the selector needs, or cannot be pruned.
    """
    adapter = selector.adapter_for(model)
    fusion = nullcontext() if alpha_BL is None else fused_tower(model, adapter, alpha_BL)
    with fusion, selector.attached(model, adapter, prompt_lengths) as read, guarded(model, adapter):
        yield Selected(read)


@contextmanager
def selected_by_row(
    model: nn.Module,
    selectors: Mapping[SelectorChoice | None, TokenSelector | Plan],
    owners: Sequence[int],
    alpha_BL: Tensor,
    prompt_lengths: PromptLengths = None,
) -> Iterator[Selected]:
    """Prune every row of a batch with its own selector, see `selected`.

    Args:
        model: what is pruned.
        selectors: with solved knobs, by the choices that they are made of; ``None`` has the plan of the dual-stage
            selection, for the rows that are its own.
        owners: of every row of a batch, the place among the selectors of that which is its own.
        alpha_BL: one row for every row of the batch.
        prompt_lengths: see `clasp_calib.runtime.pruner.prune`; of all rows.

    Raises:
        InputError: a selector that must have a batch to itself, another way of numbering positions, or a selector that
            fails.
        ModelError: see `selected`.
    """
    adapter = adapter_for(model)
    actions = [_actions(choice, selector, model, adapter) for choice, selector in selectors.items()]
    with (
        fused_tower(model, adapter, alpha_BL),
        mixed(model, adapter, actions, owners, prompt_lengths) as read,
        guarded(model, adapter),
    ):
        yield Selected(read)


def _actions(
    choice: SelectorChoice | None, selector: TokenSelector | Plan, model: nn.Module, adapter: Adapter
) -> RowActions:
    if isinstance(selector, Plan):
        return RowActions(plan=selector)
    assert choice is not None
    with failures_named(choice, "cannot say what it does to a row of a batch"):
        actions = selector.actions(model, selector.adapter_for(model))
    if actions is None:
        raise InputError(
            f"the selector {selector!r} cannot share a batch with others; give its rows in a batch of their own, see "
            "Artifact.selector"
        )
    return actions


def _loaded(name: str) -> Any:
    known = plugins.brought(GROUP)
    if name not in known:
        raise InputError(
            f"there is no selector {name!r} in this installation, which has {', '.join([CLASP, *sorted(known)])}; "
            "choose one of these, or install the package that brings it"
        )
    return plugins.loaded(GROUP, "selector", name)


def _alike(value: Any, default: Any) -> bool:
    """Whether a knob's value is of its default's kind; of ``None`` nothing is known."""
    if default is None:
        return True
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_alike(one, default[0]) for one in value if default)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _same(value: Any, other: Any) -> bool:
    """Whether two knobs are the same, up to the rounding of what solves them."""
    if isinstance(value, tuple) and isinstance(other, tuple):
        return len(value) == len(other) and all(map(_same, value, other))
    if isinstance(value, int | float) and isinstance(other, int | float):
        return isclose(value, other, rel_tol=1e-6, abs_tol=1e-9)
    return bool(value == other)
