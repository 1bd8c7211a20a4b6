"""What candidates score on a sample: many candidates, one read of the picture, one forward.

Shapes: M mixtures, l layers that may be mixed, T patches or tokens of an answer, C width of the tower, B candidates,
V words.

**One-pass scoring.** Under greedy decoding an answer equals a reference to the last token (end of sequence included) if
and only if every token of the reference is the most likely one after the prompt and the reference's tokens before it.
So one forward over prompt and reference scores exactly what decoding would, without decoding. The reference's tokens
never rate visual ones. It applies to the metric ``exact``; other metrics generate.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.features import Features
from clasp_calib.calib.scoring.likelihood import answer_nll, divergence
from clasp_calib.calib.scoring.metrics import EXACT, metric
from clasp_calib.calib.scoring.objective import KL, METRIC, NLL, check_objective
from clasp_calib.calib.scoring.prompted import Picture, Prefixes, Prompted
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import InputError
from clasp_calib.common.pruning_options import DEFAULT_OPTIONS, PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import AnySchedule
from clasp_calib.runtime.selection import Selector

MAX_NEW_TOKENS = 16
"""Longest answer where a metric has to generate."""
ROWS = 32
"""Candidates of one forward. Our choice: enough to fill a processor, little enough memory for a 7B, whose keys and
values for so many prompts at 192 tokens are 4 GB in float16 (half a megabyte a token)."""
KEPT = 16
"""Samples whose unpruned distributions stay in memory: 2 MB each with 32,000 words and 16 tokens."""


@dataclass(frozen=True)
class Pruning:
    """How visual tokens are dropped while scoring; ``schedule`` of ``None`` keeps all."""

    schedule: AnySchedule | None
    options: PruningOptions = DEFAULT_OPTIONS
    selector_for: Callable[[Sample], Selector] | None = None
    """Makes the selector of a sample, anew for each forward; ``None`` is the dual-stage selection."""

    def applied(self, model: Any, sample: Sample, **more: Any) -> AbstractContextManager[Pruner | None]:
        """Prune a model for a sample.

        Args:
            model: to prune.
            sample: of which the selector may be.
            more: the remaining arguments of `clasp_calib.runtime.pruner.prune`.
        """
        if self.schedule is None:
            return nullcontext()
        selector = self.selector_for(sample) if self.selector_for else None
        return prune(model, schedule=self.schedule, selector=selector, options=self.options, **more)


class Evaluator:
    """Scores candidates of one model.

    Args:
        model: in evaluation mode.
        prompter: of the same model.
        features: vision layers; a candidate's mixture may use no others.
        max_new_tokens: longest answer where a metric has to generate.
        objective: what `scores` gives, one of `clasp_calib.calib.scoring.objective.OBJECTIVES`.

    Raises:
        InputError: an unknown objective, or one that needs the model's own layer where the features lack it.
    """

    def __init__(
        self,
        model: Any,
        prompter: Prompter,
        features: Features,
        max_new_tokens: int = MAX_NEW_TOKENS,
        objective: str = METRIC,
    ):
        check_objective(objective)
        self._model = model
        self._adapter = adapter_for(model)
        self._prompter = prompter
        self._features = features
        self._max_new_tokens = max_new_tokens
        self._objective = objective
        self._prefixes = Prefixes(model, self._adapter)
        self._expected: dict[str, tuple[list[int], Tensor]] = {}
        own = self._adapter.own_layer
        if objective == KL and own not in features.layers:
            raise InputError(f"the objective kl needs the model's own layer {own}, not only {features.layers}; add it")
        self._own = Candidate(
            "own", tuple(float(layer == own) for layer in range(self._adapter.vision_layers + 1)), 1.0
        )

    @torch.inference_mode()
    def scores(
        self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning, generate: bool = False
    ) -> Scores:
        """Score of each candidate on one sample under the objective, and its companion where one forward gives both.

        Args:
            sample: what is asked.
            candidates: scored in forwards of at most `ROWS` of them.
            pruning: the same for all.
            generate: generate the answers in any case and score them by the sample's metric, whatever the objective.

        Raises:
            InputError: the sample has no accepted answers, and only the objective ``kl`` needs none.
            CacheError: its picture is not cached, or damaged.
        """
        exact = (sample.metric or EXACT) == EXACT
        ways = {METRIC: self._one_pass if exact else self._generated, NLL: self._likelihood, KL: self._divergence}
        way = self._generated if generate else ways[self._objective]
        if not sample.answers and way != self._divergence:
            raise InputError(f"sample {sample.id!r} has no accepted answers; give it some, or take the objective kl")
        parts = [candidates[start : start + ROWS] for start in range(0, len(candidates), ROWS)]
        return Scores.joined([way(sample, part, pruning) for part in parts])

    def _one_pass(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        right = torch.zeros(len(candidates), dtype=torch.bool)
        nll = torch.full((len(candidates),), torch.inf)
        with self._prompted(sample, candidates, pruning) as (prompted, row_B):
            for answer in self._accepted(sample):
                logits_BTV = prompted.logits(answer)[row_B]
                answer_T = torch.tensor(answer, device=logits_BTV.device)
                right |= (logits_BTV.argmax(-1) == answer_T).all(-1).cpu()
                nll = torch.minimum(nll, answer_nll(logits_BTV, answer_T).cpu())
        return Scores(tuple(right.float().tolist()), tuple(nll.tolist()))

    def _likelihood(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        nll = self._one_pass(sample, candidates, pruning).nll
        assert nll is not None
        return Scores(tuple(-value for value in nll))

    def _divergence(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        answer, expected_TV = self._unpruned(sample)
        with self._prompted(sample, candidates, pruning) as (prompted, row_B):
            return Scores(tuple((-divergence(expected_TV, prompted.logits(answer)[row_B])).tolist()))

    def _unpruned(self, sample: Sample) -> tuple[list[int], Tensor]:
        """The unpruned model's own answer, and its log-probabilities [T, V] along it, float32."""
        if sample.id not in self._expected:
            with self._prompted(sample, [self._own], Pruning(None)) as (prompted, _):
                answer = self._ended(prompted.generated(self._max_new_tokens)[0].tolist())
            with self._prompted(sample, [self._own], Pruning(None)) as (prompted, _):
                expected_TV = prompted.logits(answer)[0].float().log_softmax(-1)
            if len(self._expected) == KEPT:
                del self._expected[next(iter(self._expected))]
            self._expected[sample.id] = answer, expected_TV
        return self._expected[sample.id]

    def _generated(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        name = sample.metric or EXACT
        accepted = self._accepted(sample) if name == EXACT else []
        longest = max([self._max_new_tokens, *map(len, accepted)])
        with self._prompted(sample, candidates, pruning) as (prompted, row_B):
            ids_BT = prompted.generated(longest)[row_B]
        if name == EXACT:
            return Scores(tuple(float(self._ended(ids) in accepted) for ids in ids_BT.tolist()))
        score = metric(name)
        return Scores(tuple(score(answer, sample.answers) for answer in self._prompter.decode(ids_BT)))

    def _accepted(self, sample: Sample) -> list[list[int]]:
        """Ids of the different accepted answers."""
        return [self._prompter.answer(sample.question, reference) for reference in dict.fromkeys(sample.answers)]

    def _ended(self, ids: list[int]) -> list[int]:
        """Generated ids up to the end of sequence; what follows is padding."""
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids)) + 1]

    @contextmanager
    def _prompted(
        self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning
    ) -> Iterator[tuple[Prompted, list[int]]]:
        """The sample's prompt under the candidates, and the row of each: unpruned, those of a mixture are the same."""
        picture, fan = self._project(sample, candidates)
        prompt = self._prompter.prompt(sample.question, picture.tokens, picture.modality)
        prompted = Prompted(self._model, self._adapter, prompt, picture, self._prefixes)
        rho = [c.rho for c in candidates]
        with pruning.applied(self._model, sample, rho=rho, prompt_lengths=len(prompt), fan=fan):
            yield prompted, fan if pruning.schedule is None else list(range(len(candidates)))

    def _project(self, sample: Sample, candidates: Sequence[Candidate]) -> tuple[Picture, list[int]]:
        """The sample's picture in each different mixture, and which of them each candidate uses."""
        mixtures = list(dict.fromkeys(c.alpha for c in candidates))
        alpha_Ml = torch.tensor(mixtures)[:, list(self._features.layers)]
        fused_MTC, origin = self._features.fused(sample, alpha_Ml), self._features.origin(sample)
        place = next(self._adapter.vision_tower(self._model, origin.modality).parameters())
        visual = origin.project(self._adapter, self._model, fused_MTC.to(place.device, place.dtype))
        picture = Picture(visual, origin.modality, origin.forward_arguments())
        return picture, [mixtures.index(c.alpha) for c in candidates]
