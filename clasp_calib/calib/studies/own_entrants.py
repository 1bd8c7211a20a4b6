"""What a calibration brings to a contest: its setting, its parts, the default, and random tokens at its stages."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.baselines.random_pruning import NAME as RANDOM
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.contest import SEEDS, SELECTION, Entrant
from clasp_calib.calib.studies.evaluation import DEFAULT, calibrated_setting
from clasp_calib.calib.studies.timing import applied
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.schedule import Schedule


@dataclass(frozen=True)
class AsSet:
    """Prune as a setting says for a sample's class."""

    setting: Setting

    def __call__(self, model: Any, sample: Sample, seed: int) -> AbstractContextManager[Any]:
        """See `Entrant.apply`."""
        return applied(model, self.setting, sample)


@dataclass(frozen=True)
class AtRandom:
    """Prune as a setting says, but keep tokens that are drawn."""

    setting: Setting

    def __call__(self, model: Any, sample: Sample, seed: int) -> AbstractContextManager[Any]:
        """See `Entrant.apply`."""
        drawn = {label: replace(one, drawn=seed) for label, one in self.setting.candidates.items()}
        return applied(model, replace(self.setting, candidates=drawn), sample)


@dataclass(frozen=True)
class SmallerByClass:
    """Show the pictures of some classes with a share of their tokens."""

    shares: Mapping[str, float]

    def __call__(self, sizes: Sizes, sample: Sample) -> Sample:
        """See `Entrant.shown`."""
        return sizes.shown(sample, self.shares.get(str(sample.label)))


def own_settings(model: Any, artifact: Artifact, budget: str) -> tuple[Setting, Setting, Setting]:
    """The calibrated setting of a budget, its selection with the model's own layer, and the default at its stages."""
    calibrated, own = calibrated_setting(model, artifact, budget), _own(model)
    alone = {label: replace(one, alpha=own.alpha) for label, one in calibrated.candidates.items()}
    selection = replace(calibrated, name=SELECTION, candidates=alone)
    default = replace(calibrated, name=DEFAULT, candidates=dict.fromkeys(artifact.classes, own))
    return calibrated, selection, default


def drawn(default: Setting, budget: str) -> Entrant:
    """Random pruning at the stages of a setting, as `clasp_calib.evaluate` has it."""
    return Entrant(RANDOM, budget, AtRandom(default), _stages(default.pruning), SEEDS, published="mean over layers")


def _stages(pruning: Pruning) -> dict[str, Any]:
    schedule = pruning.schedule
    assert schedule is not None
    counts = {"counts": schedule.counts} if isinstance(schedule, Schedule) else {}
    return {"starts": schedule.starts, **counts}


def _own(model: Any) -> Candidate:
    adapter = adapter_for(model)
    return Candidate(DEFAULT, tuple(float(i == adapter.own_layer) for i in range(adapter.vision_layers + 1)), 1.0)


def set_by(setting: Setting, budget: str) -> Entrant:
    """What prunes as a setting says at a budget, under its name; the knobs hold all that decides its answers."""
    pruning = setting.pruning
    rated = {label: candidate.relevance for label, candidate in setting.candidates.items() if candidate.relevance}
    knobs: dict[str, Any] = {
        "profile": pruning.options.profile,
        **_stages(pruning),
        **pruning.options.scored_under,
        "rho": {label: candidate.rho for label, candidate in setting.candidates.items()},
        "seeding": {label: candidate.seeding for label, candidate in setting.candidates.items()},
        "alpha": {label: candidate.alpha for label, candidate in setting.candidates.items()},
        **({"rated by": rated} if rated else {}),
    }
    shares = {label: candidate.downsample for label, candidate in setting.candidates.items() if candidate.downsample}
    selectors = {
        label: str(candidate.selector) for label, candidate in setting.candidates.items() if candidate.selector
    }
    return Entrant(
        setting.name,
        budget,
        AsSet(setting),
        {**knobs, **({"downsample": shares} if shares else {}), **({"selector": selectors} if selectors else {})},
        published="mean over layers",
        shown=SmallerByClass(shares) if shares else None,
    )
