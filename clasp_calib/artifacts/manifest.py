"""``artifact.json``: everything about a calibration but the numbers themselves. Format 2.

No timestamps and no durations: the same content gives the same bytes. The artifact's id is the sha256 of the canonical
JSON without the id; the JSON lists the hashes of all other files.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from clasp_calib.artifacts.checkpoint_digest import Checkpoint
from clasp_calib.artifacts.choices import (
    SINCE_2,
    Alternative,
    BudgetName,
    ChoiceRule,
    ClassChoice,
    Positive,
    mean_regret,
    unique,
)
from clasp_calib.artifacts.model_shape import ModelShape, Tokens
from clasp_calib.common.fields import ClassName, Hash, Line, Name, Seed, Share, Slug, Strict
from clasp_calib.common.pruning_options import (
    AT_INPUT,
    INPUT,
    LAYERED,
    NONE,
    PROFILES,
    REDUNDANCY,
    RELEVANCES,
    SEEDINGS,
)
from clasp_calib.common.token_range import TokenRange
from clasp_calib.router_labeling.classes import LABELS

FORMAT = 2
"""What is written; earlier formats are read too."""
SETTINGS = (
    *("model", "revision", "checkpoint", "fingerprint", "classes", "class_from", "default_class", "taxonomy"),
    *("starts", "tau", "method", "knobs", "profile", "relevance", "seeding", "raters", "positions", "features"),
    *("iterations", "prompt", "decoding"),
)
"""What all budgets of one artifact share."""
CALIBRATED, MACRO = "calibrated", "macro"
"""The setting that an artifact's own numbers stand for in results, and the mean over classes."""
HONOURED: dict[str, tuple[Any, ...]] = {
    **{"method": ("clasp",), "knobs": ({},)},
    **{"profile": PROFILES, "relevance": (*RELEVANCES, None), "seeding": SEEDINGS},
}
"""What this version can run of the fields that later ones will have more values of."""
MOST_NUMBERS = 1 << 26
"""Weights of all mixtures together. Our choice: 256 MiB in float32."""
_SINCE_2 = {*HONOURED, "class_from", "default_class", "checkpoint", "prompt_hash", "needs"}
_Mean = Annotated[float, Field(ge=0, le=1_000_000)]
Semver = Annotated[str, Field(pattern=r"^\d{1,9}\.\d{1,9}\.\d{1,9}$")]
Prompt = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$")]


class Score(Strict):
    """A mean with its confidence interval, in [0, 1]."""

    mean: float
    low: float
    high: float
    samples: Positive


class Measured(Strict):
    """What the results of a budget were measured on, so that they can be measured again."""

    samples: Hash
    """sha256 of the labelled table."""
    split: Line
    seed: Seed
    """Of random pruning and of the bootstrap."""
    checkpoint: Checkpoint | None = None
    """The weights; ``None`` if they were measured before artifacts recorded it."""

    def repeats(self, earlier: "Measured") -> bool:
        """Whether the same was measured before, as far as it is known of what."""
        return self.model_copy(update={} if earlier.checkpoint else {"checkpoint": None}) == earlier


class BudgetEntry(Strict):
    """One calibrated budget."""

    name: BudgetName
    counts: tuple[Tokens, ...] | None = Field(min_length=1, max_length=16)
    """Visual tokens kept at each stage; ``None`` where pictures differ in their number, and each picture's are solved
    from the percentage."""
    mean_tokens: _Mean
    """Of a picture that a decoder layer works on; where pictures differ, the mean over the calibration's questions."""
    token_range: tuple[_Mean, _Mean] | None = None
    """Where pictures differ, the smallest and the largest of these means."""
    choices: dict[ClassName, ClassChoice]
    decision: ChoiceRule | None = None
    """How the choices were made; ``None`` in format 1."""
    alternatives: dict[Line, dict[ClassName, Alternative]] = Field(default={}, max_length=100)
    """``global`` (one setting for all classes) and ``exhaustive``, where they were searched -> class -> setting."""
    results: dict[Line, dict[Name, Score]] = Field(default={}, max_length=100)
    """Setting -> class (or ``macro``) -> score on the test split, once `evaluate` has measured it."""
    measured: Measured | None = None
    """Where the results come from; ``None`` as long as there are none."""

    @property
    def stages(self) -> str:
        """What the stages keep, in words."""
        return "shares of each picture's" if self.counts is None else " / ".join(map(str, self.counts))

    @property
    def a_layer(self) -> TokenRange:
        """Visual tokens that a decoder layer works on."""
        return TokenRange(self.mean_tokens, *(self.token_range or (self.mean_tokens,) * 2))

    @model_validator(mode="after")
    def _consistent(self) -> "BudgetEntry":
        if (self.counts is None) != (self.token_range is not None):
            raise ValueError("token_range: is there where pictures differ in their number of tokens, instead of counts")
        if self.token_range and not self.token_range[0] <= self.mean_tokens <= self.token_range[1]:
            raise ValueError(f"token_range: {self.token_range} does not hold the mean {self.mean_tokens:g}")
        if self.decision is not None:
            unique("budget", (self.name, *self.decision.budgets))
            told, expected = self.decision.regret, mean_regret(self.choices.values())
            if not math.isclose(told, expected, abs_tol=1e-6):
                raise ValueError(f"decision.regret: {told:g} is not the mean of the verdicts, {expected:g}")
        return self


class Decoding(Strict):
    """How answers were decoded."""

    do_sample: bool
    max_new_tokens: int = Field(ge=1, le=1_000_000)
    generation: dict[Line, Line] | None = Field(default=None, max_length=100)
    """What the model's generation config changed of an answer, name -> value; ``None`` if it was not recorded."""


class Provenance(Strict):
    """What the calibration was made from."""

    samples: Hash
    """sha256 of the labelled table's file."""
    labels: Hash
    """sha256 of the pairs of sample id and class."""
    cache_encoder: Line
    """The encoder fingerprint of the feature cache: weights and preprocessing."""
    space: Hash
    taxonomy: Hash
    """sha256 of the taxonomy, or of the classes and their column."""
    strategy: Line
    metric: Line
    seed: Seed
    versions: dict[Line, Line] = Field(max_length=1000)


class RouterEntry(Strict):
    """What ``router.safetensors`` says of itself, for readers of the manifest alone."""

    kind: Literal["ngrams", "ngrams+words"] = "ngrams"
    """What it knows of a question: its n-grams, or also what its words mean."""
    taxonomy: Hash
    """Of the taxonomy that its labels follow."""
    threshold: Share
    """It abstains to the default class below this probability."""
    labels: Hash
    """sha256 of the labelled table that it was trained on."""
    rows: Positive


class Manifest(Strict):
    """The whole of ``artifact.json``."""

    format: Literal[1, 2] = 2
    needs: Semver | None = None
    """The first version of clasp-calib that can run it, said by later versions for the message of earlier ones."""
    version: Semver = "0.1.0"
    name: Line
    model: Line
    revision: Line | None = None
    """The model's commit on the Hub; ``None`` if it came from a directory."""
    checkpoint: Checkpoint | None = None
    """The weights that it was calibrated with; ``None`` in format 1."""
    shape: ModelShape
    fingerprint: Hash
    classes: tuple[ClassName, ...] = Field(min_length=1, max_length=1000)
    class_from: Line | None = LABELS
    """The column of a sample table whose values are the classes, ``class`` where it was labelled; ``None``: there is
    one class, and all samples are of it."""
    default_class: ClassName | None = None
    """Of samples that have no class and questions that a router cannot place, where there is one."""
    taxonomy: dict[Name, ClassName] = Field(max_length=10_000)
    """Intent -> class; empty if no intents were told apart."""
    starts: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field(min_length=1, max_length=16)
    tau: float = Field(gt=0, le=1e6)
    method: Slug = "clasp"
    """Which method prunes. The only value so far is ``clasp``."""
    knobs: dict[Slug, Line | float | bool | None] = Field(default={}, max_length=100)
    """The method's own parameters; ``clasp`` has none beside those that stand here by name."""
    profile: Slug = LAYERED
    """Where tokens are dropped: ``layered``, in stages between decoder layers, or ``input``, once before them."""
    relevance: Line | None = None
    """In the profile ``input``, what rates the tokens where the choice of a class does not say it; ``None`` in the
    other, where the instruction does."""
    seeding: Line = REDUNDANCY
    """What k-means starts from where the choice of a class does not say it, see
    `clasp_calib.common.pruning_options.PruningOptions`."""
    raters: Line
    positions: Line
    features: Line
    iterations: int = Field(ge=0, le=1000)
    prompt: Prompt = Field(max_length=65536)
    """The template of the calibration."""
    prompt_hash: Hash | None = None
    """sha256 of the template in UTF-8; ``None`` in format 1."""
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
        shape, names = self.shape, [entry.name for entry in self.budgets]
        if self.format == 1 and (later := sorted(_SINCE_2 & self.model_fields_set)):
            raise ValueError(f"{later[0]}: format 1 has no such field")
        for field, known in HONOURED.items():
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"{field}: {str(value)!r:.100} is for {self.needs or 'a newer version'}")
        self._check_classes()
        unique("budget", names)
        if self.fingerprint != shape.fingerprint:
            raise ValueError("fingerprint: is not the sha256 of the shape")
        if shape.vision_feature_layer > shape.vision_layers:
            raise ValueError(f"shape.vision_feature_layer: {shape.vision_feature_layer} of {shape.vision_layers}")
        numbers = len(names) * len(self.classes) * (shape.vision_layers + 1)
        if numbers > MOST_NUMBERS:
            raise ValueError(f"budgets: with the classes and layers they have {numbers} weights, over {MOST_NUMBERS}")
        self._check_profile()
        if self.prompt_hash not in (None, hashed(self.prompt)):
            raise ValueError("prompt_hash: is not the sha256 of the prompt")
        if set(self.provenance) != set(names):
            raise ValueError(f"provenance: holds {sorted(self.provenance)}, expected the budgets {sorted(names)}")
        for entry in self.budgets:
            for problem in self._problems(entry):
                raise ValueError(f"budgets.{entry.name}.{problem}")
        return self

    def _check_classes(self) -> None:
        unique("class", self.classes)
        _known("taxonomy", self.taxonomy.values(), {*self.classes})
        _known("default_class", {self.default_class} - {None}, {*self.classes})
        if self.class_from is None and len(self.classes) > 1:
            raise ValueError(f"class_from: says that there is one class, and there are {len(self.classes)}")

    def _check_profile(self) -> None:
        if (self.profile == INPUT) != (self.relevance is not None):
            raise ValueError(f"relevance: {self.relevance!r} does not go with the profile {self.profile!r}")
        if self.profile == INPUT:
            if self.starts != AT_INPUT:
                raise ValueError(f"starts: {self.starts} in the profile 'input', whose one stage is at layer 0")
        elif any(b <= a for a, b in pairwise((0, *self.starts, self.shape.text_layers))):
            raise ValueError(f"starts: {self.starts} do not ascend between layers 1 and {self.shape.text_layers - 1}")

    def _problems(self, entry: BudgetEntry) -> Iterator[str]:
        """What is wrong with a budget, its field first."""
        yield from self._stage_problems(entry)
        if set(entry.choices) != set(self.classes):
            yield "choices: are not those of the classes"
        for name, of in entry.alternatives.items():
            _known(f"budgets.{entry.name}.alternatives.{name}", of, {*self.classes})
            for one in of.values():
                if len(one.layers) != len(one.weights):
                    yield f"alternatives.{name}: layers and weights differ in number"
                if max(one.layers) > self.shape.vision_layers:
                    yield f"alternatives.{name}: layer {max(one.layers)} of {self.shape.vision_layers}"
                if not math.isclose(sum(one.weights), 1, abs_tol=1e-3):
                    yield f"alternatives.{name}: the weights sum to {sum(one.weights):g}, expected 1"
        for setting, scores in entry.results.items():
            _known(f"budgets.{entry.name}.results.{setting}", scores, {*self.classes, MACRO})
        for field, known in (("seeding", SEEDINGS), ("relevance", RELEVANCES)):
            if unknown := [value for value in _said(field, entry) if value not in (None, *known)]:
                yield f"{field}: {unknown[0]!r:.100} is for {self.needs or 'a newer version'}"
        if (rated := [*filter(None, _said("relevance", entry))]) and NONE in (*rated, self.relevance or NONE):
            yield f"relevance: {rated[0]!r} of a class does not go with {self.relevance!r} of the others"
        if self.shape.tokens_per_image is not None and any(_said("downsample", entry)):
            yield f"downsample: pictures have {self.shape.tokens_per_image} tokens in every size"
        if self.format == 1 and (later := _later(entry)):
            yield f"{min(later)}: is not of format 1"

    def _stage_problems(self, entry: BudgetEntry) -> Iterator[str]:
        most, counts = self.shape.tokens_per_image, entry.counts
        if most is None or counts is None:
            if most or counts:
                yield f"counts: {counts} do not fit pictures of {most or 'any number of'} tokens"
            if not entry.name.endswith("%"):
                yield "name: is a number of tokens, which differs from picture to picture; expected a percentage"
            return
        if len(counts) != len(self.starts):
            yield f"counts: {len(counts)} counts for {len(self.starts)} stages"
        if any(b > a for a, b in pairwise((most, *counts))):
            yield f"counts: {counts} do not descend from {most} to 1 or above"


def hashed(prompt: str) -> str:
    """What a manifest records of a prompt template beside it."""
    return hashlib.sha256(prompt.encode()).hexdigest()


def _said(field: str, entry: BudgetEntry) -> list[Any]:
    """What the choices of a budget and their alternatives say in a field that both have."""
    others = [one for of in entry.alternatives.values() for one in of.values()]
    return [getattr(one, field) for one in (*entry.choices.values(), *others)]


def _later(entry: BudgetEntry) -> set[str]:
    """Fields of a budget that format 1 does not have, of those that hold something."""
    found = {name for choice in entry.choices.values() for name in SINCE_2 if getattr(choice, name) is not None}
    found |= {"decision"} if entry.decision else set()
    found |= {"token_range"} if entry.token_range else set()
    found |= {field for field in ("seeding", "downsample", "selector") if any(_said(field, entry))}
    return found | ({"measured.checkpoint"} if entry.measured and entry.measured.checkpoint else set())


def _known(where: str, names: Iterable[str | None], expected: set[str]) -> None:
    unknown = sorted(str(name) for name in names if name not in expected)
    if unknown:
        raise ValueError(f"{where}: {unknown[0]!r} is not a class of the artifact")
