"""A model whose numbers are not finite scores nothing: the first sample stops it, under every objective."""

import copy

import pytest
import torch

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.schedule import Schedule

LAYERS = (0, 1, 2, 3, 4)
CANDIDATES = [Candidate("own", (0, 0, 0, 1, 0), 0.5), Candidate("deep", (0, 0, 0.5, 0.5, 0), 1.0)]
PRUNINGS = {"whole": Pruning(None), "pruned": Pruning(Schedule(16, 8, (1, 2, 4), (9, 6, 3)))}


def spoilt(bench, place):
    model = copy.deepcopy(bench.model)
    with torch.no_grad():
        model.get_parameter(place).view(-1)[-1] = torch.nan
    return model


@pytest.mark.parametrize("pruning", PRUNINGS)
@pytest.mark.parametrize(("objective", "metric"), [("metric", None), ("metric", "vqa"), ("nll", None), ("kl", None)])
@pytest.mark.parametrize("place", ["lm_head.weight", "model.language_model.layers.5.mlp.up_proj.weight"])
def test_the_sample_is_named(bench, objective, metric, pruning, place):
    evaluator = Evaluator(
        spoilt(bench, place), bench.prompter, CachedFeatures(bench.store, LAYERS), 3, objective=objective
    )
    sample = bench.samples[4].__class__(**{**vars(bench.samples[4]), "answers": ("red",), "metric": metric})
    with pytest.raises(ModelError, match=f"sample '{sample.id}': .*not finite.*--dtype bfloat16"):
        evaluator.scores(sample, CANDIDATES, PRUNINGS[pruning])


def test_a_projector_that_overflows_is_named_before_the_decoder(bench):
    model = spoilt(bench, "model.multi_modal_projector.linear_2.bias")
    evaluator = Evaluator(model, Prompter(bench.processor, model), CachedFeatures(bench.store, LAYERS), 3)
    sample = bench.samples[0].__class__(**{**vars(bench.samples[0]), "answers": ("red",)})
    with pytest.raises(ModelError, match=f"sample '{sample.id}': .*features"):
        evaluator.scores(sample, CANDIDATES, PRUNINGS["pruned"])
    with pytest.raises(ModelError, match=f"sample '{sample.id}': .*what enters the decoder"):
        evaluator.scores(sample, CANDIDATES, PRUNINGS["whole"])
