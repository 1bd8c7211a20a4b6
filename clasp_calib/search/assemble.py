"""What a search found, as an artifact."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import ValidationError

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.choices import Alternative, ClassChoice, Confirmation
from clasp_calib.artifacts.evidence import Trial, with_trials
from clasp_calib.artifacts.manifest import BudgetEntry, Manifest, Provenance
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import ArtifactError
from clasp_calib.common.fields import describe
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.search.engine import Choice, Gain
from clasp_calib.search.space import OWN


def assembled(
    frame: Mapping[str, Any],
    budget: str,
    schedule: Schedule,
    provenance: Provenance,
    candidates: Sequence[Candidate],
    choices: Mapping[str, Choice],
    alternatives: Mapping[str, Mapping[str, Candidate]],
) -> Artifact:
    """The artifact of one budget.

    Args:
        frame: fields of the manifest that do not depend on the budget.
        budget: name.
        schedule: the budget's stages.
        provenance: what the search was made from.
        candidates: the space; the first is the default, which classes without a choice get.
        choices: by class.
        alternatives: other ways to choose, to compare with: name -> class -> candidate.
    """
    classes: Sequence[str] = frame["classes"]
    unsearched = ClassChoice(
        prototype=OWN, candidates=1, evaluations=0, calibration=None, selection=None, selection_default=None
    )
    entry = BudgetEntry(
        name=budget,
        counts=schedule.counts,
        mean_tokens=schedule.mean_tokens,
        choices={
            label: _recorded(choices[label], len(candidates)) if label in choices else unsearched for label in classes
        },
        alternatives={
            name: {label: _alternative(candidate) for label, candidate in of.items()}
            for name, of in alternatives.items()
        },
    )
    found = [choices[label].candidate if label in choices else candidates[0] for label in classes]
    try:
        manifest = Manifest(
            **frame, starts=schedule.starts, budgets=(entry,), provenance={budget: provenance}, files={}
        )
    except ValidationError as error:
        raise ArtifactError(f"what an artifact records cannot be {describe(error)}; give another") from error
    alphas = np.array([[c.alpha for c in found]], dtype=np.float32)
    rhos = np.array([[c.rho for c in found]], dtype=np.float32)
    artifact = Artifact(manifest, alphas, rhos)
    return with_trials(artifact, [t for label, choice in choices.items() for t in _trials(budget, label, choice)])


def versions() -> dict[str, str]:
    """Of what a score depends on."""
    return {name: version(name) for name in ("clasp-calib", "torch", "transformers")}


def _recorded(choice: Choice, candidates: int) -> ClassChoice:
    return ClassChoice(
        prototype=choice.candidate.prototype,
        seeding=choice.candidate.seeding,
        candidates=candidates,
        evaluations=choice.evaluations,
        calibration=choice.calibration,
        selection=choice.selection,
        selection_default=choice.selection_default,
        confirmation=_confirmation(choice, choice.leader, choice.gain),
        refinement=_confirmation(choice, choice.refined, choice.refinement),
    )


def _confirmation(choice: Choice, candidate: int | None, gain: Gain | None) -> Confirmation | None:
    if candidate is None or gain is None:
        return None
    found = gain.interval
    return Confirmation(
        leader=choice.courses[candidate].candidate.name,
        gain=found.mean,
        low=found.low,
        high=found.high,
        samples=found.samples,
        chance=gain.chance,
    )


def _alternative(candidate: Candidate) -> Alternative:
    layers = [layer for layer, weight in enumerate(candidate.alpha) if weight]
    return Alternative(
        prototype=candidate.prototype,
        layers=tuple(layers),
        weights=tuple(candidate.alpha[layer] for layer in layers),
        rho=candidate.rho,
        seeding=candidate.seeding,
    )


def _trials(budget: str, label: str, choice: Choice) -> list[Trial]:
    return [
        Trial(
            budget,
            label,
            course.candidate.name,
            course.candidate.prototype,
            course.candidate.rho,
            "chosen" if number == choice.winner else "finalist" if course.selection else "rejected",
            len(course.calibration),
            sum(course.calibration) / len(course.calibration),
            sum(course.selection) / len(course.selection) if course.selection else None,
        )
        for number, course in enumerate(choice.courses)
        if course.calibration
    ]
