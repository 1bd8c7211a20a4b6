"""What stands around a model, or in it, and would keep it from being pruned, is refused by name."""

import pytest
import torch
from made_artifacts import made
from runtime_cases import SCHEDULE
from tiny_models import tiny_batch, tiny_llava
from torch import nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.wrapped import check_bare
from clasp_calib.runtime.pruner import clasp, prune


class PeftModel(nn.Module):
    """Looks like PEFT's."""

    def __init__(self, model):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model
        self.peft_config = {}
        self.config = model.config

    def get_base_model(self):
        return self.base_model.model

    def forward(self, **inputs):
        return self.base_model.model(**inputs)


class Served(nn.Module):
    """Somebody's own, without a configuration."""

    def __init__(self, model):
        super().__init__()
        self.llm = model


def compiled_part(model):
    model.model.language_model = torch.compile(model.model.language_model, backend="eager")
    return model


def compiled_in_place(model):
    model.model.language_model.layers[2].compile(backend="eager")
    return model


def compiled_forward(model):
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def offloaded(model):
    model.hf_device_map = {"model.language_model": 0, "lm_head": "disk"}
    return model


@pytest.mark.parametrize(
    ("around", "told"),
    [
        (PeftModel, r"a PeftModel, .* LlavaForConditionalGeneration.*model\.get_base_model\(\)"),
        (nn.DataParallel, r"a DataParallel, .*give what it wraps: model\.module"),
        (Served, r"a Served, .*model\.llm"),
        (lambda model: torch.compile(model, backend="eager"), r"a OptimizedModule.*model\._orig_mod"),
        (lambda model: model.model, "LlavaModel, which has no language head"),
        (compiled_part, r"model\.language_model is compiled"),
        (compiled_in_place, r"layers\.2 is compiled"),
        (compiled_forward, "the model is compiled"),
        (offloaded, r"offloaded \(0, disk\)"),
    ],
)
def test_what_cannot_be_pruned_is_refused(around, told):
    model = around(tiny_llava(decoder_layers=17))
    for attempt in (
        lambda: adapter_for(model),
        lambda: prune(model, schedule=SCHEDULE, rho=0.5).__enter__(),
        lambda: clasp(model, made("7"), budget=7, classes="object").__enter__(),
    ):
        with pytest.raises(ModelError, match=told):
            attempt()


@pytest.mark.parametrize("given", ["llava-hf/llava-1.5-7b-hf", None, (tiny_llava, 3), {"model": 1}, tiny_llava])
def test_what_is_no_model_is_told_apart_from_models_that_are_not_known(given):
    with pytest.raises(
        ModelError, match=f"expected a transformers model, and was given a {type(given).__name__}; load"
    ):
        clasp(given, made("7"), budget=7, classes="object").__enter__()


def test_what_a_wrapper_wraps_is_pruned():
    model = PeftModel(tiny_llava()).get_base_model()
    with torch.no_grad(), prune(model, schedule=SCHEDULE, rho=0.5) as pruner:
        model(**tiny_batch(model))
    assert pruner.stats.tokens[0][-1] == SCHEDULE.counts[-1]


def test_a_part_that_holds_the_whole_ends_the_walk_too():
    model = tiny_llava()
    model.model.add_module("whole", model)
    check_bare(model)
