"""Pruning methods on the same questions: same prompts, same decoding, the live tower, at equal cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clasp_calib.baselines.solving import OFF
from clasp_calib.calib.scoring.metrics import EXACT, metric
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.score_tasks import PromptingRecipe
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.answers import Answered, AnswerJournal, Asked, knobs_key
from clasp_calib.calib.studies.comparison import Comparison
from clasp_calib.calib.studies.evaluation import DEFAULT
from clasp_calib.common.containing import contained
from clasp_calib.common.progress import progress
from clasp_calib.common.samples import Sample
from clasp_calib.common.token_range import TokenRange
from clasp_calib.crew.tasks import Workers
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.finite import finite_logits
from clasp_calib.runtime.flops import layer_flops

UNPRUNED = "unpruned"
WHOLE = "100%"
"""Its budget."""
SELECTION = "selection alone"
"""A calibration without its mixtures: what it selects by, with the model's own layer."""
MIXED = "+mixture"
"""Stands behind the name of a method that is given the calibration's mixtures."""
SEEDS = (0, 1, 2, 3, 4)
"""Of methods with random parts."""
TURNS = 16
"""Answers about a sample that a worker is asked for at a time. Our choice: many enough that preparing the picture is
little beside them, few enough that a killed worker loses little."""


@dataclass(frozen=True)
class Entrant:
    """One method at one budget.

    ``apply(model, sample, seed)`` prunes the model within its context and yields something with ``stats`` (a
    `clasp_calib.runtime.stats.PruningStats`), or ``None`` where nothing is pruned. Other processes answer only where it
    can be pickled.
    """

    method: str
    budget: str
    apply: Callable[[Any, Sample, int], AbstractContextManager[Any]] = field(compare=False, repr=False)
    knobs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Its own settings as the budget solved them."""
    seeds: tuple[int, ...] = (0,)
    vision_flops: float | None = None
    """Of the tower for a picture, where the method changes them."""
    published: str = ""
    """What the method's paper counts as its tokens."""
    shown: Callable[[Sizes, Sample], Sample] | None = field(default=None, compare=False, repr=False)
    """What is shown in a sample's place, where a method changes the picture itself."""
    mixed: bool = False
    """Whether tokens are made of the calibration's mixtures; the name says so too."""

    @property
    def unpruned(self) -> bool:
        """Whether it keeps all tokens."""
        return self.method.removesuffix(MIXED) == UNPRUNED

    def asked(self, sample: Sample, seed: int) -> Asked:
        """What an answer of this entrant is kept under."""
        return Asked(self.method, self.budget, self._knobs_key, seed, sample.id)

    @cached_property
    def _knobs_key(self) -> str:
        return knobs_key(self.knobs)


@dataclass(frozen=True)
class Contest:
    """What all entrants answered to all samples."""

    entrants: tuple[Entrant, ...]
    samples: tuple[Sample, ...]
    answers: Mapping[Asked, Answered] = field(repr=False)
    seed: int

    @property
    def budgets(self) -> tuple[str, ...]:
        """Of the entrants, without the unpruned one's."""
        return tuple(dict.fromkeys(e.budget for e in self.entrants if e.method != UNPRUNED))

    def at(self, budget: str) -> tuple[Entrant, ...]:
        """The entrants of a budget, and the unpruned model."""
        return tuple(e for e in self.entrants if e.budget == budget or e.method == UNPRUNED)

    def comparison(self, budget: str) -> Comparison:
        """Scores of the entrants of a budget."""
        at = self.at(budget)
        return self.compared([e.method for e in at], [self.scores(e) for e in at])

    def compared(self, settings: Sequence[str], scores: Sequence[NDArray[np.float64]]) -> Comparison:
        """A comparison on the samples of this contest, of settings and the scores [samples] of each."""
        return Comparison(
            tuple(settings),
            np.array(scores, dtype=np.float64),
            tuple(str(s.label) for s in self.samples),
            tuple(s.id for s in self.samples),
            tuple(s.cluster for s in self.samples),
            self.seed,
        )

    def scores(self, entrant: Entrant) -> NDArray[np.float64]:
        """Of an entrant, [samples]; with several seeds the mean of a sample's scores."""
        return np.array([np.mean(self._values(entrant, s, "score")) for s in self.samples], dtype=np.float64)

    def tokens(self, entrant: Entrant) -> TokenRange:
        """Visual tokens that a decoder layer worked on."""
        return TokenRange.of([n for sample in self.samples for n in self._values(entrant, sample, "tokens")])

    def off_budget(self, budget: str) -> dict[str, float]:
        """By how much of the budget a method's mean tokens are above it, where that is more than `OFF`, or below.

        What the budget is in these samples tells the default setting, which meets it in each of them.
        """
        means = {e.method: self.tokens(e).mean for e in self.at(budget) if not e.unpruned}
        off = {name: mean / means[DEFAULT] - 1 for name, mean in means.items() if DEFAULT in means}
        return {name: share for name, share in off.items() if abs(share) > OFF}

    def flops(self, entrant: Entrant) -> float:
        """Mean FLOPs of the decoder layers in a prefill."""
        key = entrant.method, entrant.budget
        if key not in self._flops:
            every = [value for sample in self.samples for value in self._values(entrant, sample, "flops")]
            self._flops[key] = float(np.mean(every))
        return self._flops[key]

    @cached_property
    def _flops(self) -> dict[tuple[str, str], float]:
        return {}

    def _values(self, entrant: Entrant, sample: Sample, what: str) -> list[float]:
        return [getattr(self.answers[entrant.asked(sample, seed)], what) for seed in entrant.seeds]


@dataclass(frozen=True)
class Answerer:
    """What answers are made with.

    Attributes:
        model: in evaluation mode.
        processor: of the model.
        prompter: makes prompts of questions.
        max_new_tokens: longest answer, unless an accepted one is longer.
    """

    model: Any
    processor: Any
    prompter: Prompter
    max_new_tokens: int

    @cached_property
    def sizes(self) -> Sizes:
        """In which pictures are shown."""
        return Sizes(self.model, self.processor)

    @cached_property
    def greedy(self) -> Greedy:
        """How the model decodes."""
        return Greedy(self.model, self.prompter.tokenizer)

    @torch.inference_mode()
    def answers(self, sample: Sample, turns: Sequence[tuple[Entrant, int]]) -> list[Answered]:
        """What each entrant answers greedily with its seed.

        Raises:
            InputError: the picture cannot be read.
            ComputationError: the model fails, or its memory is too small.
        """
        plain, found = encoded(self.model, self.processor, self.prompter, sample), []
        for entrant, seed in turns:
            inputs = encoded_for(entrant, self.model, self.sizes, self.prompter, sample) if entrant.shown else plain
            named = contained(f"answering the sample {sample.id!r} with {entrant.method}")
            with named, entrant.apply(self.model, sample, seed) as run:
                found.append(self._answer(sample, inputs, run))
        return found

    def _answer(self, sample: Sample, inputs: Any, run: Any) -> Answered:
        model, limit = self.model, self.prompter.limit(sample, self.max_new_tokens)
        with finite_logits(model, f"sample {sample.id!r}"):
            output = model.generate(**inputs, **self.greedy.arguments(limit))
        (text,) = self.prompter.decode(output[:, inputs["input_ids"].shape[1] :])
        adapter, config = adapter_for(model), model.config.get_text_config()
        ids = torch.tensor(list(adapter.visual_token_ids.values()), device=inputs["input_ids"].device)
        visual = int(torch.isin(inputs["input_ids"], ids).sum())
        stats = None if run is None else run.stats
        layers = (visual,) * adapter.decoder_layers if stats is None else stats.tokens[0]
        beside = inputs["input_ids"].shape[1] - visual
        flops = sum(layer_flops(n + beside, config.hidden_size, config.intermediate_size) for n in layers)
        score = metric(sample.metric or EXACT)(text, sample.answers)
        return Answered(text, score, sum(layers) / len(layers), float(flops))


@dataclass(frozen=True)
class AnswerTask:
    """Entrants, each with a seed, to answer one sample."""

    sample: Sample
    turns: tuple[tuple[Entrant, int], ...]

    def done_with(self, answerer: Answerer) -> list[Answered]:
        """Their answers."""
        return answerer.answers(self.sample, self.turns)


@dataclass(frozen=True)
class AnswererRecipe(PromptingRecipe):
    """What another process needs to make the answerer of this one."""

    max_new_tokens: int

    def made(self) -> Answerer:
        """Load the model and make the answerer.

        Raises:
            StudyError: the model here is not that of the recipe.
        """
        model, processor = self.model.loaded()
        return Answerer(model, processor, Prompter(processor, model, self.prompt), self.max_new_tokens)


def hold_contest(
    workers: Workers, entrants: Sequence[Entrant], samples: Sequence[Sample], journal: AnswerJournal, seed: int
) -> Contest:
    """Let all entrants answer all samples; what the journal holds is not answered again.

    Args:
        workers: whose tool is an `Answerer`.
        entrants: in the order of the tables; an unpruned one among them.
        samples: each with a picture, references and a class.
        journal: where answers are kept.
        seed: of the bootstrap.

    Raises:
        InputError: a picture cannot be read.
        ComputationError: the model fails on a sample, or its memory is too small.
        StudyError: workers died too often.
    """
    turns = [(sample, entrant, number) for sample in samples for entrant in entrants for number in entrant.seeds]
    tasks = []
    for sample in samples:
        left = [(e, n) for e in entrants for n in e.seeds if journal.get(e.asked(sample, n)) is None]
        tasks += [AnswerTask(sample, tuple(left[at : at + TURNS])) for at in range(0, len(left), TURNS)]
    with progress() as bar:
        known = len(turns) - sum(len(task.turns) for task in tasks)
        shown = bar.add_task("answering", total=len(turns), completed=known)
        for number, found in workers.do(tasks):
            task = tasks[number]
            for (entrant, own), answered in zip(task.turns, found, strict=True):
                journal.add(entrant.asked(task.sample, own), answered)
            bar.advance(shown, len(found))
    asked = [entrant.asked(sample, number) for sample, entrant, number in turns]
    answers = {one: kept for one in asked if (kept := journal.get(one)) is not None}
    return Contest(tuple(entrants), tuple(samples), answers, seed)


def encoded(model: Any, processor: Any, prompter: Prompter, sample: Sample) -> Any:
    """Arguments of ``generate`` for a sample."""
    with contained(f"preparing the sample {sample.id!r}"):
        return prompter.inputs(model, sample)


@dataclass(frozen=True)
class Prompts:
    """Arguments of ``generate`` for samples, made anew whenever they are gone through, for pixels are large."""

    model: Any
    processor: Any
    prompter: Prompter
    samples: tuple[Sample, ...]

    def __iter__(self) -> Iterator[Any]:
        """One after the other."""
        return (encoded(self.model, self.processor, self.prompter, sample) for sample in self.samples)


def encoded_for(entrant: Entrant, model: Any, sizes: Sizes, prompter: Prompter, sample: Sample) -> Any:
    """The same as an entrant shows it."""
    with contained(f"preparing the sample {sample.id!r} for {entrant.method}"):
        return prompter.inputs(model, entrant.shown(sizes, sample) if entrant.shown else sample)
