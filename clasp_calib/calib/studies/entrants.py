"""Who takes part in a contest: the unpruned model, our default and calibrated settings, and the peers."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.baselines.cdpruner import CDPruner, clip_similarity, embedded_similarity
from clasp_calib.baselines.downsampling import DownSampling, PictureSizes
from clasp_calib.baselines.mechanisms.clip_text import checked_clip, clip_ids, clip_in
from clasp_calib.baselines.method import DEFAULT as AS_IT_IS, Method
from clasp_calib.baselines.random_pruning import NAME as RANDOM
from clasp_calib.baselines.registry import method
from clasp_calib.baselines.solving import OFF, ImageDependent
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.answers import SolvedKnobs
from clasp_calib.calib.studies.contest import SEEDS, UNPRUNED, WHOLE, Entrant
from clasp_calib.calib.studies.own_entrants import drawn, own_settings, set_by
from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.progress import note, track
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.stages import PromptLengths

EMBEDDED = f"{CDPruner.name}-embeddings"
"""What CDPruner is called where the decoder's embeddings of the question stand in for a text tower."""


@dataclass(frozen=True)
class Refusal:
    """A method that does not take part at a budget, and why."""

    method: str
    budget: str
    reason: str


@dataclass(frozen=True)
class Solving:
    """How knobs are solved whose number of tokens depends on the image.

    Attributes:
        images: arguments of ``generate``, of another split than that of the contest.
        kept: where solved knobs are kept.
    """

    images: Iterable[Mapping[str, Any]]
    kept: SolvedKnobs


def entrants_for(
    model: Any,
    processor: Any,
    artifact: Artifact,
    budgets: Sequence[str],
    names: Sequence[str],
    solving: Solving,
    samples: Sequence[Sample],
    clip: str | None = None,
) -> tuple[list[Entrant], list[Refusal]]:
    """All entrants, ours first.

    Args:
        model: the model that the artifact was made for.
        processor: the model's.
        artifact: our calibration; it must hold the budgets.
        budgets: equal cost for all.
        names: of peers.
        solving: how knobs are solved whose number of tokens depends on the image.
        samples: those of the contest; where some have videos, methods for images do not take part.
        clip: directory of the CLIP model that rates patches by the question; without one the decoder's embeddings of
            the question do, and the method has another name.

    Raises:
        ArtifactError: the artifact lacks a budget.
        InputError: there is no such peer, or no fitting CLIP model.
    """
    entrants, refusals = [Entrant(UNPRUNED, WHOLE, nothing)], []
    filmed = any(sample.modality == "video" for sample in samples)
    for budget in budgets:
        calibrated, selection, default = own_settings(model, artifact, budget)
        entrants += [set_by(setting, budget) for setting in (calibrated, selection, default)]
        if RANDOM in names:
            entrants.append(drawn(default, budget))
        others = [name for name in names if name != RANDOM]
        for name in track(others, f"solving knobs for {budget}", len(others)):
            plain = DownSampling() if name == DownSampling.name else method(name)
            if filmed and plain.images_only:
                refusals.append(
                    Refusal(name, budget, "it is defined for images, and some of these samples have videos")
                )
                continue
            try:
                if isinstance(plain, DownSampling):
                    entrants.append(downsampled(model, processor, plain, budget, samples))
                elif isinstance(plain, CDPruner):
                    entrants.append(related(model, processor.tokenizer, plain, budget, samples, clip))
                else:
                    entrants.append(peer(model, plain, budget, solving.images, solving.kept))
            except (BudgetError, ModelError) as error:
                refusals.append(Refusal(name, budget, str(error)))
    return entrants, refusals


def nothing(
    model: Any, sample: Sample, seed: int, prompt_lengths: PromptLengths = None
) -> AbstractContextManager[None]:
    """Prune nothing."""
    return nullcontext()


@dataclass(frozen=True)
class ByMethod:
    """Prune as a method does whose knobs are solved."""

    solved: Method

    def __call__(
        self, model: Any, sample: Sample, seed: int, prompt_lengths: PromptLengths = None
    ) -> AbstractContextManager[Any]:
        """See `Entrant.apply`; for ``prompt_lengths`` see `Method`."""
        seeded = "seed" in {f.name for f in fields(self.solved)}
        # Each sample its own: the same tokens of every picture would be one draw rather than many.
        own = int(sha256_json([seed, sample.id])[:15], 16)
        one: Any = replace(self.solved, **{"seed": own}) if seeded else self.solved
        context: AbstractContextManager[Any] = one(model, native=AS_IT_IS, prompt_lengths=prompt_lengths)
        return context


@dataclass(frozen=True)
class ByQuestion:
    """Prune as CDPruner does, with patches rated by the sample's question.

    Attributes:
        solved: with its budget, and without a similarity.
        ids: of a sample, its question to the decoder.
        clip: directory of a CLIP model, or ``None`` where the decoder's embeddings of the question rate.
    """

    solved: CDPruner
    ids: Mapping[str, tuple[int, ...]]
    clip: str | None

    def __call__(
        self, model: Any, sample: Sample, seed: int, prompt_lengths: PromptLengths = None
    ) -> AbstractContextManager[Any]:
        """See `Entrant.apply`; for ``prompt_lengths`` see `Method`."""
        if self.clip is None:
            ids_W = torch.tensor(self.ids[sample.id], device=model.device)
            with torch.no_grad():
                similarity = embedded_similarity(model.get_input_embeddings()(ids_W))
        else:
            clip, tokenizer = clip_in(self.clip)
            ids_MW = clip_ids(tokenizer, sample.question).to(model.device)
            similarity = clip_similarity(clip.to(model.device), ids_MW)
        rated: Any = replace(self.solved, similarity=similarity)
        context: AbstractContextManager[Any] = rated(model, native=AS_IT_IS, prompt_lengths=prompt_lengths)
        return context


@dataclass(frozen=True)
class Smaller:
    """Show smaller pictures of a sample in its place."""

    how: DownSampling

    def __call__(self, sizes: Sizes, sample: Sample) -> Sample:
        """See `Entrant.shown`."""
        return replace(sample, image=[self.how.shown(sizes.pictures, one.picture) for one in sample.alone])


def downsampled(model: Any, processor: Any, plain: DownSampling, budget: str, samples: Sequence[Sample]) -> Entrant:
    """The control that shows smaller pictures; see `entrants_for`.

    Raises:
        BudgetError: a sample's picture cannot be made small enough.
        ModelError: all pictures of the model have as many tokens.
    """
    solved = plain.solved(model, budget)
    solved.check(PictureSizes(model, processor), (one.picture for sample in samples for one in sample.alone))
    return Entrant(plain.name, budget, nothing, {"keep": solved.keep}, published=plain.semantics, shown=Smaller(solved))


def related(
    model: Any, tokenizer: Any, plain: CDPruner, budget: str, samples: Sequence[Sample], clip: str | None
) -> Entrant:
    """CDPruner, which rates patches by each sample's question; see `entrants_for`.

    Raises:
        BudgetError: it cannot meet the budget.
        InputError: there is no fitting CLIP model.
        ModelError: it cannot run on the model.
    """
    adapter = adapter_for(model)
    solved = plain.solved(adapter, pruning_budget(adapter, budget))
    rated = "the question's embeddings" if clip is None else f"the text tower of {checked_clip(clip, adapter)}"
    ids = {s.id: tuple(tokenizer(s.question, add_special_tokens=False).input_ids) for s in samples if clip is None}
    apply = ByQuestion(solved, ids, clip)
    with apply(model, samples[0], 0):
        knobs = {"keep": solved.keep, "rated by": rated}
    return Entrant(plain.name if clip else EMBEDDED, budget, apply, knobs, published=plain.semantics)


def peer(model: Any, plain: Method, budget: str, images: Iterable[Mapping[str, Any]], kept: SolvedKnobs) -> Entrant:
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


def _solved_on(plain: ImageDependent, model: Any, images: Iterable[Mapping[str, Any]], budget: str) -> dict[str, Any]:
    """The knobs that change and what they were solved on, or why there are none."""
    try:
        found, spread = plain.calibrated(model, images, budget)
    except BudgetError as error:
        return {"refused": str(error)}
    if spread.needed > spread.images:
        note(
            f"{plain.name} at {budget}: its number of tokens varies so much from picture to picture that a mean within "
            f"{OFF:.0%} takes {spread.needed} samples to solve on, and it was solved on {spread.images}"
        )
    changed = {f.name for f in fields(found) if getattr(found, f.name) != getattr(plain, f.name)}
    return {"on": str(spread), "knobs": {name: getattr(found, name) for name in sorted(changed)}}
