"""Published methods with the calibration's mixtures of vision layers."""

from dataclasses import replace

import pytest
import torch

import clasp_calib as cc
from clasp_calib.baselines.registry import METHODS
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.answers import SolvedKnobs
from clasp_calib.calib.studies.contest import MIXED, Answerer, Prompts
from clasp_calib.calib.studies.entrants import Solving, entrants_for
from clasp_calib.calib.studies.mixed_entrants import with_mixture
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.fusion import fuse

BY_DECODER = ("unpruned", "fastv", "sparsevlm", "dart")
"""Methods that look at nothing but what the decoder is given."""


@pytest.fixture(scope="module")
def entrants(bench, artifact):
    """All of the budget 6, and what is added to them."""
    prompter = Prompter(bench.processor, bench.model, artifact.manifest.prompt)
    solving = Solving(Prompts(bench.model, bench.processor, prompter, tuple(bench.samples[:3])), SolvedKnobs(None, {}))
    names = ["random", *METHODS]
    found, _ = entrants_for(bench.model, bench.processor, artifact, ["6"], names, solving, bench.samples)
    return found, with_mixture(found)


def alpha_of(artifact, label):
    return torch.tensor(artifact.alpha("6", label))


def half_and_half(entrant, layers):
    """The entrant with the embeddings and the last state by halves for all classes."""
    alpha = tuple(0.5 * (layer in (0, layers - 1)) for layer in range(layers))
    if hasattr(entrant.apply, "alphas"):
        return replace(entrant, apply=replace(entrant.apply, alphas=dict.fromkeys(entrant.apply.alphas, alpha)))
    setting = entrant.apply.setting
    candidates = {label: replace(one, alpha=alpha) for label, one in setting.candidates.items()}
    return replace(entrant, apply=replace(entrant.apply, setting=replace(setting, candidates=candidates)))


def test_all_are_given_the_mixtures_but_ours_and_those_whose_tower_merges(artifact, entrants):
    plain, mixed = entrants
    merging = {"tome", "ficoco-v", "mustdrop"}
    wanted = {e.method for e in plain} - merging - {"calibrated", "selection alone"}
    assert {e.method for e in mixed} == {name + MIXED for name in wanted}
    classes = artifact.classes
    for entrant in mixed:
        assert (entrant.mixed, entrant.budget) == (True, "6")
        for label in classes:
            assert torch.allclose(torch.tensor(entrant.knobs["alpha"][label]), alpha_of(artifact, label))


def test_decoders_are_given_mixed_tokens_and_prune_them_as_released(bench, artifact, entrants):
    """What the method alone makes of features that were mixed by hand."""
    plain, mixed = entrants
    model, adapter, sample = bench.model, adapter_for(bench.model), bench.samples[0]
    prompter = Prompter(bench.processor, bench.model, artifact.manifest.prompt)
    inputs = prompter.inputs(model, sample)
    layers = adapter.vision_layers + 1
    alpha_L = torch.tensor([0.5 * (layer in (0, layers - 1)) for layer in range(layers)])
    with torch.no_grad():
        layers_BLTC = adapter.capture(model, inputs["pixel_values"])
        features = adapter.project(model, fuse(layers_BLTC, alpha_L[None]))
    blind = {name: value for name, value in inputs.items() if name != "pixel_values"}
    for name in BY_DECODER:
        (released,) = (e for e in plain if e.method == name)
        (with_mix,) = (half_and_half(e, layers) for e in mixed if e.method == name + MIXED)
        with torch.no_grad():
            with with_mix.apply(model, sample, 0):
                ours = model(**inputs).logits[0, -1]
            with released.apply(model, sample, 0):
                theirs = model(**blind, mm_encoder_outputs=adapter.encoder_outputs(features)).logits[0, -1]
                own = model(**inputs).logits[0, -1]
        assert torch.allclose(ours, theirs, atol=1e-5), name
        assert not torch.allclose(ours, own, atol=1e-3), name


def test_every_method_answers_with_a_mixture_at_the_budget(bench, artifact, entrants):
    plain, mixed = entrants
    prompter = Prompter(bench.processor, bench.model, artifact.manifest.prompt)
    answerer, layers = Answerer(bench.model, bench.processor, prompter, 2), adapter_for(bench.model).vision_layers + 1
    asked = [half_and_half(entrant, layers) for entrant in mixed]
    answers = answerer.answers(bench.samples[0], [(entrant, 0) for entrant in asked])
    released = {e.method: e for e in plain}
    counts = answerer.answers(bench.samples[0], [(released[e.method.removesuffix(MIXED)], 0) for e in asked])
    fixed = [n for n, e in enumerate(asked) if "solved on" not in e.knobs]
    assert [answers[n].tokens for n in fixed] == [counts[n].tokens for n in fixed]
    assert len(fixed) > 15


def test_a_comparison_has_a_block_with_mixtures_unless_it_is_left_out(bench, artifact):
    call = (bench.model, bench.processor, artifact, bench.samples, ["divprune"])
    few = cc.ComparisonOptions(per_class=1, timed=1)
    found = cc.compare(*call, budgets=[6], options=few)
    methods = [row["method"] for row in found.table(6)]
    assert set(methods) == {
        *("unpruned", "calibrated", "selection alone", "default", "divprune"),
        *("unpruned+mixture", "default+mixture", "divprune+mixture"),
    }
    assert methods.count("calibrated") == 1
    page = found.to_markdown()
    first, second = page.split("Every method given the calibration's mixtures too:")
    assert "| divprune |" in first
    assert "+mixture" not in first
    assert "| divprune+mixture |" in second
    assert {m["method"] for m in found.as_dict()["budgets"][0]["methods"] if m["mixed"]} == set(methods[-3:])
    assert not any(name.endswith(MIXED) for name in found.contest.off_budget("6"))
    without = cc.compare(*call, budgets=[6], options=replace(few, timed=0, mixture=False))
    assert [row["method"] for row in without.table(6)] == [name for name in methods if MIXED not in name]
    assert "mixtures too" not in without.to_markdown()
