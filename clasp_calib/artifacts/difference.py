"""What changed between two artifacts, said in settings and points rather than in bytes."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.card import told_router
from clasp_calib.artifacts.evidence import SampleScore, sample_scores
from clasp_calib.artifacts.manifest import CALIBRATED, SETTINGS, Manifest, Score
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.common.shares import FEW, Z, difference_interval
from clasp_calib.router_labeling.router import Router
from clasp_calib.router_labeling.router_file import router_bytes

"""Half width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class ScoreChange:
    """A difference of mean scores (second minus first) with the half width of its 95 % interval, both in [-1, 1].

    ``paired`` if both were measured on the same samples; the interval then counts pictures, not questions, as
    independent. Otherwise it is that of two independent means.
    """

    mean: float
    half_width: float
    paired: bool


@dataclass(frozen=True)
class ClassChange:
    """What changed for one class at one budget; pairs are (first, second)."""

    budget: str
    label: str
    prototype: tuple[str, str]
    rho: tuple[float, float]
    seeding: tuple[str, str]
    relevance: tuple[str | None, str | None]
    downsample: tuple[float | None, float | None]
    selector: tuple[SelectorChoice | None, SelectorChoice | None]
    alpha_distance: float
    """Total variation distance of the mixtures, in [0, 1]."""
    gain: ScoreChange | None
    """``None`` unless both were evaluated."""

    @property
    def changed(self) -> bool:
        """Whether the runtime would act differently."""
        reseeded = min(self.rho) < 1 and self.seeding[0] != self.seeding[1]
        rerated = max(self.rho) > 0 and self.relevance[0] != self.relevance[1]
        resized = self.downsample[0] != self.downsample[1]
        reselected = self.selector[0] != self.selector[1]
        # Other selectors have none of these.
        rechosen = not any(self.selector) and (self.rho[0] != self.rho[1] or reseeded or rerated)
        return self.alpha_distance > 0 or rechosen or resized or reselected


@dataclass(frozen=True)
class Difference:
    """Two artifacts compared."""

    settings: dict[str, tuple[str, str]]
    """Setting -> its two values, where they differ."""
    counts: dict[str, tuple[str, str]]
    """Budget -> what the stages of the two keep, where that differs."""
    router: tuple[str, str] | None
    """What the two say of their routers, where the routers differ."""
    removed: tuple[str, ...]
    added: tuple[str, ...]
    changes: tuple[ClassChange, ...]
    """All classes of the budgets that both hold."""


def difference(first: Artifact, second: Artifact) -> Difference:
    """Compare two artifacts.

    Raises:
        ArtifactError: a study cannot be read.
    """
    both = [name for name in first.budgets if name in second.budgets]
    counts = {name: (first.entry(name).stages, second.entry(name).stages) for name in both}
    return Difference(
        {name: pair for name, pair in _settings(first.manifest, second.manifest).items() if pair[0] != pair[1]},
        {name: pair for name, pair in counts.items() if pair[0] != pair[1]},
        _routers(first.router, second.router),
        tuple(name for name in first.budgets if name not in both),
        tuple(name for name in second.budgets if name not in both),
        tuple(_changes(first, second, both)),
    )


def _settings(first: Manifest, second: Manifest) -> dict[str, tuple[str, str]]:
    names = ("format", "version", "name", *SETTINGS)
    return {name: (_said(getattr(first, name)), _said(getattr(second, name))) for name in names}


def _said(value: Any) -> str:
    """On one line: a prompt may have several."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and "\n" in value else str(value)


def _routers(first: Router | None, second: Router | None) -> tuple[str, str] | None:
    if first is second or (first and second and router_bytes(first) == router_bytes(second)):
        return None
    return told_router(first), told_router(second)


def _changes(first: Artifact, second: Artifact, budgets: list[str]) -> list[ClassChange]:
    scores = [_by_class(sample_scores(artifact)) for artifact in (first, second)]
    labels = [label for label in first.classes if label in second.classes]
    changes = []
    for budget in budgets:
        one, two = first.entry(budget), second.entry(budget)
        for label in labels:
            alphas = [np.array(a.alpha(budget, label)) for a in (first, second)]
            apart = float(np.abs(alphas[0] - alphas[1]).sum() / 2) if len(alphas[0]) == len(alphas[1]) else 1.0
            results = [entry.results.get(CALIBRATED, {}).get(label) for entry in (one, two)]
            changes.append(
                ClassChange(
                    budget,
                    label,
                    (one.choices[label].prototype, two.choices[label].prototype),
                    (first.rho(budget, label), second.rho(budget, label)),
                    (first.seeding(budget, label), second.seeding(budget, label)),
                    (first.relevance(budget, label), second.relevance(budget, label)),
                    (first.downsample(budget, label), second.downsample(budget, label)),
                    (first.selector(budget, label), second.selector(budget, label)),
                    apart,
                    _gain([s.get((budget, label), {}) for s in scores], results),
                )
            )
    return changes


_Scores = dict[tuple[str, str], dict[str, SampleScore]]


def _by_class(rows: list[SampleScore]) -> _Scores:
    found: _Scores = defaultdict(dict)
    for row in rows:
        if row.setting == CALIBRATED:
            found[row.budget, row.label][row.sample] = row
    return found


def _gain(scores: list[dict[str, SampleScore]], results: list[Score | None]) -> ScoreChange | None:
    one, two = scores
    if one and set(one) == set(two):
        return _paired([(two[name].score - row.score, row.picture) for name, row in one.items()])
    before, after = results
    if before is None or after is None:
        return None
    halves = [(score.high - score.low) / 2 for score in (before, after)]
    return ScoreChange(after.mean - before.mean, math.hypot(*halves), False)


def _paired(gains: list[tuple[float, int]]) -> ScoreChange:
    """Mean of differences whose questions come in pictures: the deviations of one picture are summed first."""
    mean = sum(gain for gain, _ in gains) / len(gains)
    by_picture: dict[int, float] = defaultdict(float)
    for gain, picture in gains:
        by_picture[picture] += gain - mean
    each = [gain for gain, _ in gains]
    if len(by_picture) < FEW or len(set(each)) == 1:
        up, down = (sum(max(sign * gain, 0) for gain in each) / len(each) for sign in (1, -1))
        low, high = difference_interval(up, down, len(by_picture))
        return ScoreChange(mean, max(mean - low, high - mean), True)
    error = math.sqrt(sum(total**2 for total in by_picture.values())) / len(gains)
    return ScoreChange(mean, Z * error, True)
