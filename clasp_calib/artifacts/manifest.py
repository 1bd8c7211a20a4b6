"""``artifact.json``: everything about a calibration but the numbers themselves. Format 1.

No timestamps and no durations: the same content gives the same bytes. The artifact's id is the sha256 of the canonical
JSON without the id; the JSON lists the hashes of all other files.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from clasp_calib.artifacts.model_shape import ModelShape

FORMAT = 1
Semver = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Frozen):
    """A mean with its confidence interval, in [0, 1]."""

    mean: float
    low: float
    high: float
    samples: int = Field(ge=1)


class ClassChoice(_Frozen):
    """How one class's mixture and ratio were chosen: by a race, and a final on samples of another split."""

    prototype: str
    candidates: int = Field(ge=1)
    evaluations: int = Field(ge=0)
    calibration: float | None
    """Mean score of the choice where the candidates raced; ``None`` if the class had no samples."""
    selection: float | None
    """Mean score of the choice where finalists were compared; ``None`` if there were no such samples."""
    selection_default: float | None
    """The same of the model's own layer with rho = 1."""


class BudgetEntry(_Frozen):
    """One calibrated budget."""

    name: str
    counts: tuple[int, ...]
    mean_tokens: float
    choices: dict[str, ClassChoice]
    results: dict[str, dict[str, Score]] = {}
    """Setting -> class (or ``macro``) -> score on the test split, once `evaluate` has measured it."""


class Provenance(_Frozen):
    """What the calibration was made from."""

    samples: Hash
    cache_encoder: str
    """The encoder fingerprint of the feature cache."""
    space: Hash
    taxonomy: Hash
    strategy: str
    metric: str
    seed: int
    versions: dict[str, str]


class Manifest(_Frozen):
    """The whole of ``artifact.json``."""

    format: Literal[1] = 1
    version: Semver = "0.1.0"
    name: str
    model: str
    shape: ModelShape
    fingerprint: Hash
    classes: tuple[str, ...] = Field(min_length=1)
    starts: tuple[int, ...]
    tau: float = Field(gt=0)
    raters: str
    positions: str
    features: str
    iterations: int = Field(ge=0)
    prompt: str
    budgets: tuple[BudgetEntry, ...] = Field(min_length=1)
    provenance: dict[str, Provenance]
    """Budget name -> what that budget's search was made from."""
    files: dict[str, Hash]
    id: Hash | None = None
