"""The answers of a harness under a published method, whose knobs are solved for a budget."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clasp_calib.baselines.cdpruner import CDPruner
from clasp_calib.baselines.downsampling import DownSampling
from clasp_calib.baselines.registry import method
from clasp_calib.baselines.solving import ImageDependent
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.answers import SolvedKnobs
from clasp_calib.calib.studies.contest import Entrant, Prompts
from clasp_calib.calib.studies.entrants import EMBEDDED, ByQuestion, Smaller, nothing, peer
from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import Sample
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.prompted_request import PromptedRequest
from clasp_calib.harness.pruning_ways import WholePictures
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.schedule import parse_budget

if TYPE_CHECKING:
    from clasp_calib.common.samples import Given
    from clasp_calib.runtime.stats import Pruned

SOLVED_ON = 216
"""Samples that knobs are solved on, at most. Our choice: as many as a comparison takes, 24 of each of nine classes."""


class ByPeer(WholePictures):
    """Pruned as a published method does, one request at a time, for some methods draw, or look at the question.

    Args:
        model: to prune.
        processor: the model's.
        options: with a method of `clasp_calib.baselines.registry.NAMES`.

    Raises:
        BudgetError: it cannot meet the budget.
        InputError: its knobs follow from pictures, and there are none to solve them on.
        ModelError: it cannot run on the model.
    """

    batches = False

    def __init__(self, model: Any, processor: Any, options: HarnessOptions) -> None:
        self._model, self._processor, self._options = model, processor, options
        self._budget = parse_budget(str(options.budget)).name
        self._entrant, self._images_only = _entrant(model, processor, options, self._budget)

    def told(self) -> dict[str, Any]:
        """See `PruningWay`."""
        plain = (int, float, str, bool, type(None))
        knobs = {name: of if isinstance(of, plain) else str(of) for name, of in self._entrant.knobs.items()}
        seed = {"seed": self._options.seed} if len(self._entrant.seeds) > 1 else {}
        return {"method": self._entrant.method, "budget": self._budget, "knobs": knobs, **seed}

    def shown(self, media: "Sequence[Given]", label: str | None) -> "Sequence[Given]":
        """See `PruningWay`."""
        if self._entrant.shown is None:
            return media
        smaller = self._entrant.shown(self._sizes, Sample("the request", "", list(media)))
        return [one.picture for one in smaller.alone]

    def applied(
        self, requests: Sequence[PromptedRequest], labels: Sequence[str | None], prompt_lengths: Any = None
    ) -> "AbstractContextManager[Pruned | None]":
        """See `PruningWay`."""
        (request,) = requests
        if self._images_only and request.modality == "video":
            raise InputError(
                f"{request.name} shows a video, and {self._entrant.method} is defined for images; choose another "
                "method, or another task"
            )
        asked = Sample(request.name, request.question)
        apply: Any = self._entrant.apply
        context: AbstractContextManager[Pruned | None] = apply(
            self._model, asked, self._options.seed, prompt_lengths=prompt_lengths
        )
        return context

    @cached_property
    def _sizes(self) -> Sizes:
        return Sizes(self._model, self._processor)


@dataclass(frozen=True)
class _ByItsQuestion:
    """CDPruner with patches rated by the decoder's embeddings of each request's question."""

    solved: CDPruner
    tokenizer: Any = field(repr=False)

    def __call__(
        self, model: Any, sample: Sample, seed: int, prompt_lengths: Any = None
    ) -> AbstractContextManager[Any]:
        ids = tuple(self.tokenizer(sample.question, add_special_tokens=False).input_ids)
        return ByQuestion(self.solved, {sample.id: ids}, None)(model, sample, seed, prompt_lengths)


def _entrant(model: Any, processor: Any, options: HarnessOptions, budget: str) -> tuple[Entrant, bool]:
    """A method at a budget, and whether it is for images only."""
    name = str(options.method)
    if name == DownSampling.name:
        smaller = DownSampling().solved(model, budget)
        return Entrant(name, budget, nothing, {"keep": smaller.keep}, shown=Smaller(smaller)), smaller.images_only
    plain = method(name)
    if isinstance(plain, CDPruner):
        adapter = adapter_for(model)
        related = plain.solved(adapter, pruning_budget(adapter, budget))
        knobs = {"keep": related.keep, "rated by": "the question's embeddings"}
        return Entrant(EMBEDDED, budget, _ByItsQuestion(related, processor.tokenizer), knobs), plain.images_only
    images: Iterable[Mapping[str, Any]] = ()
    if isinstance(plain, ImageDependent):
        if options.solve_on is None:
            raise InputError(
                f"the knobs of {name} follow from what is in pictures; name a table of samples to solve them on, "
                "solve_on=FILE, of other pictures than the task's"
            )
        images = _images(model, processor, options.solve_on)
    return peer(model, plain, budget, images, SolvedKnobs(None, {})), plain.images_only


def _images(model: Any, processor: Any, table: str) -> Prompts:
    shown = [sample for sample in load_samples(table) if sample.media and sample.modality == "image"]
    if not shown:
        raise InputError(f"solve_on={table} has no sample with a picture; give a table with some")
    of_split = [sample for sample in shown if sample.split == "calibration"] or shown
    return Prompts(model, processor, Prompter(processor, model), tuple(of_split[:SOLVED_ON]))
