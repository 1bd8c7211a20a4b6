"""The two doors of the runtime: `prune` a model's visual tokens, or run a whole artifact with `clasp`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.schedule import Schedule, parse_budget
from clasp_calib.runtime.scoring import RATERS
from clasp_calib.runtime.selection import DualStage, Selector
from clasp_calib.runtime.stages import POSITIONS, Plan
from clasp_calib.runtime.tower import fused_tower


class Calibrated(Protocol):
    """What `clasp` reads of a `clasp_calib.artifacts.artifact.Artifact`."""

    @property
    def starts(self) -> tuple[int, ...]:
        """Decoder layers that a pruned sequence enters."""
        ...

    @property
    def raters(self) -> str:
        """See `prune`."""
        ...

    @property
    def positions(self) -> str:
        """See `prune`."""
        ...

    @property
    def iterations(self) -> int:
        """See `prune`."""
        ...

    def counts(self, budget: str) -> tuple[int, ...]:
        """Visual tokens kept at each stage."""
        ...

    def alpha(self, budget: str, label: str) -> Sequence[float]:
        """Mixture of the tower's layers for a class."""
        ...

    def rho(self, budget: str, label: str) -> float:
        """Share of the pivots for a class."""
        ...


@contextmanager
def prune(
    model: nn.Module,
    *,
    schedule: Schedule,
    rho: float | Sequence[float] | Tensor,
    alpha_BL: Tensor | None = None,
    selector: Selector | None = None,
    raters: str = "sparsevlm",
    positions: str = "keep",
    iterations: int = 5,
    prompt_lengths: int | Sequence[int] | None = None,
    fan: Sequence[int] | None = None,
) -> Iterator[Pruner]:
    """Prune visual tokens in every ``forward`` and ``generate`` of ``model`` within the ``with`` block.

    Rows must be padded on the left: pruned rows come back padded on the left, so that the last ``k`` tokens
    of a row, an answer under teacher forcing, are still the last ``k`` positions of the logits. A row without
    picture passes untouched. A cache that was filled here can only go on here. To give padded rows to
    ``forward`` give ``position_ids`` too, as ``generate`` does: transformers counts the padding otherwise.

    Args:
        model: a transformers model that an adapter is known for.
        schedule: visual tokens of every stage, for this model's pictures.
        rho: share of the pivots, in [0, 1]: one for all rows or one a row. Rows that ``generate`` repeats for
            beams or for several returned sequences need no repeating here.
        alpha_BL: mixture of the vision tower's layers, one for all rows or one a row; ``None`` leaves the
            tower alone, as does giving features as ``mm_encoder_outputs``.
        selector: what chooses the tokens; the dual-stage selection by default.
        raters: which text scores the tokens, see `clasp_calib.runtime.scoring.choose_raters`.
        positions: ``keep`` the position ids of kept tokens, or ``compact`` them to 0, 1, 2...
        iterations: k-means rounds of the default selector.
        prompt_lengths: where answers follow the prompt (teacher forcing): positions of a row, padding
            included, before the first token of the answer, one for all rows or one a row. Only the prompt
            rates.
        fan: candidates that share their prompt and features but not rho need the layers before the first
            stage only once: output row ``b`` continues input row ``fan[b]`` with ``rho[b]``. Needs
            ``use_cache=False``.

    Yields:
        The `Pruner`; its ``stats`` describe the last prefill.

    Raises:
        ModelError: the model, or what it is called with, cannot be pruned.
        BudgetError: the schedule is for another number of tokens or layers.
    """
    adapter = adapter_for(model)
    _check_decoder(model)
    if (schedule.tokens, schedule.layers) != (adapter.tokens_per_image, adapter.decoder_layers):
        raise BudgetError(
            f"the schedule is for {schedule.tokens} visual tokens and {schedule.layers} layers; this model "
            f"has {adapter.tokens_per_image} and {adapter.decoder_layers}: solve one for it (solve_schedule)"
        )
    if raters not in RATERS or positions not in POSITIONS:
        raise ModelError(
            f"raters {raters!r}, positions {positions!r}; expected one of {', '.join(RATERS)} and one of "
            f"{', '.join(POSITIONS)}"
        )
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
        selector=selector or DualStage(iterations, needs_gram=bool((rho_B < 1).any())),
        raters=raters,
        positions=positions,
        prompt_lengths=(prompt_lengths,) if isinstance(prompt_lengths, int) else _tuple(prompt_lengths),
        fan=_tuple(fan),
    )
    pruner = Pruner(model, adapter, plan)
    fusion = nullcontext() if alpha_BL is None else fused_tower(model, adapter, alpha_BL)
    with fusion, pruner.attached():
        yield pruner


@contextmanager
def clasp(
    model: nn.Module,
    artifact: Calibrated | Path | str,
    *,
    budget: str | int,
    classes: str | Sequence[str],
    prompt_lengths: int | Sequence[int] | None = None,
) -> Iterator[Pruner]:
    """Run ``model`` as an artifact says: fusion of its live tower, then pruning.

    Args:
        model: the model that the artifact was calibrated for.
        artifact: as `clasp_calib.artifacts.files.read_artifact` gives it, or where it lies.
        budget: one of the artifact's budgets, such as ``192`` or ``33%``.
        classes: the class slug of every row of the batch, or one for all.
        prompt_lengths: see `prune`.

    Yields:
        The `Pruner`; its ``stats`` describe the last prefill.

    Raises:
        ArtifactError: it is not for this model, or has no such budget or class.
        ModelError: as `prune`.
    """
    from clasp_calib.artifacts.files import check_fits, read_artifact

    chosen: Any = read_artifact(Path(artifact)) if isinstance(artifact, Path | str) else artifact
    check_fits(chosen, model.config)
    name = parse_budget(budget).name
    rows = [classes] if isinstance(classes, str) else list(classes)
    adapter = adapter_for(model)
    schedule = Schedule(adapter.tokens_per_image, adapter.decoder_layers, chosen.starts, chosen.counts(name))
    with prune(
        model,
        schedule=schedule,
        rho=[chosen.rho(name, row) for row in rows],
        alpha_BL=torch.tensor([chosen.alpha(name, row) for row in rows], dtype=torch.float64),
        raters=chosen.raters,
        positions=chosen.positions,
        iterations=chosen.iterations,
        prompt_lengths=prompt_lengths,
    ) as pruner:
        yield pruner


def _tuple(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(value) for value in values)


def _check_decoder(model: Any) -> None:
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if window is not None or kinds != {"full_attention"}:
        raise ModelError(
            f"the language model attends with a sliding window ({window or ', '.join(sorted(kinds))}), which "
            "counts positions that pruning removes; expected full attention in every layer"
        )
