"""Candidates that share all that can be shared answer as each would alone, in every architecture with features."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.prepare import Preparer
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.answer_metrics import anls
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.objective import KL, NLL
from clasp_calib.calib.scoring.prompted import Picture, Prefixes, Prompted
from clasp_calib.calib.scoring.relevances import Relevances
from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.deepstack import with_deepstack
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.tower_relevance import with_relevance

sys.path += [str(Path(__file__).parents[1] / room) for room in ("runtime", "cache")]
from architectures import BOS, CASES, LAYERED_CASES
from case_processor import CaseProcessor, write_file
from reference_decoder import stacked

LONGEST = 4
BEFORE, AFTER = [BOS, 9, 11, 40], [13, 8, 21, 50, 17]
RHOS = (0.0, 0.4, 0.7, 1.0)
MIXTURES = 3
LAYERED, INPUT = PruningOptions(starts=(1, 2, 4)), PruningOptions(profile="input")
INPUT_TOO = ("llava", "qwen2_5_vl", "llava_onevision video")
"""Rated by the class token, in blocks, and of a video, where pruning inside is the default."""
EACH_KIND = ("llava", "qwen3_vl", "internvl video")
"""One picture of a fixed size, one of any size with deepstack and positions of three axes, and a video."""


def of_each_kind(cases):
    """Parameters of which the slow tests have the others, which are made of the same parts."""
    return [pytest.param(case, marks=[] if name in EACH_KIND else pytest.mark.slow) for name, case in cases.items()]


PROFILED = [
    *(
        pytest.param(case, LAYERED, marks=[] if name in EACH_KIND else pytest.mark.slow)
        for name, case in LAYERED_CASES.items()
    ),
    *(
        pytest.param(case, INPUT, marks=[pytest.mark.slow] if case.layered and name not in INPUT_TOO else [])
        for name, case in CASES.items()
    ),
]


def inside(case):
    """Stages in the decoder, where there can be any."""
    return LAYERED if case.layered else INPUT


def named(of):
    return of.profile if isinstance(of, PruningOptions) else of.name


@dataclass
class Alone:
    """One candidate at a time: whole prompts, no cache, no fan, and transformers' own positions."""

    model: Any
    prompt: list[int]
    visual: list[torch.Tensor]
    modality: str
    sizes: dict[str, torch.Tensor]
    rho: float
    schedule: Any
    options: Any = LAYERED
    relevance: list = field(default_factory=list)
    deepstack: list = field(default_factory=list)

    def arguments(self, answer=()):
        adapter = adapter_for(self.model)
        ids = torch.tensor([[*self.prompt, *answer]])
        made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.sizes}
        if hasattr(self.model.model, "get_rope_index"):
            kinds = [ids == token for token in adapter.visual_token_ids.values()]
            made["mm_token_type_ids"] = sum((number + 1) * kind.int() for number, kind in enumerate(kinds))
        made |= adapter.prompt_inputs(ids)
        outputs = with_deepstack(adapter.encoder_outputs(self.visual, self.modality), self.deepstack)
        outputs = with_relevance(outputs, self.relevance) if self.relevance else outputs
        return {**made, "mm_encoder_outputs": outputs}

    def pruned(self):
        if self.schedule is None:
            return nullcontext()
        of = {"schedule": self.schedule, "rho": self.rho, "options": self.options}
        return prune(self.model, **of, prompt_lengths=len(self.prompt))

    def logits(self, answer):
        with self.pruned():
            given = self.arguments(answer[:-1])
            return self.model(**given, use_cache=False, logits_to_keep=len(answer)).logits[0, -len(answer) :]

    def said(self):
        with self.pruned():
            return self.model.generate(**self.arguments(), max_new_tokens=LONGEST)[0, len(self.prompt) :].tolist()


def mixed(case, number):
    """Ids of a picture, its sizes, its visual tokens in the model's own layer and two mixtures, and its deepstack."""
    adapter, model = adapter_for(case.model()), case.model()
    made, ids = case.picture(model, torch.Generator().manual_seed(number), number)
    sizes = {name: made[name] for name in adapter.size_names[case.modality] if name in made}
    states_BLTC = adapter.capture(model, made[adapter.pixel_names[case.modality]], case.modality, **sizes)
    alpha_ML = torch.zeros(MIXTURES, adapter.vision_layers + 1)
    alpha_ML[0, adapter.own_layer] = 1
    alpha_ML[1:] = torch.rand(alpha_ML[1:].shape, generator=torch.Generator().manual_seed(2)).mul(4).softmax(-1)
    mixtures = [fuse(states_BLTC, alpha_L.expand(len(states_BLTC), -1)) for alpha_L in alpha_ML]
    visual = [adapter.project(model, fused_BTC, case.modality, **sizes) for fused_BTC in mixtures]
    return ids, sizes, visual, stacked([[] for _ in adapter.taps], adapter, model, states_BLTC, case.modality)


@pytest.mark.parametrize("case", of_each_kind(LAYERED_CASES), ids=named)
@torch.inference_mode()
def test_candidates_together_are_candidates_alone(case):
    model, adapter = case.model(), adapter_for(case.model())
    rhos = RHOS[::2]
    schedule, rho = schedule_for(model, "40%", LAYERED), list(rhos) * MIXTURES
    for number in range(2):
        ids, sizes, visual, deepstack = mixed(case, number)
        prompt, fan = [*BEFORE, *ids, *AFTER], [row for row in range(MIXTURES) for _ in rhos]
        alone = [
            Alone(model, prompt, visual[row], case.modality, sizes, share, schedule, deepstack=deepstack)
            for row, share in zip(fan, rho, strict=True)
        ]
        said = [one.said() for one in alone]
        assert len({tuple(words) for words in said}) > 1, "all candidates say the same"
        answers = [said[-1], said[0][:1] + said[-1][1:], said[0][1:3], said[0][:1]]

        picture = Picture(visual, [len(visual[0])], case.modality, sizes, deepstack)
        assert [prompt.count(adapter.visual_token_ids[case.modality])] == picture.tokens
        prompted = Prompted(model, adapter, prompt, picture, Prefixes(model, adapter))
        with prune(model, schedule=schedule, rho=rho, fan=fan, prompt_lengths=len(prompt)):
            together = [prompted.logits(answer) for answer in answers]
            assert prompted.generated(max_new_tokens=LONGEST).tolist() == said
        for answer, logits_BTV in zip(answers, together, strict=True):
            expected_BTV = torch.stack([one.logits(answer) for one in alone])
            assert (logits_BTV - expected_BTV).abs().max() < 1e-4


@pytest.mark.parametrize("budget", [None, "90%"])
@torch.inference_mode()
def test_answers_one_after_the_other_where_the_prompt_fills_a_window(budget):
    case = CASES["gemma3"]
    model, adapter = case.model(), adapter_for(case.model())
    schedule = budget and schedule_for(model, budget, INPUT)
    ids, sizes, visual, _ = mixed(case, 0)
    prompt = [*BEFORE, *ids, *AFTER]
    rated = [torch.rand(len(part), generator=torch.Generator().manual_seed(7)) for part in visual[0]]
    alone = [
        Alone(model, prompt, part, case.modality, sizes, 0.5, schedule, INPUT, rated if schedule else [])
        for part in visual
    ]
    said = [one.said() for one in alone]
    picture = Picture(visual, [1], case.modality, sizes, relevance=[rated] * MIXTURES if schedule else ())
    prompted = Prompted(model, adapter, prompt, picture, Prefixes(model, adapter))
    answers = [said[0], said[1][:1] + said[0][1:], said[2][:1], said[2], said[0][:2]]
    fan = {"fan": range(MIXTURES), "prompt_lengths": len(prompt), "options": INPUT}
    with prune(model, schedule=schedule, rho=0.5, **fan) if schedule else nullcontext():
        together = [prompted.logits(answer) for answer in answers]
        assert (
            min(layer.get_seq_length() for layer in prompted._cache.layers) >= model.config.text_config.sliding_window
        )
        assert prompted.generated(max_new_tokens=LONGEST).tolist() == said
    for answer, logits_BTV in zip(answers, together, strict=True):
        assert (logits_BTV - torch.stack([one.logits(answer) for one in alone])).abs().max() < 1e-4


def test_a_relevance_that_the_tower_has_not_is_refused():
    relevances = Relevances(CASES["qwen2_vl"].model(), lambda *_: pytest.fail("nothing is to be prepared"))
    with pytest.raises(ModelError, match="'class-token' is not to be had"):
        relevances.of("key", "picture.png", "class-token")


def ids_of(case, number):
    return case.picture(case.model(), torch.Generator().manual_seed(number), number)[1]


@dataclass(frozen=True)
class CasePrompter:
    """Prompts for a tiny model without words; answers are ids, given as text."""

    case: Any
    numbers: tuple[int, ...]
    tokenizer: Any = None
    processor: Any = None

    def prompt(self, question, tokens, modality):
        every = [ids_of(self.case, number) for number in self.numbers]
        visual = adapter_for(self.case.model()).visual_token_ids[self.case.modality]
        assert [ids.count(visual) for ids in every] == tokens
        return [*BEFORE, *chain(*every), *AFTER]

    def answer(self, question, reference):
        return [int(word) for word in reference.split()]

    def limit(self, sample, least):
        return least

    def decode(self, ids):
        return [" ".join(map(str, torch.as_tensor(row).tolist())) for row in ids]


class Choosing(CasePrompter):
    """Its answers name one of three options."""

    def decode(self, ids):
        return [f"The answer is {'ABC'[int(row[0]) % 3]}." for row in ids]


@pytest.mark.shows("images", videos="videos")
@pytest.mark.parametrize(("case", "options"), PROFILED, ids=named)
@torch.inference_mode()
def test_cached_pictures_score_as_answered_alone(case, options, tmp_path):
    model, adapter = case.model(), adapter_for(case.model())
    schedule, number = schedule_for(model, "40%", options), 1
    own = [float(layer == adapter.own_layer) for layer in range(adapter.vision_layers + 1)]
    alphas = [tuple(own), tuple(1 / len(own) for _ in own)]
    candidates = [Candidate(str(row), alpha, rho) for row, alpha in enumerate(alphas) for rho in RHOS[:2]]
    sample = Sample("1", "?", write_file(tmp_path, case, number))
    cache_features(model, CaseProcessor(case), [sample], tmp_path / "cache", FeatureOptions(layers=range(len(own))))
    with FeatureStore.open(tmp_path / "cache") as store:
        relevances = Relevances(model, lambda _, picture: Preparer.of(CaseProcessor(case), adapter)(picture))
        features = CachedFeatures(store, store.layers, relevances, adapter.taps)
        prompter = CasePrompter(case, (number,))
        given = features.relevance(sample, adapter.relevances[0]) if options is INPUT else []
        origin, alone = features.origin(sample), []
        for candidate in candidates:
            fused_1TC = features.fused(sample, torch.tensor([candidate.alpha]))
            (visual,) = origin.project(adapter, model, fused_1TC)
            prompt = prompter.prompt("?", [sum(map(len, visual))], origin.modality)
            sizes = origin.forward_arguments()
            seen = (prompt, visual, origin.modality, sizes)
            deepstack = origin.deepstack(adapter, model, features.tapped(sample)) if adapter.taps else []
            alone.append(Alone(model, *seen, candidate.rho, schedule, options, given, deepstack))
        said = [one.said() for one in alone]
        accepted = [said[-1], said[0][:1] + said[-1][1:]]
        asked = Sample("1", "?", sample.image, tuple(" ".join(map(str, answer)) for answer in accepted))
        evaluator, ends = Evaluator(model, prompter, features, LONGEST), list(Greedy(model).ends)
        scores = evaluator.scores(asked, candidates, Pruning(schedule, options))
        assert scores.score == tuple(float(words in accepted) for words in said)
        assert scores.score == evaluator.scores(asked, candidates, Pruning(schedule, options), generate=True).score
        for one, nll in zip(alone, scores.nll, strict=True):
            logs = [(one.logits([*answer, BOS]).log_softmax(-1), answer) for answer in accepted]
            each = [
                -sum(log[place, token] for place, token in enumerate(answer)) - log[-1, ends].logsumexp(0)
                for log, answer in logs
            ]
            assert nll == pytest.approx(float(min(each)), abs=1e-3)
        likely = Evaluator(model, prompter, features, LONGEST, NLL).scores(
            asked, candidates, Pruning(schedule, options)
        )
        assert likely.score == pytest.approx([-nll for nll in scores.nll], abs=1e-3)

        unpruned = replace(alone[0], schedule=None)
        words = unpruned.said()
        expected_TV = unpruned.logits(words).log_softmax(-1)
        alike = Evaluator(model, prompter, features, LONGEST, KL).scores(asked, candidates, Pruning(schedule, options))
        for one, score in zip(alone, alike.score, strict=True):
            terms_TV = expected_TV.exp() * (expected_TV - one.logits(words).log_softmax(-1))
            assert -score == pytest.approx(float(terms_TV.sum()), abs=1e-3)

        free = replace(asked, metric="anls")
        generated = evaluator.scores(free, candidates, Pruning(schedule, options)).score
        assert generated == tuple(anls(prompter.decode([answer])[0], asked.answers) for answer in said)
        choice = replace(asked, metric="multiple_choice", answers=("B",))
        chosen = Evaluator(model, Choosing(case, (number,)), features, 1).scores(
            choice, candidates, Pruning(schedule, options)
        )
        assert chosen.score == tuple(float(answer[0] % 3 == 1) for answer in said)


IMAGES = {name: case for name, case in CASES.items() if not case.filmed}


@pytest.mark.parametrize("case", of_each_kind(IMAGES), ids=lambda case: case.name)
@torch.inference_mode()
def test_several_pictures_are_one_prompt_and_pruned_together(case, tmp_path):
    model, adapter, numbers = case.model(), adapter_for(case.model()), (1, 2)
    schedule, options = schedule_for(model, "40%", inside(case)), inside(case)
    alpha = tuple(1 / (adapter.vision_layers + 1) for _ in range(adapter.vision_layers + 1))
    candidates = [Candidate(str(rho), alpha, rho) for rho in RHOS]
    files = tuple(write_file(tmp_path, case, number) for number in numbers)
    both, first = Sample("1", "?", files), Sample("2", "?", files[0])
    kept = FeatureOptions(layers=range(len(alpha)), batch_size=1)
    report = cache_features(model, CaseProcessor(case), [both, first], tmp_path / "cache", kept)
    assert report.unique == 2, "each picture once"
    with FeatureStore.open(tmp_path / "cache") as store:
        relevances = Relevances(model, lambda _, picture: Preparer(CaseProcessor(case), adapter.pixel_names)(picture))
        features = CachedFeatures(store, store.layers, relevances, taps=adapter.taps)
        prompter = CasePrompter(case, numbers)
        features.check([both, first])
        kind, given = adapter.relevances[0], []
        if options is INPUT:
            given = [part for one in both.alone for part in features.relevance(one, kind)]
        visual, sizes, deepstack = [], [], [[] for _ in adapter.taps]
        for one in both.alone:
            origin, fused_1TC = features.origin(one), features.fused(one, torch.tensor([alpha]))
            visual += origin.project(adapter, model, fused_1TC)[0]
            sizes.append(origin.forward_arguments())
            if adapter.taps:
                states_1LTC = store.read(features.key(one), store.layers)[None]
                deepstack = stacked(deepstack, adapter, model, states_1LTC, "image")
        together = {name: torch.cat([size[name] for size in sizes]) for name in sizes[0]}
        prompt = [*BEFORE, *ids_of(case, 1), *ids_of(case, 2), *AFTER]
        seen = (model, prompt, visual, "image", together)
        said = [
            Alone(*seen, candidate.rho, schedule, options, given, deepstack=deepstack).said()
            for candidate in candidates
        ]
        found = Evaluator(model, prompter, features, LONGEST).answers(both, candidates, Pruning(schedule, options))
        assert found == prompter.decode(said)
