"""Version 3 of the embedded model answers as version 2 did, and rates visual tokens in every layer."""

import hashlib
import json
from copy import deepcopy

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.pruner import prune

VERSION_2 = "4700f7b74af982c216e450e2c1601fc596a15d4f7d0f1d33d9e1a747d4115b54"
"""SHA-256 of the weights' file."""
RATES_AS = dict.fromkeys((2, 4), 1) | dict.fromkeys((6, 7, *range(9, 14)), 5)
RATES_AS |= dict.fromkeys((16, 17, 19, 20, 22, 23, 25, 26, *range(28, 32)), 14)
"""Layer without an attention of its own -> the scoring block below it."""
RHO = (0.0, 0.4, 1.0)
ALPHA = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 0], [0, 0.5, 0, 0, 0, 0, 0.5, 0], [0, 0.2, 0, 0.3, 0, 0, 0.5, 0]])
TOKENS = 3


@pytest.fixture(scope="module")
def version_3():
    model, processor = load_model(str(MODEL), "cpu", "float32")
    return model, processor


@pytest.fixture(scope="module")
def version_2(version_3):
    """Queries and keys of those layers are zero, and their norms one."""
    model = deepcopy(version_3[0])
    with torch.no_grad():
        for number in RATES_AS:
            layer = model.model.language_model.layers[number]
            layer.self_attn.q_proj.weight.zero_()
            layer.self_attn.k_proj.weight.zero_()
            layer.input_layernorm.weight.fill_(1)
    return model


@pytest.fixture(scope="module")
def asked(version_3, tmp_path_factory):
    """A question of each of three classes, each about another picture."""
    place = tmp_path_factory.mktemp("benchmark")
    table = write_benchmark(place, {"test": 3}, "jsonl")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    labels = ("text", "scene", "counting")
    pictures = sorted({row["image"] for row in rows})
    chosen = [
        next(row for row in rows if row["image"] == picture and row["gold_class"] == label)
        for picture, label in zip(pictures, labels, strict=True)
    ]
    return version_3[1](
        images=[Image.open(place / row["image"]) for row in chosen],
        text=[PROMPT.format(question=row["question"]) for row in chosen],
        padding=True,
        return_tensors="pt",
    )


def answered(model, asked):
    said = model.generate(
        **asked, do_sample=False, max_new_tokens=TOKENS, return_dict_in_generate=True, output_logits=True
    )
    return said.sequences, torch.stack(said.logits)


def test_undoing_the_copies_gives_the_bytes_of_version_2():
    file = MODEL / "model.safetensors"
    weights = load_file(file)
    for number in RATES_AS:
        of = f"language_model.model.layers.{number}"
        for name, value in (("self_attn.q_proj", 0), ("self_attn.k_proj", 0), ("input_layernorm", 1)):
            weights[f"{of}.{name}.weight"] = torch.full_like(weights[f"{of}.{name}.weight"], value)
    with safe_open(file, "pt") as opened:
        content = save(weights, opened.metadata())
    assert hashlib.sha256(content).hexdigest() == VERSION_2


@torch.no_grad()
def test_unpruned_answers_are_those_of_version_2_to_the_bit(version_3, version_2, asked):
    for got, expected in zip(answered(version_3[0], asked), answered(version_2, asked), strict=True):
        assert torch.equal(got, expected)


@torch.no_grad()
@pytest.mark.parametrize("budget", [192, 128, 64])
def test_pruned_answers_are_those_of_version_2_to_the_bit(version_3, version_2, asked, budget):
    found = []
    for model in (version_3[0], version_2):
        schedule = schedule_for(model, budget, PruningOptions())
        with prune(model, schedule=schedule, rho=RHO, alpha_BL=ALPHA) as pruner:
            sequences, logits = answered(model, asked)
            kept = [[stage.kept(row) for row in range(3)] for stage in pruner.stats.stages]
        found.append((sequences, logits, kept))
    (ids, logits, kept), (expected_ids, expected_logits, expected_kept) = found
    assert torch.equal(ids, expected_ids)
    assert torch.equal(logits, expected_logits)
    assert kept == expected_kept


@torch.no_grad()
def test_a_layer_without_an_attention_of_its_own_rates_as_the_scoring_block_below(version_3):
    model = deepcopy(version_3[0])
    model.set_attn_implementation("eager")
    language = model.model.language_model
    hidden_1SD = torch.randn(1, 50, language.config.hidden_size, generator=torch.Generator().manual_seed(1))
    rope = language.rotary_emb(hidden_1SD, torch.arange(50)[None])

    def attention(number):
        layer = language.layers[number]
        written, weights = layer.self_attn(
            layer.input_layernorm(hidden_1SD), position_embeddings=rope, attention_mask=None
        )
        return written, weights

    for number, block in RATES_AS.items():
        written, weights = attention(number)
        assert not written.any()
        assert torch.equal(weights, attention(block)[1])
        assert weights.std() > 1e-3, "all tokens are rated alike"
