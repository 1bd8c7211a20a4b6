"""In every architecture that is pruned inside the search finds the settings that are best by construction."""

from dataclasses import replace
from itertools import count

import pytest
from speaking_architectures import WALKED, speaking_directory, speaking_processor, write_questions
from transformers import AutoModelForImageTextToText

import clasp_calib as cc
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for

BUDGET, LONGEST, PICTURES, LEAST = "40%", 12, 8, 2
PRUNING = cc.PruningOptions(starts=(1, 2, 4))
INSIDE = [name for name in WALKED if name not in ("gemma3", "minicpmv4_6", "qwen3_5")]
"""Those whose decoders can be pruned inside. The tiny ones of the others hardly say different things."""
PLANTED = {"attribute": ("mixed", 0.25), "counting": ("own", 0.25)}
"""What answers as a model should, by class. Neither is the default."""


SEEDS = {"idefics3": 7, "internvl": 3, "llava": 3, "llava_onevision": 2, "qwen2_vl": 2, "smolvlm": 1}
"""Of the words: the first that make such questions."""


def space_for(model):
    own = adapter_for(model).own_layer
    mixtures = {"own": {own: 1.0}, "mixed": {own - 1: 0.25, own: 0.75}}
    prototypes = tuple(cc.Prototype(name=name, weights=weights) for name, weights in mixtures.items())
    return cc.SearchSpace(prototypes=prototypes, rhos=(0.25, 1.0))


def planted(model, processor, samples):
    """The samples to which the planted setting of their class has an answer, which is the accepted one.

    None unless every other setting answers some of each class otherwise.
    """
    space, adapter = space_for(model), adapter_for(model)
    features = open_source(None, model, processor).at(space.layers)
    evaluator = Evaluator(model, Prompter(processor, model), features, LONGEST)
    pruning = Pruning(schedule_for(model, BUDGET, PRUNING), PRUNING)
    candidates = space.candidates(adapter.vision_layers, adapter.own_layer)
    found, others = [], {label: [0] * (len(candidates) - 1) for label in PLANTED}
    for sample in samples:
        order = sorted(candidates, key=lambda one: (one.prototype, one.rho) != PLANTED[sample.label])
        answer, *rest = evaluator.answers(sample, order, pruning)
        # One that does not end is none.
        if 0 < len(answer.split()) < LONGEST:
            found.append(replace(sample, answers=(answer,)))
            of = others[sample.label]
            others[sample.label] = [times + (other != answer) for times, other in zip(of, rest, strict=True)]
    return found if min(map(min, others.values())) >= LEAST else None


@pytest.mark.slow
@pytest.mark.shows("`search`")
@pytest.mark.parametrize("name", INSIDE)
def test_planted_settings_are_found(name, tmp_path):
    processor = speaking_processor(name)
    samples = cc.load_samples(write_questions(tmp_path, name, {"calibration": PICTURES}))
    for seed in count(SEEDS.get(name, 0)):
        directory = speaking_directory(tmp_path / f"model-{seed}", name, seed, end=1.3)
        model = AutoModelForImageTextToText.from_pretrained(directory).eval()
        if questions := planted(model, processor, samples):
            break
    options = cc.CalibrationOptions(
        strategy=cc.Pooled(spend=1.0), space=space_for(model), pruning=PRUNING, max_new_tokens=LONGEST
    )
    artifact = cc.calibrate(model, processor, questions, BUDGET, options=options)
    for label, (prototype, rho) in PLANTED.items():
        choice = artifact.entry(BUDGET).choices[label]
        assert (choice.prototype, artifact.rho(BUDGET, label), choice.calibration) == (prototype, rho, 1.0)
        assert choice.default < 1.0
