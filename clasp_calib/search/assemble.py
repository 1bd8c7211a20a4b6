"""What a search found, as an artifact."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import ValidationError

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.choices import (
    Alternative,
    ChoiceRule,
    ClassChoice,
    Posterior,
    SelectorEntry,
    Sureness,
    mean_regret,
)
from clasp_calib.artifacts.evidence import Trial, with_trials
from clasp_calib.artifacts.manifest import BudgetEntry, Manifest, Provenance
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import ArtifactError
from clasp_calib.common.fields import describe
from clasp_calib.search.allotment import Allotment
from clasp_calib.search.engine import Choice, Found
from clasp_calib.search.space import OWN

DECIMALS = 6
"""Of what is believed."""
LEAST = 0.001
"""Probability of being the best under which a candidate is left out."""


def assembled(
    frame: Mapping[str, Any],
    allotment: Allotment,
    provenance: Provenance,
    default: Candidate,
    found: Found,
    cautious: float | None,
    alternatives: Mapping[str, Mapping[str, Candidate]],
    shortlist: Sequence[str] | None = None,
) -> Artifact:
    """The artifact of one budget.

    Args:
        frame: fields of the manifest that do not depend on the budget.
        allotment: what the budget comes to on the samples.
        provenance: what the search was made from.
        default: what classes without a choice get.
        found: what was chosen for the others.
        cautious: under which probability of being worse the default was left; ``None``: always.
        alternatives: other ways to choose, to compare with: name -> class -> candidate.
        shortlist: selectors that a first round chose to search beside ``clasp``; ``None``: there was no such choice.
    """
    classes: Sequence[str] = frame["classes"]
    budget = allotment.budget.name
    choices = {label: _recorded(choice) for label, choice in found.choices.items()}
    plain = SelectorEntry.of(default.selector)
    unsearched = ClassChoice(prototype=OWN, selector=plain, candidates=1, evaluations=0, calibration=None)
    rule = ChoiceRule(
        method=found.method,
        regret=mean_regret(choices.values()),
        cautious=cautious,
        budgets=tuple(found.fed),
        shortlist=None if shortlist is None else tuple(shortlist),
    )
    entry = BudgetEntry(
        name=budget,
        counts=allotment.counts,
        mean_tokens=allotment.mean_tokens,
        token_range=None if allotment.counts else (allotment.a_layer.least, allotment.a_layer.most),
        choices={label: choices.get(label, unsearched) for label in classes},
        decision=rule if choices else None,
        alternatives={
            name: {label: _alternative(candidate) for label, candidate in of.items()}
            for name, of in alternatives.items()
        },
    )
    chosen = [found.choices[label].candidate if label in choices else default for label in classes]
    try:
        manifest = Manifest(
            **frame, starts=allotment.schedule.starts, budgets=(entry,), provenance={budget: provenance}, files={}
        )
    except ValidationError as error:
        raise ArtifactError(f"what an artifact records cannot be {describe(error)}; give another") from error
    alphas = np.array([[c.alpha for c in chosen]], dtype=np.float32)
    rhos = np.array([[c.rho for c in chosen]], dtype=np.float32)
    artifact = Artifact(manifest, alphas, rhos)
    return with_trials(artifact, [t for label, choice in found.choices.items() for t in _trials(budget, label, choice)])


def versions() -> dict[str, str]:
    """Of what a score depends on."""
    return {name: version(name) for name in ("clasp-calib", "torch", "transformers")}


def _recorded(choice: Choice) -> ClassChoice:
    of = choice.verdict
    likely = {
        choice.courses[n].candidate.name: round(p, DECIMALS) for n, p in enumerate(of.probabilities) if p >= LEAST
    }
    numbers = ("gain", "low", "high", "worse", "much_worse", "regret")
    return ClassChoice(
        prototype=choice.candidate.prototype,
        seeding=choice.candidate.seeding,
        relevance=choice.candidate.relevance,
        downsample=choice.candidate.downsample,
        selector=SelectorEntry.of(choice.candidate.selector),
        candidates=choice.space,
        evaluations=choice.evaluations,
        samples=choice.samples,
        calibration=choice.chosen.mean,
        calibration_samples=len(choice.chosen.scores),
        default=choice.default.mean,
        default_samples=len(choice.default.scores),
        verdict=Sureness(
            **{name: round(getattr(of, name), DECIMALS) for name in numbers},
            own=of.own and round(of.own, DECIMALS),
            settle=of.settle,
            leader=choice.leader.name if of.leader != of.candidate else None,
        ),
        posterior=Posterior(candidates=tuple(likely), probabilities=tuple(likely.values())),
    )


def _alternative(candidate: Candidate) -> Alternative:
    layers = [layer for layer, weight in enumerate(candidate.alpha) if weight]
    return Alternative(
        prototype=candidate.prototype,
        layers=tuple(layers),
        weights=tuple(candidate.alpha[layer] for layer in layers),
        rho=candidate.rho,
        seeding=candidate.seeding,
        relevance=candidate.relevance,
        downsample=candidate.downsample,
        selector=SelectorEntry.of(candidate.selector),
    )


def _trials(budget: str, label: str, choice: Choice) -> list[Trial]:
    return [
        Trial(
            budget,
            label,
            course.candidate.name,
            course.candidate.prototype,
            course.candidate.rho,
            "chosen" if course is choice.chosen else "rejected",
            len(course.scores),
            course.mean,
            None,
        )
        for course in choice.courses
        if course.mean is not None
    ]
