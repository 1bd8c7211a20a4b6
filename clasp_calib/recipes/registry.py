"""The recipes by the number of their table, read from the package."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeVar

from pydantic import ValidationError

from clasp_calib.common.errors import InputError
from clasp_calib.common.fields import describe
from clasp_calib.common.yaml_files import read_yaml
from clasp_calib.recipes.recipe_schema import (
    CALIBRATED,
    FUSION,
    PARTS,
    UNPRUNED,
    Columns,
    Models,
    RecipeCalibration,
    RecipeColumn,
    RecipeModel,
    RecipeRow,
    TableRecipe,
)

TABLES = (1, 2, 3, 5, 10, 13, 14, 15, 19, 22, 23)
"""Those that there are recipes of."""
_Read = TypeVar("_Read", TableRecipe, Columns, Models, RecipeCalibration)


@dataclass(frozen=True)
class PaperTable:
    """A recipe with the model, columns and calibration that it names."""

    recipe: TableRecipe
    model: RecipeModel
    calibration: RecipeCalibration
    columns: Mapping[str, RecipeColumn]
    """Those of the table, in its order."""

    @property
    def tasks(self) -> dict[str, RecipeColumn]:
        """Columns that lmms-eval fills."""
        return {key: column for key, column in self.columns.items() if column.task is not None}

    @property
    def costs(self) -> dict[str, RecipeColumn]:
        """Columns that ``compare`` fills."""
        return {key: column for key, column in self.columns.items() if column.cost is not None}

    @property
    def runnable(self) -> tuple[RecipeRow, ...]:
        """Rows that can be run; none of a table that lacks something as a whole."""
        return () if self.recipe.missing else tuple(row for row in self.recipe.rows if row.missing is None)

    @property
    def methods(self) -> tuple[str, ...]:
        """Published methods among its rows."""
        own = (UNPRUNED, *PARTS, *CALIBRATED)
        return tuple(dict.fromkeys(row.by for row in self.recipe.rows if row.by not in own))

    @property
    def lacking(self) -> list[str]:
        """What nothing here runs or fills, and why, a line each."""
        if self.recipe.missing:
            return [f"the whole table: {self.recipe.missing}"]
        columns = [f"column {column.title}: {column.missing}" for column in self.columns.values() if column.missing]
        reasons: dict[str, list[str]] = {}
        for row in self.recipe.rows:
            if row.missing:
                reasons.setdefault(row.missing, []).append(row.name)
        rows = [f"{'row' if len(of) == 1 else 'rows'} {'; '.join(of)}: {why}" for why, of in reasons.items()]
        return [*columns, *rows]

    @property
    def notes(self) -> list[str]:
        """What is to be known of its numbers."""
        of_columns = [f"{column.title}: {note}" for column in self.columns.values() for note in column.notes]
        pinned = [] if self.model.pinned else [f"The revision {self.model.revision} of the model is not pinned."]
        return [*self.recipe.notes, *of_columns, *self.model.notes, *pinned, *self.calibration.notes]

    @property
    def has_fusion(self) -> bool:
        """Whether a row takes the calibration's mixtures alone."""
        return any(row.by == FUSION for row in self.recipe.rows)


@cache
def paper_table(number: int) -> PaperTable:
    """The recipe of a table.

    Raises:
        InputError: there is none, or the file of an installation is damaged.
    """
    if number not in TABLES:
        raise InputError(f"there is no recipe of table {number}; choose from {', '.join(map(str, TABLES))}")
    recipe = _read(f"table-{number:02d}.yaml", TableRecipe)
    columns, models = _read("columns.yaml", Columns).columns, _read("models.yaml", Models).models
    if unknown := ({recipe.model} - models.keys()) | ({*recipe.columns} - columns.keys()):
        raise InputError(f"the recipe of table {number} names {min(unknown)}, which is not there; install again")
    chosen = {key: columns[key] for key in recipe.columns}
    return PaperTable(recipe, models[recipe.model], _read("calibration.yaml", RecipeCalibration), chosen)


def _read(name: str, kind: type[_Read]) -> _Read:
    try:
        return kind.model_validate(read_yaml(files("clasp_calib.recipes") / name, "recipe"))
    except ValidationError as error:
        raise InputError(f"recipe {name}: {describe(error)}; install the package again") from error
