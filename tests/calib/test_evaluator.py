"""Scores are those of really answering: one forward instead of decoding, many candidates at once."""

import random
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from speaking_models import WORDS
from tiny_models import EOS, IMAGE

from clasp_calib.calib.scoring import evaluator as module
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.metrics import metric
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime import stages
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.selection import DualStage, gram_matrix

LONGEST = 4
CANDIDATES = [
    Candidate("own", (0, 0, 0, 1, 0), 1.0),
    Candidate("own", (0, 0, 0, 1, 0), 0.25),
    Candidate("deep", (0, 0, 0.5, 0.5, 0), 0.5),
    Candidate("shallow", (0, 1, 0, 0, 0), 0.0),
    Candidate("uniform", (0.2, 0.2, 0.2, 0.2, 0.2), 0.75),
    Candidate("deep", (0, 0, 0.5, 0.5, 0), 0.9),
    Candidate("own", (0, 0, 0, 1, 0), 0.25, "farthest"),
    Candidate("own", (0, 0, 0, 1, 0), 0.25, "k-center"),
]
COMPACT = PruningOptions(raters="all", positions="compact", iterations=0)
PRUNINGS = {
    "whole": Pruning(None),
    "early": Pruning(Schedule(16, 8, (1, 2, 4), (9, 6, 3))),
    "late": Pruning(Schedule(16, 8, (2, 4, 6), (10, 5, 2)), COMPACT),
    "hidden": Pruning(Schedule(16, 8, (1, 2, 4), (9, 6, 3)), PruningOptions(features="hidden")),
    "100%": Pruning(Schedule(16, 8, (1, 2, 4), (16, 16, 16))),
}
PRUNED = [
    pytest.param(pruning, id=name, marks=[] if name in ("whole", "late") else pytest.mark.slow)
    for name, pruning in PRUNINGS.items()
]


@pytest.fixture
def evaluator(bench):
    return Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (0, 1, 2, 3, 4)), LONGEST)


def applied(bench, candidate, pruning, **more):
    """The pruning of one candidate, set up by hand."""
    if pruning.schedule is None:
        return nullcontext()
    options = replace(pruning.options, seeding=candidate.seeding)
    return prune(bench.model, schedule=pruning.schedule, rho=candidate.rho, options=options, **more)


def visual_tokens(bench, sample, candidate):
    """What the model takes for the picture, mixed by hand."""
    adapter = adapter_for(bench.model)
    layers = bench.store.read(image_key(sample.image), (0, 1, 2, 3, 4)).float()
    fused = sum(weight * layer for weight, layer in zip(candidate.alpha, layers, strict=True))
    return adapter.encoder_outputs(adapter.project(bench.model, fused[None]))


@cache
@torch.inference_mode()
def answer(bench, sample, candidate, pruning, longest=LONGEST):
    """What the model says: the obvious way, one candidate at a time, token after token."""
    ids = torch.tensor([bench.prompter.prompt(sample.question)])
    call = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_encoder_outputs": visual_tokens(bench, sample, candidate),
        "max_new_tokens": longest,
    }
    with applied(bench, candidate, pruning):
        return bench.model.generate(**call)[0, ids.shape[1] :].tolist()


@cache
@torch.inference_mode()
def log_likelihoods(bench, sample, candidate, pruning, said):
    """Of every next token [V] after the prompt and what was said: a forward of its own."""
    prompt = bench.prompter.prompt(sample.question)
    with applied(bench, candidate, pruning, prompt_lengths=len(prompt)):
        visual, ids = visual_tokens(bench, sample, candidate), torch.tensor([[*prompt, *said]])
        logits = bench.model(input_ids=ids, mm_encoder_outputs=visual, use_cache=False).logits[0, -1]
    return logits.double().log_softmax(-1)


def nll(bench, sample, candidate, pruning, reference):
    """How unlikely the model finds an answer, word by word."""
    said = (*bench.prompter.answer(sample.question, reference), EOS)
    logs = [log_likelihoods(bench, sample, candidate, pruning, said[:count]) for count in range(len(said))]
    return -sum(float(log[token]) for log, token in zip(logs, said, strict=True))


@pytest.mark.parametrize("pruning", PRUNED)
def test_one_forward_scores_what_decoding_would(bench, evaluator, pruning):
    rng, scored = random.Random(0), []
    for number, sample in enumerate(bench.samples[:8]):
        said = [answer(bench, sample, candidate, pruning) for candidate in CANDIDATES]
        chosen = said[number % len(said)]
        references = (bench.prompter.decode([chosen])[0], rng.choice(WORDS)) if chosen[-1] == EOS else WORDS
        scores = evaluator.scores(replace(sample, answers=references), CANDIDATES, pruning).score
        assert scores == tuple(float(text in references) for text in bench.prompter.decode(said))
        scored.append(scores)
    right = sum(map(sum, scored)) / len(CANDIDATES) / len(scored)
    assert 0.1 < right < 0.9, "these answers tell nothing"
    assert any(0 < sum(scores) < len(scores) for scores in scored), "no candidate differs from another"


@pytest.mark.parametrize("pruning", PRUNED)
def test_the_companion_is_the_nll_of_the_likeliest_reference(bench, evaluator, pruning):
    references, likeliest = ("two red", "no", "red", "yes"), set()
    for sample in bench.samples[:3]:
        found = evaluator.scores(replace(sample, answers=references), CANDIDATES, pruning).nll
        for candidate, value in zip(CANDIDATES, found, strict=True):
            each = [nll(bench, sample, candidate, pruning, reference) for reference in references]
            assert value == pytest.approx(min(each), abs=1e-4)
            likeliest.add(each.index(min(each)))
    assert len(likeliest) > 1, "always the same reference is the likeliest"


@pytest.mark.parametrize("name", ["exact", "exact_match"])
@pytest.mark.parametrize("pruning", PRUNED)
def test_candidates_of_one_forward_score_as_alone(bench, evaluator, pruning, name, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 4)
    for sample in bench.samples[:2]:
        said = bench.prompter.decode([answer(bench, sample, CANDIDATES[3], pruning)])[0]
        asked = replace(sample, answers=(said, *WORDS), metric=name)
        alone = Scores.joined([evaluator.scores(asked, [candidate], pruning) for candidate in CANDIDATES])
        together = evaluator.scores(asked, CANDIDATES, pruning)
        assert together.score == alone.score
        assert together.nll == (None if name == "exact_match" else pytest.approx(alone.nll, abs=1e-4))


@pytest.mark.parametrize("pruning", PRUNED)
def test_other_metrics_read_the_generated_answer(bench, evaluator, pruning):
    scored = []
    for sample in bench.samples[:3]:
        said = bench.prompter.decode([answer(bench, sample, candidate, pruning) for candidate in CANDIDATES])
        for name, references in (("exact_match", (f"{said[1].upper()}.", "red")), ("yes_no", ("yes",))):
            asked = replace(sample, answers=references, metric=name)
            longest = bench.prompter.limit(asked, LONGEST)
            texts = bench.prompter.decode([answer(bench, sample, c, pruning, longest) for c in CANDIDATES])
            expected = tuple(metric(name)(text, references) for text in texts)
            assert evaluator.scores(asked, CANDIDATES, pruning) == Scores(expected, None)
            scored += expected
    assert 0 < sum(scored) < len(scored)


@pytest.mark.parametrize("pruning", PRUNED)
def test_one_pass_scores_are_those_of_generated_answers(bench, evaluator, pruning):
    rng, right = random.Random(1), []
    for sample in bench.samples[:8]:
        said = evaluator._prompter.decode([answer(bench, sample, rng.choice(CANDIDATES), pruning)])[0]
        asked = replace(sample, answers=(said, rng.choice(WORDS), "two red two red two"))
        generated = evaluator.scores(asked, CANDIDATES, pruning, generate=True)
        assert evaluator.scores(asked, CANDIDATES, pruning).score == generated.score
        right += generated.score
    assert 0 < sum(right) < len(right)


def test_a_reference_longer_than_generated_answers_can_still_be_right(bench):
    """Its tokens are generated to the last, whatever the limit for other metrics."""
    evaluator = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (0, 1, 2, 3, 4)), 1)
    found = []
    for sample in bench.samples[:8]:
        said = bench.prompter.decode([answer(bench, sample, CANDIDATES[0], PRUNINGS["early"])])[0]
        asked = replace(sample, answers=(said,))
        found += evaluator.scores(asked, CANDIDATES[:1], PRUNINGS["early"], generate=True).score
        assert evaluator.scores(asked, CANDIDATES[:1], PRUNINGS["early"]).score == (found[-1],)
    assert 1 in found


@pytest.mark.parametrize("pruning", PRUNED)
def test_the_objective_nll_is_the_likelihood_of_an_accepted_answer(bench, evaluator, pruning):
    features = CachedFeatures(bench.store, (0, 1, 2, 3, 4))
    by_nll = Evaluator(bench.model, bench.prompter, features, LONGEST, "nll")
    for metric_name in ("exact", "exact_match"):
        asked = replace(bench.samples[0], answers=("two red", "no"), metric=metric_name)
        expected = evaluator.scores(replace(asked, metric="exact"), CANDIDATES, pruning).nll
        assert by_nll.scores(asked, CANDIDATES, pruning) == Scores(tuple(-value for value in expected))


def kl(bench, sample, candidate, pruning):
    """Divergence from the unpruned model along its own answer, word by word."""
    own, total = Candidate("own", (0, 0, 0, 1, 0), 1.0), 0.0
    said = tuple(answer(bench, sample, own, PRUNINGS["whole"]))
    for count in range(len(said)):
        unpruned = log_likelihoods(bench, sample, own, PRUNINGS["whole"], said[:count])
        pruned = log_likelihoods(bench, sample, candidate, pruning, said[:count])
        total += float((unpruned.exp() * (unpruned - pruned)).sum())
    return total


@pytest.mark.parametrize("pruning", PRUNED)
def test_the_objective_kl_needs_no_answers(bench, pruning):
    features = CachedFeatures(bench.store, (0, 1, 2, 3, 4))
    evaluator = Evaluator(bench.model, bench.prompter, features, LONGEST, "kl")
    for sample in bench.samples[:2]:
        found = evaluator.scores(replace(sample, answers=()), CANDIDATES, pruning)
        expected = [-kl(bench, sample, candidate, pruning) for candidate in CANDIDATES]
        assert found.score == pytest.approx(expected, abs=1e-4)
        assert found.nll is None
        assert min(expected) < -1e-3


def test_an_objective_is_known_and_has_what_it_needs(bench):
    with pytest.raises(InputError, match="'bleu'; expected one of metric, nll, kl"):
        Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (3,)), objective="bleu")
    with pytest.raises(InputError, match=r"kl needs the model's own layer 3, not only \(1, 2\); add it"):
        Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (1, 2)), objective="kl")


def test_without_accepted_answers_there_is_only_the_divergence(bench, evaluator):
    by_kl = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, (3,)), LONGEST, "kl")
    for which, generate in ((evaluator, False), (evaluator, True), (by_kl, True)):
        with pytest.raises(InputError, match=r"'cup-attribute' has no accepted answers; give it some"):
            which.scores(bench.samples[0], CANDIDATES[:1], PRUNINGS["early"], generate)


class Listening(DualStage):
    """The paper's selection; notes the relevance that it was given."""

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "heard", [])

    def __call__(self, relevance_BN, *rest):
        self.heard.append(relevance_BN.clone())
        return super().__call__(relevance_BN, *rest)


@pytest.mark.parametrize("raters", ["all", "last", "sparsevlm"])
def test_references_never_rate_visual_tokens(bench, evaluator, raters):
    schedule, sample = PRUNINGS["early"].schedule, bench.samples[0]
    heard = []
    for reference in ("yes", "two red two red", "any other text"):
        selector = Listening()
        pruning = Pruning(schedule, PruningOptions(raters=raters), lambda sample, selector=selector: selector)
        evaluator.scores(replace(sample, answers=(reference,)), CANDIDATES, pruning)
        heard.append(selector.heard)
    selector = Listening()
    pruning = Pruning(schedule, PruningOptions(raters=raters), lambda sample, selector=selector: selector)
    evaluator.scores(replace(sample, answers=("yes",), metric="yes_no"), CANDIDATES, pruning)
    heard.append(selector.heard)
    for others in heard[1:]:
        for stage, other in zip(heard[0], others, strict=True):
            torch.testing.assert_close(stage, other, rtol=1e-4, atol=1e-6)


def test_references_would_rate_if_the_evaluator_did_not_say_where_they_begin(bench, evaluator, monkeypatch):
    def forgetful(model, prompt_lengths, **settings):
        return prune(model, **settings)

    heard = []
    for function in (prune, forgetful):
        monkeypatch.setattr(module, "prune", function)
        selector = Listening()
        options = PruningOptions(raters="all")
        pruning = Pruning(PRUNINGS["early"].schedule, options, lambda sample, selector=selector: selector)
        evaluator.scores(replace(bench.samples[0], answers=("two red",)), CANDIDATES, pruning)
        heard.append(selector.heard[0])
    assert not torch.allclose(*heard, rtol=1e-2)


def test_what_candidates_share_is_computed_once(bench, evaluator, monkeypatch):
    """The text before the picture once for all samples, cosines once a mixture, the prompt once for all answers."""
    sizes, grams, decoder = {0: [], 7: []}, [], bench.model.model.language_model

    def counted(features_BND):
        grams.append(len(features_BND))
        return gram_matrix(features_BND)

    monkeypatch.setattr(stages, "gram_matrix", counted)
    hooks = [
        decoder.layers[layer].register_forward_pre_hook(
            lambda _, args, layer=layer: sizes[layer].append(args[0].shape[:2])
        )
        for layer in sizes
    ]
    answers = ("two red yes", "no", "red two")
    for sample in bench.samples[:2]:
        evaluator.scores(replace(sample, answers=answers), CANDIDATES, PRUNINGS["early"])
    for hook in hooks:
        hook.remove()
    before = bench.prompter.prompt("").index(IMAGE)
    assert before > 0
    prompts = [len(bench.prompter.prompt(sample.question)) for sample in bench.samples[:2]]
    rows = len(CANDIDATES)
    later = [(rows, 1), (rows, 2)]
    assert sizes[0] == [(1, before), (4, prompts[0] - before + 3), *later, (4, prompts[1] - before + 3), *later]
    assert sizes[7] == [(1, before), (rows, prompts[0] - before - 10), *later, (rows, prompts[1] - before - 10), *later]
    assert grams == [4, 4]


def test_what_another_number_of_threads_computed_is_not_shared(bench, evaluator):
    """Its last bits differ: a search that was interrupted would score a little otherwise than one that was not."""
    lengths, before = [], torch.get_num_threads()
    listening = bench.model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, args: lengths.append(args[0].shape[1])
    )
    try:
        for threads in (1, 2, 2, 1):
            torch.set_num_threads(threads)
            evaluator.scores(replace(bench.samples[0], answers=("no",)), CANDIDATES[:1], PRUNINGS["early"])
    finally:
        torch.set_num_threads(before)
        listening.remove()
    assert lengths.count(bench.prompter.prompt("").index(IMAGE)) == 3


def test_only_cached_layers_and_pictures_can_be_read(bench, tmp_path):
    with pytest.raises(CacheError, match=r"not \[5\]; add them: clasp-calib cache-features --layers 3,5"):
        CachedFeatures(bench.store, (3, 5))
    stranger = replace(bench.samples[0], id="new", image=tmp_path / "new.png")
    stranger.image.write_bytes(b"other bytes")
    with pytest.raises(CacheError, match=r"1 of 7 pictures are not cached \(first: .*new\.png\); run"):
        CachedFeatures(bench.store, (3,)).check([*bench.samples, stranger])
    with pytest.raises(InputError, match="sample 'none' has no picture; expected one picture"):
        CachedFeatures(bench.store, (3,)).check([replace(stranger, id="none", image=None)])
    CachedFeatures(bench.store, (3,)).check(list(bench.samples))


def test_layers_are_read_in_the_order_that_was_asked_for(bench):
    sample = bench.samples[0]
    one, two = (CachedFeatures(bench.store, layers).read(sample) for layers in ((1, 4), (4, 1)))
    assert one.dtype == torch.float32
    assert one.shape == (2, 16, 16)
    assert torch.equal(one, two.flip(0))
    assert not torch.equal(one[0], one[1])


def test_the_next_picture_is_prefetched(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(bench.store, "prefetch", lambda keys, layers: asked.extend(keys))
    features = CachedFeatures(bench.store, (1, 3))
    alpha_Ml = torch.tensor([[0.5, 0.5]])
    first, second, third = (bench.samples[place] for place in (0, 3, 6))
    features.check([first, second])
    features.fused(first, alpha_Ml)
    features.fused(replace(first, id="another question"), alpha_Ml)
    assert asked == [features.key(second)], "as they were checked, once for all questions about a picture"
    for sample in (third, second, first):
        features.fused(sample, alpha_Ml)
    del asked[:]
    features.fused(third, alpha_Ml)
    features.fused(second, alpha_Ml)
    assert asked == [features.key(second), features.key(first)], "as they came the last time"
