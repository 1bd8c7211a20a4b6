"""Who takes part in a contest: the unpruned model, our default and calibrated settings, and the peers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.baselines.downsampling import DownSampling, PictureSizes
from clasp_calib.baselines.method import DEFAULT as AS_IT_IS, Method
from clasp_calib.baselines.registry import method
from clasp_calib.baselines.solving import ImageDependent
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.answers import SolvedKnobs
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.contest import SEEDS, UNPRUNED, Entrant
from clasp_calib.calib.studies.evaluation import DEFAULT, calibrated_setting
from clasp_calib.calib.studies.timing import applied
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.progress import track
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.schedule import Schedule


@dataclass(frozen=True)
class Refusal:
    """A method that does not take part at a budget, and why."""

    method: str
    budget: str
    reason: str


def entrants_for(
    model: Any,
    processor: Any,
    artifact: Artifact,
    budgets: Sequence[str],
    names: Sequence[str],
    images: Sequence[Mapping[str, Any]],
    solved: SolvedKnobs,
    samples: Sequence[Sample],
) -> tuple[list[Entrant], list[Refusal]]:
    """All entrants, ours first.

    Args:
        model: the model that the artifact was made for.
        processor: the model's.
        artifact: our calibration; it must hold the budgets.
        budgets: equal cost for all.
        names: of peers.
        images: arguments of ``generate``, of another split than that of the contest, on which knobs are solved whose
            number of tokens depends on the image.
        solved: where those are kept.
        samples: those of the contest; where some have videos, methods for images do not take part.

    Raises:
        ArtifactError: the artifact lacks a budget.
        InputError: there is no such peer.
    """
    entrants, refusals = [Entrant(UNPRUNED, "100%", nothing)], []
    filmed = any(sample.modality == "video" for sample in samples)
    for budget in budgets:
        calibrated = calibrated_setting(model, artifact, budget)
        default = replace(calibrated, name=DEFAULT, candidates=dict.fromkeys(artifact.classes, _own(model)))
        entrants += [_ours(setting, budget) for setting in (calibrated, default)]
        for name in track(names, f"solving knobs for {budget}", len(names)):
            plain = DownSampling() if name == DownSampling.name else method(name)
            if filmed and plain.images_only:
                refusals.append(
                    Refusal(name, budget, "it is defined for images, and some of these samples have videos")
                )
                continue
            try:
                if isinstance(plain, DownSampling):
                    entrants.append(downsampled(model, processor, plain, budget, samples))
                else:
                    entrants.append(peer(model, plain, budget, images, solved))
            except (BudgetError, ModelError) as error:
                refusals.append(Refusal(name, budget, str(error)))
    return entrants, refusals


def nothing(model: Any, sample: Sample, seed: int) -> AbstractContextManager[None]:
    """Prune nothing."""
    return nullcontext()


@dataclass(frozen=True)
class AsSet:
    """Prune as a setting says for a sample's class."""

    setting: Setting

    def __call__(self, model: Any, sample: Sample, seed: int) -> AbstractContextManager[Any]:
        """See `Entrant.apply`."""
        return applied(model, self.setting, sample)


@dataclass(frozen=True)
class ByMethod:
    """Prune as a method does whose knobs are solved."""

    solved: Method

    def __call__(self, model: Any, sample: Sample, seed: int) -> AbstractContextManager[Any]:
        """See `Entrant.apply`."""
        seeded = "seed" in {f.name for f in fields(self.solved)}
        # Each sample its own: the same tokens of every picture would be one draw rather than many.
        own = int(sha256_json([seed, sample.id])[:15], 16)
        one: Any = replace(self.solved, **{"seed": own}) if seeded else self.solved
        context: AbstractContextManager[Any] = one(model, native=AS_IT_IS)
        return context


@dataclass(frozen=True)
class Smaller:
    """Show smaller pictures of a sample in its place."""

    how: DownSampling

    def __call__(self, sizes: Sizes, sample: Sample) -> Sample:
        """See `Entrant.shown`."""
        return replace(sample, image=[self.how.shown(sizes.pictures, one.picture) for one in sample.alone])


@dataclass(frozen=True)
class SmallerByClass:
    """Show the pictures of some classes with a share of their tokens."""

    shares: Mapping[str, float]

    def __call__(self, sizes: Sizes, sample: Sample) -> Sample:
        """See `Entrant.shown`."""
        return sizes.shown(sample, self.shares.get(str(sample.label)))


def downsampled(model: Any, processor: Any, plain: DownSampling, budget: str, samples: Sequence[Sample]) -> Entrant:
    """The control that shows smaller pictures; see `entrants_for`.

    Raises:
        BudgetError: a sample's picture cannot be made small enough.
        ModelError: all pictures of the model have as many tokens.
    """
    solved = plain.solved(model, budget)
    solved.check(PictureSizes(model, processor), (one.picture for sample in samples for one in sample.alone))
    return Entrant(plain.name, budget, nothing, {"keep": solved.keep}, published=plain.semantics, shown=Smaller(solved))


def _own(model: Any) -> Candidate:
    adapter = adapter_for(model)
    return Candidate(DEFAULT, tuple(float(i == adapter.own_layer) for i in range(adapter.vision_layers + 1)), 1.0)


def _ours(setting: Setting, budget: str) -> Entrant:
    pruning = setting.pruning
    assert pruning.schedule is not None
    counts = {"counts": pruning.schedule.counts} if isinstance(pruning.schedule, Schedule) else {}
    rated = {label: candidate.relevance for label, candidate in setting.candidates.items() if candidate.relevance}
    knobs: dict[str, Any] = {
        "starts": pruning.schedule.starts,
        **counts,
        **pruning.options.scored_under,
        "rho": {label: candidate.rho for label, candidate in setting.candidates.items()},
        "seeding": {label: candidate.seeding for label, candidate in setting.candidates.items()},
        "alpha": {label: candidate.alpha for label, candidate in setting.candidates.items()},
        **({"rated by": rated} if rated else {}),
    }
    shares = {label: candidate.downsample for label, candidate in setting.candidates.items() if candidate.downsample}
    return Entrant(
        setting.name,
        budget,
        AsSet(setting),
        {**knobs, **({"downsample": shares} if shares else {})},
        published="mean over layers",
        shown=SmallerByClass(shares) if shares else None,
    )


def peer(model: Any, plain: Method, budget: str, images: Sequence[Mapping[str, Any]], kept: SolvedKnobs) -> Entrant:
    """A published method whose knobs are solved for a budget; see `entrants_for`.

    Raises:
        BudgetError: it cannot meet the budget.
        ModelError: it cannot run on the model.
    """
    knobs: dict[str, Any] = {}
    solved: Method
    adapter = plain.adapter_for(model)
    if isinstance(plain, ImageDependent):
        known = kept.get(plain.name, budget)
        if known is None:
            known = _solved_on(plain, model, images, budget)
            kept.add(plain.name, budget, known)
        if "refused" in known:
            raise BudgetError(known["refused"])
        solved, knobs["solved on"] = replace(plain, **known["knobs"]), known["on"]
    else:
        solved = plain.solved(adapter, pruning_budget(adapter, budget))
    knobs |= {f.name: getattr(solved, f.name) for f in fields(solved)}
    with solved(model, native=AS_IT_IS) as run:
        vision = run.vision_flops()
    return Entrant(
        plain.name,
        budget,
        ByMethod(solved),
        {name: value for name, value in knobs.items() if name != "seed"},
        SEEDS if "seed" in knobs else SEEDS[:1],
        vision,
        plain.semantics,
    )


def _solved_on(plain: ImageDependent, model: Any, images: Sequence[Mapping[str, Any]], budget: str) -> dict[str, Any]:
    """The knobs that change and what they were solved on, or why there are none."""
    try:
        found, spread = plain.calibrated(model, images, budget)
    except BudgetError as error:
        return {"refused": str(error)}
    changed = {f.name for f in fields(found) if getattr(found, f.name) != getattr(plain, f.name)}
    return {"on": str(spread), "knobs": {name: getattr(found, name) for name in sorted(changed)}}
