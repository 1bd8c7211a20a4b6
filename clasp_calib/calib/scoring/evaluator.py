"""What candidates score on a sample: many candidates, one read of the picture, one forward.

Shapes: M mixtures, l layers that may be mixed, T patches or tokens of an answer, C width of the tower, B candidates,
V words.

**One-pass scoring.** One forward over the prompt and a reference shows which tokens greedy decoding takes, as far as
they are the reference's, and the first that is not. If that ends the answer, its text is known. If it makes a text that
no reference begins with, the answer is wrong. What is left is generated: the reference in other tokens, or behind white
space. So the metric ``exact`` is scored as decoding would be, mostly without decoding; other metrics generate. The
reference's tokens never rate visual ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clasp_calib.baselines.random_pruning import RandomPruning, RandomRows
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.features import Features
from clasp_calib.calib.scoring.greedy_paths import GreedyPaths
from clasp_calib.calib.scoring.likelihood import answer_nll, divergence
from clasp_calib.calib.scoring.metrics import EXACT, MAX_NEW_TOKENS, metric
from clasp_calib.calib.scoring.objective import KL, METRIC, NLL, check_objective
from clasp_calib.calib.scoring.projection import Projection
from clasp_calib.calib.scoring.prompted import Prefixes, Prompted
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.calib.scoring.sizes import Sizes, alike
from clasp_calib.common.containing import contained
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.pruning_options import DEFAULT_OPTIONS, NONE, REDUNDANCY, PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import of_smaller, picture_tokens
from clasp_calib.runtime.checks import settled
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.finite import finite_logits
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import AnySchedule
from clasp_calib.runtime.selection import DualStage, Selector
from clasp_calib.runtime.selectors import selected, selector_of
from clasp_calib.runtime.stats import Pruned, PruningStats

ROWS = 32
"""Candidates of one forward. Our choice: enough to fill a processor, little enough memory for a 7B, whose keys and
values for so many prompts at 192 tokens are 4 GB in float16 (half a megabyte a token)."""
PAST = 0
"""Stands behind an answer whose next token is asked for; it is never looked at."""
KEPT = 16
"""Samples whose unpruned distributions stay in memory: 2 MB each with 32,000 words and 16 tokens."""


@dataclass(frozen=True)
class Pruning:
    """How visual tokens are dropped while scoring; ``schedule`` of ``None`` keeps all."""

    schedule: AnySchedule | None
    options: PruningOptions = DEFAULT_OPTIONS
    selector_for: Callable[[Sample], Selector] | None = None
    """Makes the selector of a sample, anew for each forward; ``None`` is what each candidate says."""

    def applied(
        self, model: Any, sample: Sample, candidates: Sequence[Candidate], **more: Any
    ) -> AbstractContextManager[Pruned | None]:
        """Prune a model for a sample.

        Args:
            model: to prune.
            sample: of which the selector may be.
            candidates: one for all rows, or one a row.
            more: the remaining arguments of `clasp_calib.runtime.pruner.prune`.
        """
        sizes = {candidate.downsample for candidate in candidates}
        if len(sizes) == 1 and (share := sizes.pop()):
            plain = [replace(candidate, downsample=None) for candidate in candidates]
            return self.of_smaller(share).applied(model, sample, plain, **more)
        if self.schedule is None:
            return nullcontext()
        if selector := self.selector(candidates):
            return selected(model, selector, more.get("alpha_BL"), more.get("prompt_lengths"))
        rho = [candidate.rho for candidate in candidates]
        options, kinds = self.options, {candidate.relevance for candidate in candidates}
        if len(kinds) == 1 and (kind := kinds.pop()):
            options = replace(options, relevance=kind)
        selector = self.selector_for(sample) if self.selector_for else self._selector(sample, candidates)
        return prune(model, schedule=self.schedule, rho=rho, selector=selector, options=options, **more)

    def selector(self, candidates: Sequence[Candidate]) -> Any:
        """What chooses tokens for candidates that share a forward; ``None`` if it is the dual-stage selection.

        Raises:
            InputError: there is no such selector, or it has not these knobs.
        """
        (choice,) = {candidate.selector for candidate in candidates}
        return None if self.schedule is None or choice is None else selector_of(choice)

    def of_smaller(self, share: float | None) -> "Pruning":
        """What costs as much on pictures that are shown with at most a share of their tokens, or less."""
        if share is None or self.schedule is None:
            return self
        return replace(self, schedule=of_smaller(self.schedule, share))

    def _selector(self, sample: Sample, candidates: Sequence[Candidate]) -> Selector:
        """Draws the rows whose candidates are drawn, by their seed and the sample alone, and chooses the others."""
        chosen = [candidate for candidate in candidates if candidate.drawn is None]
        seedings = tuple(candidate.seeding for candidate in chosen) or (REDUNDANCY,)
        dual = DualStage(self.options.iterations, seedings, needs_gram=any(c.rho < 1 for c in chosen))
        if len(chosen) == len(candidates):
            return dual
        seeds = [None if c.drawn is None else int(sha256_json([c.drawn, sample.id])[:15], 16) for c in candidates]
        # One candidate may be that of many rows.
        return RandomPruning(seeds[0]) if len(seeds) == 1 and seeds[0] is not None else RandomRows(seeds, dual)


class Evaluator:
    """Scores candidates of one model.

    Args:
        model: in evaluation mode.
        prompter: of the same model.
        features: vision layers; a candidate's mixture may use no others.
        max_new_tokens: longest answer where a metric has to generate, unless an accepted one is longer.
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
        self._greedy = Greedy(model, prompter.tokenizer)
        self._features = features
        self._max_new_tokens = max_new_tokens
        self._objective = objective
        self._prefixes, self._no_prefixes = (Prefixes(model, self._adapter, kept) for kept in (True, False))
        self._sizes = Sizes(model, prompter.processor)
        self._tokens: dict[str, int] = {}
        """Key of a picture -> its visual tokens."""
        self._expected: dict[tuple[int, str], tuple[list[int], Tensor]] = {}  # by threads and sample
        own = self._adapter.own_layer
        if objective == KL and own not in features.layers:
            raise InputError(f"the objective kl needs the model's own layer {own}, not only {features.layers}; add it")
        layers = range(self._adapter.vision_layers + 1)
        self._own = Candidate("own", tuple(float(layer == own) for layer in layers), 1.0)

    @property
    def template(self) -> str:
        """Of the prompts, with ``<image>`` and ``{question}``."""
        return self._prompter.template

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
            ComputationError: the model fails on it, or its memory is too small.
        """
        exact = (sample.metric or EXACT) == EXACT
        one_pass = exact and not self._greedy.stops_at_texts
        ways = {METRIC: self._one_pass if one_pass else self._generated, NLL: self._likelihood, KL: self._divergence}
        way = self._generated if generate else ways[self._objective]
        if not sample.answers and way != self._divergence:
            raise InputError(f"sample {sample.id!r} has no accepted answers; give it some, or leave it out")
        found, places = [], list[int]()
        with contained(f"scoring the sample {sample.id!r}"):
            if way == self._divergence:
                self._unpruned(sample)  # Of the picture as it is, whatever candidates are shown.
            for rows, seen, plain, how in self._alike(sample, candidates, pruning):
                found += [way(seen, plain[start : start + ROWS], how) for start in range(0, len(plain), ROWS)]
                places += rows
        return Scores.joined(found).of(places)

    @torch.inference_mode()
    def answers(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> list[str]:
        """What each candidate answers, generated; without special tokens and outer white space.

        Args:
            sample: what is asked.
            candidates: at most `ROWS`.
            pruning: the same for all.
        """
        said: dict[int, str] = {}
        for rows, seen, plain, how in self._alike(sample, candidates, pruning):
            with self._prompted(seen, plain, how) as (prompted, row_B, _):
                ids = self._decoded(prompted, sample)[row_B].tolist()
            texts = self._prompter.decode([self._greedy.ended(answer) for answer in ids])
            said |= dict(zip(rows, texts, strict=True))
        return [said[row] for row in range(len(candidates))]

    @torch.inference_mode()
    def begun(self, sample: Sample, candidate: Candidate, pruning: Pruning) -> tuple[Tensor, PruningStats | None]:
        """Logits [V] of an answer's first token, as they are scored, and what was pruned; of pictures as they are."""
        with self._prompted(sample, [candidate], pruning) as (prompted, _, pruned):
            return prompted.logits([PAST])[0, -1], pruned.stats if pruned else None

    def _alike(
        self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning
    ) -> Iterator[tuple[list[int], Sample, list[Candidate], Pruning]]:
        """Places of candidates that share a forward, what they are shown, they as if it were shown as it is, and how.

        They are of one size and one selector.
        """
        for (share, _), rows in alike(candidates).items():
            plain = [replace(candidates[row], downsample=None) for row in rows]
            yield rows, self._sizes.shown(sample, share), plain, pruning.of_smaller(share)

    @torch.inference_mode()
    def tokens(self, sample: Sample, share: float | None = None) -> int:
        """Visual tokens that the sample's pictures become in its prompt, shown with a ``share`` of them at most.

        Raises:
            CacheError: a picture is not cached.
            InputError: a picture cannot be read.
        """
        return sum(map(self._picture_tokens, self._sizes.shown(sample, share).alone))

    @torch.inference_mode()
    def prompt(self, sample: Sample) -> list[int]:
        """Ids of the sample's prompt, visual tokens in place.

        Raises:
            CacheError: its picture is not cached.
            InputError: the question or the picture cannot be used.
        """
        places = [self._features.origin(one).written or self._picture_tokens(one) for one in sample.alone]
        return self._prompter.prompt(sample.question, places, sample.modality)

    def _picture_tokens(self, sample: Sample) -> int:
        if (fixed := picture_tokens(self._adapter)) is not None:
            return fixed
        key = self._features.key(sample)
        if key not in self._tokens:
            origin, patches = self._features.origin(sample), self._features.patches(sample)
            self._tokens[key] = origin.visual_tokens(self._adapter, self._model, patches)
        return self._tokens[key]

    def _one_pass(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        paths = GreedyPaths(self._greedy, self._prompter, sample, len(candidates))
        nll = torch.full((len(candidates),), torch.inf)
        with self._prompted(sample, candidates, pruning) as (prompted, row_B, _):
            for answer, logits_BTV, nll_B in self._along(sample, prompted, row_B):
                paths.follow(prompted.prompt, answer, logits_BTV, self._limit(sample))
                nll = torch.minimum(nll, nll_B)
            if paths.untold:
                paths.settle(self._decoded(prompted, sample)[row_B])
        return Scores(paths.scores, tuple(nll.tolist()))

    def _likelihood(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        nll = torch.full((len(candidates),), torch.inf)
        with self._prompted(sample, candidates, pruning) as (prompted, row_B, _):
            for _, _, nll_B in self._along(sample, prompted, row_B):
                nll = torch.minimum(nll, nll_B)
        return Scores(tuple((-nll).tolist()))

    def _divergence(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        answer, expected_TV = self._unpruned(sample)
        with self._prompted(sample, candidates, pruning) as (prompted, row_B, _):
            return Scores(tuple((-divergence(expected_TV, prompted.logits(answer)[row_B])).tolist()))

    def _unpruned(self, sample: Sample) -> tuple[list[int], Tensor]:
        """The unpruned model's own answer, and its log-probabilities [T, V] along it, float32."""
        key = torch.get_num_threads(), sample.id
        if key not in self._expected:
            with self._prompted(sample, [self._own], Pruning(None)) as (prompted, _, _):
                answer = self._greedy.ended(self._decoded(prompted, sample)[0].tolist())
            with self._prompted(sample, [self._own], Pruning(None)) as (prompted, _, _):
                expected_TV = prompted.logits(answer)[0].float().log_softmax(-1)
            if len(self._expected) == KEPT:
                del self._expected[next(iter(self._expected))]
            self._expected[key] = answer, expected_TV
        return self._expected[key]

    def _generated(self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning) -> Scores:
        score = metric(sample.metric or EXACT)
        return Scores(tuple(score(said, sample.answers) for said in self.answers(sample, candidates, pruning)))

    def _along(
        self, sample: Sample, prompted: Prompted, row_B: list[int]
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Each different accepted answer: its ids, the logits [B, T + 1, V] along it, and its likelihood."""
        for reference in dict.fromkeys(sample.answers):
            answer = self._prompter.answer(sample.question, reference)
            logits_BTV = prompted.logits([*answer, PAST])[row_B]
            answer_T = torch.tensor(answer, device=logits_BTV.device, dtype=torch.long)
            yield answer, logits_BTV, answer_nll(logits_BTV, answer_T, self._greedy.ends).cpu()

    def _limit(self, sample: Sample) -> int:
        return self._prompter.limit(sample, self._max_new_tokens)

    def _decoded(self, prompted: Prompted, sample: Sample) -> Tensor:
        return prompted.generated(**self._greedy.arguments(self._limit(sample)))

    @contextmanager
    def _prompted(
        self, sample: Sample, candidates: Sequence[Candidate], pruning: Pruning
    ) -> Iterator[tuple[Prompted, list[int], Pruned | None]]:
        """The sample's prompt under the candidates, the row of each, and what is pruned.

        Unpruned, the candidates of a mixture have the same row.
        """
        selector = pruning.selector(candidates)
        kinds = self._kinds(candidates, pruning) if selector is None else [None] * len(candidates)
        how = Projection(self._model, self._adapter, self._features, selector)
        picture, fan = how.picture(sample, candidates, kinds)
        self._tokens |= {self._features.key(one): n for one, n in zip(sample.alone, picture.tokens, strict=True)}
        if pruning.schedule is None and len(picture.visual) == 1:
            # Our choice: one mixture, for the keys and values of more would be gigabytes.
            picture = replace(picture, known_as=(self._features.key(sample), candidates[0].alpha))
        prompt = self.prompt(sample)
        prefixes = self._no_prefixes if selector is not None and selector.whole_prompt else self._prefixes
        prompted = Prompted(self._model, self._adapter, prompt, picture, prefixes)
        named = finite_logits(self._model, f"sample {sample.id!r}")
        if selector is not None:
            with named, how.pruned(len(prompt)) as pruned:
                yield prompted, fan, pruned
            return
        with named, pruning.applied(self._model, sample, candidates, prompt_lengths=len(prompt), fan=fan) as pruned:
            yield prompted, fan if pruning.schedule is None else list(range(len(candidates))), pruned

    def _kinds(self, candidates: Sequence[Candidate], pruning: Pruning) -> list[str | None]:
        """What rates the tokens of each candidate by what the tower attends to; ``None`` if nothing does."""
        own = None if pruning.schedule is None else settled(self._model, self._adapter, pruning.options).relevance
        if own in (None, NONE):
            return [None] * len(candidates)
        return [candidate.relevance or own for candidate in candidates]
