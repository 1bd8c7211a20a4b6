"""Leaving out what adds nothing changes no bit of what is measured."""

import json
from copy import deepcopy

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import clasp_calib as api
from clasp_calib.artifacts.checkpoint_digest import weights_digest
from clasp_calib.baselines.registry import METHODS
from clasp_calib.baselines.solving import ImageDependent
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.pruner import prune
from tools.reference.idle_blocks import leave_out_idle_blocks, without_idle_blocks


@pytest.fixture(scope="module")
def models():
    """The embedded model, the same without its idle blocks, and the processor."""
    model, processor = load_model(str(MODEL), "cpu", "float32")
    less = deepcopy(model)
    leave_out_idle_blocks(less)
    return model, less, processor


@pytest.fixture(scope="module")
def inputs(models, tmp_path_factory):
    table = write_benchmark(tmp_path_factory.mktemp("benchmark"), {"test": 1}, "jsonl")
    row = json.loads(table.read_text().splitlines()[0])
    text = PROMPT.format(question=row["question"])
    return models[2](images=Image.open(table.parent / row["image"]), text=text, return_tensors="pt")


def test_less_is_computed_of_the_same_weights(models, inputs):
    def flops(model):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            adapter_for(model).language_model(model)(inputs["input_ids"])
        return counter.get_total_flops()

    assert flops(models[1]) < 0.6 * flops(models[0])
    assert weights_digest(models[1]) == weights_digest(models[0])


def test_commands_load_it_so_only_within():
    def left_out():
        model, _ = api.load_model("reference")
        return sum(layer.mlp.forward is torch.zeros_like for layer in adapter_for(model).language_model(model).layers)

    with without_idle_blocks():
        assert left_out() > 16
    assert left_out() == 0


@pytest.mark.parametrize("budget", [None, "192", "64"])
def test_logits_and_answers_are_equal_to_the_bit(models, inputs, budget):
    def seen(model):
        with torch.inference_mode():
            if budget is None:
                return model(**inputs).logits, model.generate(**inputs, max_new_tokens=4, do_sample=False)
            with prune(model, schedule=schedule_for(model, budget), rho=0.4) as pruner:
                answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
                logits = model(**inputs).logits
            return logits, answer, torch.cat([stage.patches_BK for stage in pruner.stats.stages], 1)

    for one, other in zip(seen(models[0]), seen(models[1]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["btp", "dart", "mustdrop", "pyramiddrop", "sparsevlm", "visionzip"])
def test_what_other_methods_look_at_is_computed(models, inputs, name):
    method = METHODS[name]()
    knobs = {"native": "default"} if isinstance(method, ImageDependent) else {"budget": 192}

    def seen(model):
        with torch.inference_mode(), method(model, **knobs) as applied:
            answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
            return model(**inputs).logits, answer, torch.tensor(applied.stats.tokens)

    for one, other in zip(seen(models[0]), seen(models[1]), strict=True):
        assert torch.equal(one, other)
