"""``artifact.json``: everything about a calibration but the numbers themselves. Format 1.

No timestamps and no durations: the same content gives the same bytes. The artifact's id is the sha256 of the canonical
JSON without the id; the JSON lists the hashes of all other files.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from clasp_calib.artifacts.model_shape import ModelShape

FORMAT = 1
SETTINGS = (
    *("model", "revision", "fingerprint", "classes", "taxonomy", "starts", "tau"),
    *("raters", "positions", "features", "iterations", "prompt", "decoding"),
)
"""What all budgets of one artifact share."""
CALIBRATED, MACRO = "calibrated", "macro"
"""The setting that an artifact's own numbers stand for in results, and the mean over classes."""
Semver = Annotated[str, Field(pattern=r"^\d{1,9}\.\d{1,9}\.\d{1,9}$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
BudgetName = Annotated[str, StringConstraints(pattern=r"^[0-9][0-9.]{0,15}%?$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,4096}$")]
"""One line of text that a terminal may print."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(_Frozen):
    """A mean with its confidence interval, in [0, 1]."""

    mean: float
    low: float
    high: float
    samples: int = Field(ge=1)


class Confirmation(_Frozen):
    """What the best finalist gained over the default where finalists were compared."""

    leader: Line
    """The finalist's name; if its gain may be noise the class has the default all the same."""
    gain: float
    low: float
    high: float
    """Of the gain's bootstrap interval by picture."""
    samples: int = Field(ge=1)
    chance: float = Field(gt=0, le=1)
    """How often luck alone would show as much: a one-sided p-value."""


class Alternative(_Frozen):
    """Another way to choose, kept to be compared with."""

    prototype: Line
    layers: tuple[int, ...] = Field(min_length=1, max_length=1000)
    weights: tuple[float, ...] = Field(min_length=1, max_length=1000)
    rho: float = Field(ge=0, le=1)


class ClassChoice(_Frozen):
    """How one class's mixture and ratio were chosen: on calibration samples, and in a final on another split."""

    prototype: Line
    candidates: int = Field(ge=1)
    evaluations: int = Field(ge=0)
    calibration: float | None
    """Mean score of the choice where the candidates raced; ``None`` if the class had no samples."""
    selection: float | None
    """Mean score of the choice where finalists were compared; ``None`` if there were no such samples."""
    selection_default: float | None
    """The same of the model's own layer with rho = 1."""
    confirmation: Confirmation | None = None
    """Of the leader in the final; ``None`` if it was the default, or if there was no final."""
    refinement: Confirmation | None = None
    """Of the refined candidate, over the choice without it; ``None`` if nothing was refined."""


class Measured(_Frozen):
    """What the results of a budget were measured on, so that they can be measured again."""

    samples: Hash
    """sha256 of the labelled table."""
    split: Line
    seed: int
    """Of random pruning and of the bootstrap."""


class BudgetEntry(_Frozen):
    """One calibrated budget."""

    name: BudgetName
    counts: tuple[int, ...] = Field(min_length=1, max_length=16)
    mean_tokens: float = Field(ge=0)
    choices: dict[Slug, ClassChoice]
    alternatives: dict[Line, dict[Slug, Alternative]] = {}
    """``global`` (one setting for all classes) and ``exhaustive``, where they were searched -> class -> setting."""
    results: dict[Line, dict[Slug, Score]] = {}
    """Setting -> class (or ``macro``) -> score on the test split, once `evaluate` has measured it."""
    measured: Measured | None = None
    """Where the results come from; ``None`` as long as there are none."""


class Decoding(_Frozen):
    """How answers were decoded."""

    do_sample: bool
    max_new_tokens: int = Field(ge=1)


class Provenance(_Frozen):
    """What the calibration was made from."""

    samples: Hash
    """sha256 of the labelled table's file."""
    labels: Hash
    """sha256 of the pairs of sample id and class."""
    cache_encoder: Line
    """The encoder fingerprint of the feature cache: weights and preprocessing."""
    space: Hash
    taxonomy: Hash
    strategy: Line
    metric: Line
    seed: int
    versions: dict[Line, Line]


class RouterEntry(_Frozen):
    """What ``router.safetensors`` says of itself, for readers of the manifest alone."""

    kind: Literal["ngrams"] = "ngrams"
    taxonomy: Hash
    """Of the taxonomy that its labels follow."""
    threshold: float = Field(ge=0, le=1)
    """It abstains to the default class below this probability."""
    labels: Hash
    """sha256 of the labelled table that it was trained on."""
    rows: int = Field(ge=1)


class Manifest(_Frozen):
    """The whole of ``artifact.json``."""

    format: Literal[1] = 1
    version: Semver = "0.1.0"
    name: Line
    model: Line
    revision: Line | None = None
    """The model's commit on the Hub; ``None`` if it came from a directory."""
    shape: ModelShape
    fingerprint: Hash
    classes: tuple[Slug, ...] = Field(min_length=1, max_length=1000)
    taxonomy: dict[Slug, Slug]
    """Intent -> class."""
    starts: tuple[int, ...] = Field(min_length=1, max_length=16)
    tau: float = Field(gt=0)
    raters: Line
    positions: Line
    features: Line
    iterations: int = Field(ge=0)
    prompt: str = Field(max_length=65536)
    decoding: Decoding
    budgets: tuple[BudgetEntry, ...] = Field(min_length=1, max_length=1000)
    provenance: dict[BudgetName, Provenance]
    """Budget name -> what that budget's search was made from."""
    router: RouterEntry | None = None
    """``None`` if the artifact brings no router."""
    files: dict[Line, Hash]
    id: Hash | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        names = [entry.name for entry in self.budgets]
        _unique("class", self.classes)
        _unique("budget", names)
        if self.fingerprint != self.shape.fingerprint:
            raise ValueError("fingerprint: is not the sha256 of the shape")
        if self.starts[0] < 1 or any(b <= a for a, b in pairwise(self.starts)):
            raise ValueError(f"starts: {self.starts} do not ascend from 1 or above")
        if set(self.provenance) != set(names):
            raise ValueError(f"provenance: holds {sorted(self.provenance)}, expected the budgets {sorted(names)}")
        _known("taxonomy", self.taxonomy.values(), {*self.classes})
        for entry in self.budgets:
            where = f"budgets.{entry.name}"
            if len(entry.counts) != len(self.starts):
                raise ValueError(f"{where}.counts: {len(entry.counts)} counts for {len(self.starts)} stages")
            if entry.counts[-1] < 1 or any(b > a for a, b in pairwise(entry.counts)):
                raise ValueError(f"{where}.counts: {entry.counts} do not descend to 1 or above")
            if set(entry.choices) != set(self.classes):
                raise ValueError(f"{where}.choices: are not those of the classes")
            for name, of in entry.alternatives.items():
                _known(f"{where}.alternatives.{name}", of, {*self.classes})
                if any(len(one.layers) != len(one.weights) for one in of.values()):
                    raise ValueError(f"{where}.alternatives.{name}: layers and weights differ in number")
            for setting, scores in entry.results.items():
                _known(f"{where}.results.{setting}", scores, {*self.classes, MACRO})
        return self


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the {what} {name!r} is listed more than once")
        seen.add(name)


def _known(where: str, names: Iterable[str], expected: set[str]) -> None:
    unknown = sorted(set(names) - expected)
    if unknown:
        raise ValueError(f"{where}: {unknown[0]!r} is not a class of the artifact")
