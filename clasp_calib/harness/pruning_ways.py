"""How the answers of a harness are pruned: by an artifact, by a published method, or not at all."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.fits import check_fits
from clasp_calib.baselines.random_pruning import NAME as RANDOM, RandomPruning
from clasp_calib.calib.studies.evaluation import DEFAULT
from clasp_calib.common.hashing import sha256_json
from clasp_calib.harness.harness_options import AUTO, HarnessOptions
from clasp_calib.harness.prompted_request import PromptedRequest
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import default_options, largest_budget, schedule_for
from clasp_calib.runtime.pruner import clasp, prune
from clasp_calib.runtime.routing import classes_of
from clasp_calib.runtime.schedule import parse_budget

if TYPE_CHECKING:
    from clasp_calib.common.samples import Given
    from clasp_calib.runtime.stats import Pruned

OWN = (DEFAULT, RANDOM)
"""Ways of ours that need no artifact: the dual-stage selection with the model's own layer and rho 1, and chance."""


class PruningWay(Protocol):
    """What prunes the requests of a harness."""

    batches: bool
    """Whether several requests may share a forward."""
    prompt: str | None
    """Template that it was calibrated with, if it was."""

    def told(self) -> dict[str, Any]:
        """What it is, for records."""
        ...

    def classes(self, requests: Sequence[PromptedRequest]) -> list[str | None]:
        """The class of every request; ``None`` where there are no classes."""
        ...

    def alike(self, label: str | None) -> Hashable:
        """What requests of a class have in common with all those that may share a forward with them."""
        ...

    def shown(self, media: "Sequence[Given]", label: str | None) -> "Sequence[Given]":
        """Pictures as they are shown for a class."""
        ...

    def applied(
        self, requests: Sequence[PromptedRequest], labels: Sequence[str | None], prompt_lengths: Any = None
    ) -> "AbstractContextManager[Pruned | None]":
        """Prune the model for a batch of requests that have pictures; see `clasp_calib.runtime.pruner.prune`."""
        ...


class WholePictures:
    """Nothing is pruned."""

    batches = True
    prompt: str | None = None

    def told(self) -> dict[str, Any]:
        """See `PruningWay`."""
        return {"method": "none"}

    def classes(self, requests: Sequence[PromptedRequest]) -> list[str | None]:
        """See `PruningWay`."""
        return [None] * len(requests)

    def alike(self, label: str | None) -> Hashable:
        """See `PruningWay`."""
        return None

    def shown(self, media: "Sequence[Given]", label: str | None) -> "Sequence[Given]":
        """See `PruningWay`."""
        return media

    def applied(
        self, requests: Sequence[PromptedRequest], labels: Sequence[str | None], prompt_lengths: Any = None
    ) -> "AbstractContextManager[Pruned | None]":
        """See `PruningWay`."""
        return nullcontext()


class ByArtifact(WholePictures):
    """Pruned as an artifact says.

    Args:
        model: to prune.
        processor: the model's.
        options: with an artifact.

    Raises:
        ArtifactError: it cannot be read, is of another model, or lacks the budget or the class.
        InputError: classes of its own are to be found, and it has no router.
    """

    def __init__(self, model: Any, processor: Any, options: HarnessOptions) -> None:
        assert options.artifact is not None
        self._model, self._processor, self._options = model, processor, options
        self._artifact = Artifact.load(options.artifact)
        self._budget = parse_budget(options.budget or largest_budget(self._artifact)).name
        check_fits(self._artifact, model, strict=options.strict, checkpoint=options.checkpoint)
        if options.classes == AUTO:
            classes_of(["What is this?"], self._artifact)
        self.prompt = self._artifact.manifest.prompt

    def told(self) -> dict[str, Any]:
        """See `PruningWay`."""
        manifest = self._artifact.manifest
        entry = self._artifact.entry(self._budget)
        return {
            "method": "clasp",
            "artifact": self._options.artifact,
            "artifact_id": manifest.id,
            "budget": self._budget,
            "budget_tokens": entry.mean_tokens if entry.counts else None,
            "classes": self._options.classes,
        }

    def classes(self, requests: Sequence[PromptedRequest]) -> list[str | None]:
        """See `PruningWay`."""
        if self._options.classes != AUTO:
            return [self._options.classes] * len(requests)
        return [*classes_of([request.question for request in requests], self._artifact)]

    def alike(self, label: str | None) -> Hashable:
        """See `PruningWay`."""
        assert label is not None
        return self._artifact.downsample(self._budget, label), self._artifact.selector(self._budget, label)

    def shown(self, media: "Sequence[Given]", label: str | None) -> "Sequence[Given]":
        """See `PruningWay`."""
        from clasp_calib.api.resizing import shown_smaller

        assert label is not None
        share = self._artifact.downsample(self._budget, label)
        return shown_smaller(self._model, self._processor, list(media), share) if share else media

    def applied(
        self, requests: Sequence[PromptedRequest], labels: Sequence[str | None], prompt_lengths: Any = None
    ) -> "AbstractContextManager[Pruned | None]":
        """See `PruningWay`."""
        return clasp(
            self._model,
            self._artifact,
            budget=self._budget,
            classes=[str(label) for label in labels],
            prompt_lengths=prompt_lengths,
            checkpoint=self._options.checkpoint,
            smaller=True,
        )


@dataclass
class AtDefaultStages(WholePictures):
    """Pruned at the stages that a calibration begins with, with the model's own layer: by relevance, or by chance.

    Attributes:
        model: to prune.
        options: with one of `OWN` as the method.
    """

    model: Any = field(repr=False)
    options: HarnessOptions

    def __post_init__(self) -> None:
        """Refuse budgets that the model cannot have."""
        self._how = default_options(adapter_for(self.model))
        self._budget = parse_budget(str(self.options.budget)).name
        self._schedule = schedule_for(self.model, self._budget, self._how)
        self.batches = self.options.method != RANDOM

    def told(self) -> dict[str, Any]:
        """See `PruningWay`."""
        seed = {"seed": self.options.seed} if self.options.method == RANDOM else {}
        return {"method": self.options.method, "budget": self._budget, **seed}

    def applied(
        self, requests: Sequence[PromptedRequest], labels: Sequence[str | None], prompt_lengths: Any = None
    ) -> "AbstractContextManager[Pruned | None]":
        """See `PruningWay`."""
        drawn = None
        if self.options.method == RANDOM:
            (request,) = requests
            drawn = RandomPruning(int(sha256_json([self.options.seed, request.name])[:15], 16))
        return prune(
            self.model,
            schedule=self._schedule,
            rho=1.0,
            selector=drawn,
            options=self._how,
            prompt_lengths=prompt_lengths,
        )
