"""The two doors of the runtime: `prune` a model's visual tokens, or run a whole artifact with `clasp`."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.common.errors import ArtifactError, InputError, ModelError
from clasp_calib.common.pruning_options import INPUT, PruningOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.common.selector_choice import SelectorChoice
    from clasp_calib.runtime.hooks import Pruner
    from clasp_calib.runtime.schedule import AnySchedule
    from clasp_calib.runtime.selection import Selector
    from clasp_calib.runtime.stages import Plan, PromptLengths
    from clasp_calib.runtime.stats import Pruned


@contextmanager
def prune(
    model: "nn.Module",
    *,
    schedule: "AnySchedule",
    rho: "float | Sequence[float] | Tensor",
    alpha_BL: "Tensor | None" = None,
    selector: "Selector | None" = None,
    options: PruningOptions | None = None,
    prompt_lengths: "PromptLengths" = None,
    fan: Sequence[int] | None = None,
) -> "Iterator[Pruned]":
    """Prune visual tokens in every ``forward`` and ``generate`` of ``model`` within the ``with`` block.

    Rows must be padded on the left. Pruned rows come back padded on the left, so that the last ``k`` tokens of a row
    (an answer under teacher forcing) are still the last ``k`` positions of the logits. Rows without a picture are left
    as they are. A cache that was filled within the block can be continued only within it. A ``forward`` on padded rows
    also needs ``position_ids``, which ``generate`` makes by itself: transformers would count the padding otherwise.

    Args:
        model: a transformers model that an adapter is known for.
        schedule: how many visual tokens each stage keeps on this model; see
            `clasp_calib.runtime.budgeting.schedule_for`.
        rho: share of the kept tokens that are pivots, in [0, 1]: one for all rows, or one a row. Do not repeat it for
            the rows that ``generate`` adds for beams or for several returned sequences.
        alpha_BL: mixture of the vision tower's layers, one for all rows or one a row. ``None`` leaves the tower alone,
            and it has no effect on features that are given as ``mm_encoder_outputs``. In the profile ``input`` such
            features must bring their relevance (`clasp_calib.runtime.tower_relevance.with_relevance`).
        selector: what chooses the tokens; the dual-stage selection by default.
        options: how tokens are scored, renumbered and clustered; by default those of
            `clasp_calib.runtime.budgeting.default_options`. The schedule decides where the stages begin; ``starts``
            that contradict it are refused.
        prompt_lengths: for teacher forcing, the number of positions of a row before the first token of the answer,
            padding included: one for all rows, or one a row. Only tokens of the prompt score visual tokens.
        fan: computes the layers before the first stage, if there are any, once for several candidates that share
            prompt and features but not rho: output row ``b`` continues input row ``fan[b]`` with ``rho[b]``. The cache
            comes back with the rows of the output, and later calls, ``generate`` too, continue with as many rows.

    Yields:
        An object whose ``stats`` describe the last prefill.

    Raises:
        ModelError: the model, or what it is called with, cannot be pruned; in the block also a call from a second
            thread while one is on its way, numbers that are not finite, and copying or pickling the model.
        BudgetError: the schedule is for another number of tokens or layers, counts tokens where pictures differ in
            their number, or contradicts ``options.starts``.
    """
    import torch

    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.budgeting import default_options
    from clasp_calib.runtime.selection import DualStage
    from clasp_calib.runtime.stages import Plan

    options = options or default_options(adapter_for(model))
    rho_B = torch.as_tensor(rho, dtype=torch.float64, device="cpu").reshape(-1)
    if not len(rho_B) or not bool(((rho_B >= 0) & (rho_B <= 1)).all()):
        raise ModelError(f"rho is {rho_B.tolist()}; expected shares between 0 and 1")
    if fan is not None and min(fan, default=-1) < 0:
        raise ModelError(f"fan is {list(fan)}; expected the rows of the batch to go on from, counted from 0")
    if fan is not None and len(rho_B) not in (1, len(fan)):
        raise ModelError(f"rho has {len(rho_B)} values for a fan of {len(fan)} rows; give one, or one a row")
    plan = Plan(
        schedule=schedule,
        rho=rho_B,
        selector=selector or DualStage(options.iterations, (options.seeding,), needs_gram=bool((rho_B < 1).any())),
        options=options,
        prompt_lengths=prompt_lengths,
        fan=None if fan is None else tuple(map(int, fan)),
    )
    with _applied(model, plan, alpha_BL) as pruned:
        yield pruned


@contextmanager
def _applied(model: "nn.Module", plan: "Plan", alpha_BL: "Tensor | None") -> "Iterator[Pruned]":
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.checks import checked
    from clasp_calib.runtime.guard import guarded
    from clasp_calib.runtime.hooks import Pruner
    from clasp_calib.runtime.input_stage import pruned_at_input
    from clasp_calib.runtime.tower import fused_tower

    adapter = adapter_for(model)
    plan = checked(model, adapter, plan)
    at_input = plan.options.profile == INPUT
    attached = pruned_at_input(model, adapter, plan) if at_input else _in_stages(Pruner(model, adapter, plan))
    fusion = nullcontext() if alpha_BL is None else fused_tower(model, adapter, alpha_BL)
    changed = alpha_BL is not None or bool(plan.stages)
    with fusion, attached as pruned, guarded(model, adapter) if changed else nullcontext():
        yield pruned


@contextmanager
def clasp(  # noqa: PLR0913 - all that a batch is, by name
    model: "nn.Module",
    artifact: "Artifact | Path | str",
    *,
    budget: str | int,
    classes: str | Sequence[str] = "auto",
    questions: str | Sequence[str] | None = None,
    prompt_lengths: "PromptLengths" = None,
    strict: bool = False,
    checkpoint: str | None = None,
    smaller: bool = False,
) -> "Iterator[Pruned]":
    """Run ``model`` under an artifact within the ``with`` block: the tower's layers are fused, then tokens pruned.

    A class may be calibrated for smaller pictures (`clasp_calib.artifacts.artifact.Artifact.downsample`); make them so
    before they are processed, with `clasp_calib.api.resizing.resized`, and give ``smaller``.

    Args:
        model: the model that the artifact was calibrated for.
        artifact: the artifact, its directory, or ``org/name@v1.2.0`` on the Hugging Face Hub.
        budget: one of the artifact's budgets, such as ``192`` or ``33%``.
        classes: a list with the class of every row of the batch; or one class, as text, for all rows; or ``auto``,
            which takes the artifact's only class, or lets its router classify ``questions``. The packaged router
            does where it has none and the packaged classes.
        questions: for ``auto``, the question of every row, without picture and template. One text is a batch of one.
        prompt_lengths: see `prune`.
        strict: refuse a model that does not have the weights of the calibration, of which there is a warning otherwise.
        checkpoint: accept a model with other weights by their digest, as the warning names it.
        smaller: the pictures were made smaller where ``artifact.downsample`` says so.

    Yields:
        An object whose ``stats`` describe the last prefill.

    Raises:
        ArtifactError: the artifact is for another model, or has no such budget or class; or it shows the pictures of a
            class smaller, and ``smaller`` does not say that they are; or its selector's knobs are not those of the
            budget.
        InputError: a batch has another number of rows than there are classes in the list, or questions, or classes that
            are shown pictures in different sizes or whose selectors cannot share a batch; a selector that this
            installation does not have, or knobs that it cannot have; ``auto`` without questions, or without a router
            for classes of the artifact's own; questions without ``auto``.
        ModelError: see `prune`.
    """
    import torch

    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.fits import check_fits
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.budgeting import of_smaller, schedule_for
    from clasp_calib.runtime.generation import batches_of
    from clasp_calib.runtime.routing import AUTO, classes_of
    from clasp_calib.runtime.schedule import parse_budget
    from clasp_calib.runtime.selectors import recorded_selector, selected, selected_by_row

    adapter = adapter_for(model)
    chosen = Artifact.load(artifact) if isinstance(artifact, Path | str) else artifact
    check_fits(chosen, model, strict=strict, checkpoint=checkpoint)
    name = parse_budget(budget).name
    counted: AbstractContextManager[None] = nullcontext()
    if isinstance(classes, str) and (classes != AUTO or len(chosen.classes) == 1):
        rows = [chosen.classes[0] if classes == AUTO else classes]
    else:
        rows = classes_of(_required(questions), chosen) if classes == AUTO else list(classes)
        counted = batches_of(model, adapter, len(rows), "questions" if classes == AUTO else "classes")
    if questions is not None and classes != AUTO:
        raise InputError("questions are read only with classes='auto'; leave them out, or give classes='auto'")
    shares = {chosen.downsample(name, row) for row in rows}
    if len(shares) > 1:
        raise InputError(
            f"the classes {', '.join(dict.fromkeys(rows))} are shown pictures in different sizes; give those of each "
            "size in a batch of its own, see Artifact.downsample"
        )
    share, schedule = shares.pop(), schedule_for(model, name, artifact=chosen)
    if share and not smaller:
        raise ArtifactError(
            f"the class {rows[0]!r} is calibrated for pictures with at most {share:.3g} of their visual tokens; make "
            "them smaller with clasp_calib.resized before they are processed, and give smaller=True"
        )
    alpha_BL = torch.tensor([chosen.alpha(name, row) for row in rows], dtype=torch.float64)
    choice_by_row = [chosen.selector(name, row) for row in rows]
    choices = list(dict.fromkeys(choice_by_row))
    schedule = of_smaller(schedule, share) if share else schedule
    selectors: dict[SelectorChoice | None, Any] = {
        choice: _dual_stage(
            chosen, name, [row for row, own in zip(rows, choice_by_row, strict=True) if own is None], schedule
        )
        if choice is None
        else recorded_selector(choice, model, name)
        for choice in choices
    }
    attached: AbstractContextManager[Pruned]
    if len(choices) > 1:
        owners = [choices.index(choice) for choice in choice_by_row]
        attached = selected_by_row(model, selectors, owners, alpha_BL, prompt_lengths)
    elif choices == [None]:
        attached = _applied(model, selectors[None].for_prompts(prompt_lengths), alpha_BL)
    else:
        attached = selected(model, selectors[choices[0]], alpha_BL, prompt_lengths)
    with attached as pruned, counted:
        yield pruned


def _dual_stage(artifact: "Artifact", budget: str, classes: list[str], schedule: "AnySchedule") -> "Plan":
    """The dual-stage selection of rows of these classes."""
    import torch

    from clasp_calib.runtime.selection import DualStage
    from clasp_calib.runtime.stages import Plan

    rho = [artifact.rho(budget, label) for label in classes]
    seedings = tuple(artifact.seeding(budget, label) for label in classes)
    return Plan(
        schedule=schedule,
        rho=torch.tensor(rho, dtype=torch.float64),
        selector=DualStage(artifact.pruning.iterations, seedings, needs_gram=any(share < 1 for share in rho)),
        options=artifact.pruning,
        relevances=tuple(filter(None, (artifact.relevance(budget, label) for label in classes))),
    )


def _required(questions: str | Sequence[str] | None) -> list[str]:
    if not questions:
        raise InputError(
            "classes='auto' needs questions to classify, and there are none; give questions=[...], one for every row, "
            "or name the classes"
        )
    return [questions] if isinstance(questions, str) else list(questions)


@contextmanager
def _in_stages(pruner: "Pruner") -> "Iterator[Pruner]":
    with pruner.attached():
        yield pruner
