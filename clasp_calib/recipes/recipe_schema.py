"""What a recipe says: model, calibration, rows and columns of a table of the paper, with what the paper printed."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from clasp_calib.common.fields import Line, Share, Strict

Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,99}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
BudgetText = Annotated[str, StringConstraints(pattern=r"^[0-9][0-9.]{0,15}%?$")]
Positive = Annotated[int, Field(ge=1)]
Kind = Literal["benchmarks", "layers", "routing"]
"""``benchmarks``: methods on benchmarks. ``layers``, ``routing``: ablations by class, which only a rehearsal runs."""
Calibrated = Literal["calibrated", "refined", "own-refined", "uniform-refined"]
"""Calibrations of a recipe: the search's own, and its refinement from what it found, from the model's own layer, and
from all layers alike."""
CALIBRATED: tuple[Calibrated, ...] = ("calibrated", "refined", "own-refined", "uniform-refined")
UNPRUNED, FUSION, RATIO = "unpruned", "fusion", "ratio"
PARTS = (FUSION, RATIO)
"""Rows that take one part of the calibration alone."""


class Block(Strict):
    """Sizes of the blocks of a vision tower or a decoder."""

    layers: Positive
    width: Positive
    mlp: Positive


class RecipeModel(Strict):
    """A model of the paper: where it is, and the sizes that costs are computed from."""

    id: Line
    """On the Hugging Face Hub."""
    revision: Line
    pinned: bool
    """Whether the revision is a commit that somebody verified; ``main`` moves."""
    parameters: Positive
    visual_tokens: Positive
    """Of a picture, in the decoder; of the largest where pictures differ."""
    tower_tokens: Positive
    """Of the same picture, in the vision tower."""
    tower: Block
    own_layer: Positive
    """The vision layer that its projector takes, an index into ``hidden_states``."""
    decoder: Block
    notes: tuple[Text, ...] = ()


class RecipeColumn(Strict):
    """A column of a table, and what fills it."""

    title: Line
    task: Line | None = None
    """Of lmms-eval."""
    metrics: tuple[Line, ...] = ()
    """Of the task; they are added up."""
    scale: float = 1
    """Times this, they are what the paper prints."""
    kwargs: dict[Key, bool] = Field(default={})
    """What the task's ``lmms_eval_specific_kwargs`` are given beside their own."""
    questions: Positive | None = None
    """Of the task, for the estimate of cost."""
    cost: Literal["prefill_ms", "decoder_tflop"] | None = None
    """What ``compare`` measures."""
    retained: bool = False
    """Mean over the table's tasks, in percent of the unpruned row."""
    digits: Annotated[int, Field(ge=0, le=4)] = 1
    missing: Text | None = None
    """Why nothing here fills it."""
    benchmark: bool = True
    """Whether it is the score of a benchmark, so that a mean over benchmarks has to hold it."""
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.task, self.cost, self.retained or None, self.missing]
        if sum(one is not None for one in given) != 1:
            raise ValueError("expected one of task, cost, retained and missing")
        if (self.task is None) != (not self.metrics) or (self.task is None) != (self.questions is None):
            raise ValueError("task, metrics and questions go together")
        return self


class RecipeRow(Strict):
    """A row of a table: who answers, and what the paper printed."""

    name: Line
    group: str = ""
    """What the paper prints above some rows."""
    by: Key
    """``unpruned``; one of `CALIBRATED`; one of `PARTS` of a calibration; or the name of a published method."""
    budget: BudgetText | None = None
    paper: dict[Key, float] = Field(default={})
    """Column -> what it printed; what it left empty is left out."""
    missing: Text | None = None
    """Why it cannot be run."""

    @model_validator(mode="after")
    def _budgeted(self) -> Self:
        if (self.by == UNPRUNED) != (self.budget is None):
            raise ValueError("every row has a budget, but for the unpruned one")
        return self


class RecipeCalibration(Strict):
    """How the paper calibrated."""

    labeler: Line
    """The language model that names the class of a question."""
    per_class: Positive
    balanced: bool
    strategy: Literal["two-step"]
    rhos: tuple[Share, ...] = Field(min_length=1)
    notes: tuple[Text, ...] = ()


class TableRecipe(Strict):
    """A table of the paper, and how to run it."""

    table: Positive
    title: Line
    kind: Kind
    model: Key
    columns: tuple[Key, ...] = Field(min_length=1)
    rows: tuple[RecipeRow, ...] = Field(min_length=1)
    rehearsal: dict[BudgetText, BudgetText]
    """Budget of the table -> budget on the embedded model, which has 576 visual tokens."""
    missing: Text | None = None
    """Why the whole table cannot be run."""
    notes: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for row in self.rows:
            if unknown := set(row.paper) - set(self.columns):
                raise ValueError(f"row {row.name!r}: the table has no column {min(unknown)!r}")
        if set(self.rehearsal) != set(self.budgets):
            raise ValueError(f"rehearsal: names {sorted(self.rehearsal)}, and the rows have {sorted(self.budgets)}")
        names = [(row.group, row.name) for row in self.rows]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"rows: {min(twice)} is there twice")
        return self

    @property
    def budgets(self) -> tuple[str, ...]:
        """All budgets of its rows, in their order."""
        return tuple(dict.fromkeys(row.budget for row in self.rows if row.budget is not None))


class Models(Strict):
    """``models.yaml``."""

    models: dict[Key, RecipeModel]


class Columns(Strict):
    """``columns.yaml``."""

    columns: dict[Key, RecipeColumn]
