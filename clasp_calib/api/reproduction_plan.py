"""What a recipe would run, and what that takes: disk, and GPU hours from FLOPs at a stated utilisation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from clasp_calib.api.rehearsing import recipe_space
from clasp_calib.common.errors import BudgetError
from clasp_calib.common.settings import check_number
from clasp_calib.recipes.command_lines import CLASP, RecipeSetting, Step, command_lines
from clasp_calib.recipes.recipe_schema import CALIBRATED, PARTS, Block, RecipeModel
from clasp_calib.recipes.registry import PaperTable
from clasp_calib.recipes.reproduced import NEVER_RUN

PEAK = 312e12
"""FLOP/s of an A100 in dense bfloat16, https://www.nvidia.com/en-us/data-center/a100/; the paper's GPU."""
UTILISATION = 0.3
"""Share of the peak that is reached. Our choice, and a guess for prefills at batch 1."""
TEXT_TOKENS = 64
"""Of a prompt beside the picture. Our choice."""
BYTES = 2
"""Of a weight and of a cached feature: float16."""
CLASSES = 9
PARTS_OF_A_DRAW = 2
"""``sample`` draws half as many for selection and half as many for test as for the calibration."""


@dataclass(frozen=True)
class PlannedStep:
    """One command line, and what it takes."""

    step: Step = field(repr=False)
    flops: float | None
    """``None`` where they are not estimated."""
    disk: int
    """Bytes that it leaves."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line."""
        return self.step.argv

    def hours(self, utilisation: float) -> float | None:
        """Of one A100 at a share of its peak."""
        return None if self.flops is None else self.flops / (PEAK * utilisation) / 3600


@dataclass(frozen=True)
class ReproductionPlan:
    """All steps of a recipe with their costs."""

    table: PaperTable = field(repr=False)
    """The recipe."""
    steps: Sequence[PlannedStep]
    """In their order; none of a table that cannot be run."""
    utilisation: float
    """Share of the GPU's peak that is reached."""

    @property
    def hours(self) -> float:
        """Of one A100, of the steps that are estimated."""
        return sum(step.hours(self.utilisation) or 0 for step in self.steps)

    @property
    def disk(self) -> int:
        """Bytes of caches and checkpoints."""
        return sum(step.disk for step in self.steps)

    @property
    def told(self) -> list[str]:
        """How the numbers come about, and what is not in them."""
        if not self.steps:
            return [NEVER_RUN]
        return [
            NEVER_RUN,
            f"GPU hours: FLOPs at {self.utilisation:.0%} of the {PEAK / 1e12:.0f} TFLOP/s of an A100; prefills with "
            f"{TEXT_TOKENS} tokens of text beside the picture, every picture a different one. It is a lower bound: the "
            "labeling, the tokens of answers after the first, loading and preparing pictures are not in it.",
            "Disk: checkpoints in float16 and the feature cache, without the pictures of samples and benchmarks.",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        recipe = self.table.recipe
        return {
            "table": recipe.table,
            "title": recipe.title,
            "model": self.table.model.model_dump(mode="json", include={"id", "revision", "pinned"}),
            "steps": [
                {"command": list(step.argv), "flops": step.flops, "gpu_hours": step.hours(self.utilisation)}
                | {"disk_bytes": step.disk}
                for step in self.steps
            ],
            "gpu_hours": self.hours,
            "disk_bytes": self.disk,
            "utilisation": self.utilisation,
            "not measured": self.table.lacking,
            "notes": [*self.told, *self.table.notes],
        }


def planned(table: PaperTable, setting: RecipeSetting, utilisation: float = UTILISATION) -> ReproductionPlan:
    """The plan of a recipe.

    Args:
        table: the recipe.
        setting: of its run.
        utilisation: share of the GPU's peak that is reached.

    Raises:
        BudgetError: the model cannot meet a budget.
        InputError: the utilisation is no share.
    """
    check_number("utilisation", utilisation, lambda share: 0 < share <= 1, "a share above 0 and up to 1, such as 0.3")
    steps = [_planned(table, step) for step in command_lines(table, setting)]
    return ReproductionPlan(table, steps, utilisation)


def _planned(table: PaperTable, step: Step) -> PlannedStep:
    model, how = table.model, table.calibration
    drawn = how.per_class * CLASSES * PARTS_OF_A_DRAW
    if step.kind == "cache":
        kept = len(_layers(model)) * model.tower_tokens * model.tower.width * BYTES
        return PlannedStep(step, drawn * _tower(model), drawn * kept + BYTES * model.parameters)
    if step.kind == "search":
        return PlannedStep(step, _searched(table), 0)
    if step.kind == "task":
        assert step.row is not None
        assert step.column is not None
        questions = table.columns[step.column].questions or 0
        return PlannedStep(step, questions * (_tower(model) + _prefill(model, step.row.budget)), 0)
    return PlannedStep(step, None if step.argv[0] == CLASP and step.kind in ("label", "compare") else 0.0, 0)


def _searched(table: PaperTable) -> float:
    """FLOPs of the decoder of all budgets' searches; two steps evaluate each mixture and each ratio once a question."""
    model, how = table.model, table.calibration
    space = recipe_space(_layers(model), model.own_layer, how)
    evaluations = CLASSES * how.per_class * (len(space.tried) + len(space.rhos))
    own = (*CALIBRATED, *PARTS)
    budgets = dict.fromkeys(row.budget for row in table.runnable if row.by in own and row.budget)
    return sum(evaluations * _prefill(model, budget) for budget in budgets)


def _layers(model: RecipeModel) -> tuple[int, ...]:
    from clasp_calib.cache.feature_options import FeatureOptions

    return FeatureOptions().layers_of(model.tower.layers, model.own_layer)


def _tower(model: RecipeModel) -> float:
    from clasp_calib.runtime.flops import tower_flops

    tokens = [model.tower_tokens] * model.tower.layers
    return tower_flops(SimpleNamespace(**_widths(model.tower)), tokens, tokens)


def _prefill(model: RecipeModel, budget: str | None) -> float:
    """FLOPs of the decoder's layers for one picture.

    Raises:
        BudgetError: it cannot be met.
    """
    from clasp_calib.runtime.flops import decoder_flops
    from clasp_calib.runtime.schedule import parse_budget, solve_schedule

    of = model.decoder
    try:
        tokens = (
            solve_schedule(parse_budget(budget), model.visual_tokens, of.layers).per_layer
            if budget
            else (model.visual_tokens,) * of.layers
        )
    except BudgetError as error:
        raise BudgetError(f"{model.id} at budget {budget}: {error}") from error
    return decoder_flops(tokens, of.width, of.mlp, TEXT_TOKENS)


def _widths(block: Block) -> dict[str, int]:
    return {"hidden_size": block.width, "intermediate_size": block.mlp}
