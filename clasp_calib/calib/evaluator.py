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

from clasp_calib.calib.candidate import Candidate
from clasp_calib.calib.features import Features
from clasp_calib.calib.metrics import EXACT, metric
from clasp_calib.calib.prompted import Prefixes, Prompted
from clasp_calib.calib.prompting import Prompter
from clasp_calib.calib.scores import Scores
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.selection import Selector

MAX_NEW_TOKENS = 16
"""Longest answer where a metric has to generate."""
ROWS = 32
"""Candidates of one forward. Our choice: enough to fill a processor, little enough memory for a 7B."""


@dataclass(frozen=True)
class Pruning:
    """How visual tokens are dropped while scoring; ``schedule`` of ``None`` keeps all."""

    schedule: Schedule | None
    raters: str = "sparsevlm"
    positions: str = "keep"
    features: str = "projected"
    iterations: int = 5
    selector_for: Callable[[Sample], Selector] | None = None
    """Makes the selector of a sample, anew for each forward; ``None`` is the dual-stage selection."""


class Evaluator:
    """Scores candidates of one model.

    Args:
        model: in evaluation mode.
        prompter: of the same model.
        features: vision layers; a candidate's mixture may use no others.
        max_new_tokens: longest answer where a metric has to generate.
    """

    def __init__(self, model: Any, prompter: Prompter, features: Features, max_new_tokens: int = MAX_NEW_TOKENS):
        self._model = model
        self._adapter = adapter_for(model)
        self._prompter = prompter
        self._features = features
        self._max_new_tokens = max_new_tokens
        self._prefixes = Prefixes(model, self._adapter)

    @torch.inference_mode()
    def scores(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        """Score of each candidate on one sample, in [0, 1], and its companion where one forward gives both."""
        score = self._one_pass if (sample.metric or EXACT) == EXACT else self._generated
        parts = [candidates[start : start + ROWS] for start in range(0, len(candidates), ROWS)]
        return Scores.joined([score(sample, part, pruning) for part in parts])

    def _one_pass(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        right = torch.zeros(len(candidates), dtype=torch.bool)
        nll = torch.full((len(candidates),), torch.inf)
        with self._prompted(sample, candidates, pruning) as (prompted, row_B):
            for reference in dict.fromkeys(sample.answers):
                answer = self._prompter.answer(sample.question, reference)
                logits_BTV = prompted.logits(answer)[row_B]
                answer_T = torch.tensor(answer, device=logits_BTV.device)
                right |= (logits_BTV.argmax(-1) == answer_T).all(-1).cpu()
                nll = torch.minimum(nll, _nll(logits_BTV, answer_T).cpu())
        return Scores(tuple(right.float().tolist()), tuple(nll.tolist()))

    def _generated(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        with self._prompted(sample, candidates, pruning) as (prompted, row_B):
            answers = self._prompter.decode(prompted.generated(self._max_new_tokens)[row_B])
        score = metric(sample.metric or EXACT)
        return Scores(tuple(score(answer, sample.answers) for answer in answers))

    @contextmanager
    def _prompted(
        self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning
    ) -> Iterator[tuple[Prompted, list[int]]]:
        """The sample's prompt under the candidates, and the row of each: unpruned, those of a mixture are the same."""
        visual, fan = self._project(sample, candidates)
        prompt = self._prompter.prompt(sample.question)
        prompted = Prompted(self._model, self._adapter, prompt, visual, self._prefixes)
        with self._pruned(sample, pruning, candidates, fan, len(prompt)):
            yield prompted, fan if pruning.schedule is None else list(range(len(candidates)))

    def _project(self, sample: Sample, candidates: Sequence[Candidate]) -> tuple[list[Tensor], list[int]]:
        """Visual tokens of each different mixture, and which of them each candidate uses."""
        mixtures = list(dict.fromkeys(c.alpha for c in candidates))
        alpha_Ml = torch.tensor(mixtures)[:, list(self._features.layers)]
        fused_MTC = self._features.fused(sample, alpha_Ml)
        place = next(self._adapter.vision_tower(self._model).parameters())
        visual = self._adapter.project(self._model, fused_MTC.to(place.device, place.dtype))
        return visual, [mixtures.index(c.alpha) for c in candidates]

    def _pruned(
        self,
        sample: Sample,
        pruning: Pruning,
        candidates: Sequence[Candidate],
        fan: Sequence[int],
        prompt: int,
    ) -> AbstractContextManager[Any]:
        if pruning.schedule is None:
            return nullcontext()
        return prune(
            self._model,
            schedule=pruning.schedule,
            rho=[c.rho for c in candidates],
            selector=pruning.selector_for(sample) if pruning.selector_for else None,
            raters=pruning.raters,
            positions=pruning.positions,
            features=pruning.features,
            iterations=pruning.iterations,
            prompt_lengths=prompt,
            fan=fan,
        )


def _nll(logits_BTV: Tensor, answer_T: Tensor) -> Tensor:
    """Negative log-likelihood [B] of an answer, float32 nats."""
    return -logits_BTV.float().log_softmax(-1).gather(2, answer_T.expand(len(logits_BTV), -1)[..., None]).sum((1, 2))
