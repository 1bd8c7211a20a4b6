import math
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from slow_ranking import cosine, order

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from architectures import CASES as MODELS, together

from clasp_calib.baselines.mechanisms import row_stages
from clasp_calib.baselines.mustdrop import MustDrop, dual_attention, key_tokens, merged_windows
from clasp_calib.common.errors import BudgetError


def reference_windows(features, rows, columns, threshold, side):
    windows = []
    for top in range(0, rows - side + 1, side):
        for left in range(0, columns - side + 1, side):
            windows.append([(top + y) * columns + left + x for y in range(side) for x in range(side)])
    alike = []
    for window in windows:
        pairs = [cosine(features[a], features[b]) for a in window for b in window if a != b]
        alike.append(sum(pairs) / len(pairs))
    merged = [w for w in order(alike) if alike[w] >= threshold]
    tokens, into = [], [None] * len(features)
    for w in merged:
        tokens.append([sum(float(features[i][c]) for i in windows[w]) / side**2 for c in range(len(features[0]))])
        for i in windows[w]:
            into[i] = len(tokens) - 1
    for i in range(len(features)):
        if into[i] is None:
            tokens.append([float(x) for x in features[i]])
            into[i] = len(tokens) - 1
    return tokens, into


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(3, 8), columns=st.integers(3, 8), spread=st.floats(0.05, 2))
def test_windows_equal_the_slow_reference(seed, rows, columns, spread):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((rows + 2) // 3, (columns + 2) // 3, 6, generator=generator)
    features = coarse.repeat_interleave(3, 0)[:rows].repeat_interleave(3, 1)[:, :columns].reshape(-1, 6)
    features = features + spread * torch.randn(rows * columns, 6, generator=generator)
    tokens, into = merged_windows(features, (rows, columns))
    expected, expected_into = reference_windows(features.double(), rows, columns, 0.8, 3)
    assert into.tolist() == expected_into
    assert torch.allclose(tokens.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5)


def test_a_plain_picture_becomes_its_windows():
    tokens, into = merged_windows(torch.ones(576, 4), (24, 24))
    assert len(tokens) == 64
    assert into[:4].tolist() == [0, 0, 0, 1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.integers(1, 6), tokens=st.integers(1, 40), cut=st.floats(0, 0.2))
def test_who_stays_equals_the_slow_reference(seed, text, tokens, cut):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(text, tokens, generator=generator, dtype=torch.float64) / tokens
    attention = (attention * 64).round() / 64  # many equal, many nothing
    keys = key_tokens(attention[0])
    assert keys.nonzero().flatten().tolist() == sorted(order(attention[0].tolist())[: math.ceil(0.08 * tokens)])
    stay = dual_attention(attention, keys, cut, cut / 4)
    every = sum(float(a) for row in attention for a in row)
    for j in range(tokens):
        column = [float(attention[t, j]) for t in range(text)]
        dropped = sum(column) < cut * every and max(column) < cut / 4
        assert bool(stay[j]) == (not dropped or bool(keys[j]))


def prefill(method, inputs):
    with method(MODELS["llava"].model(), native="default") as run, torch.no_grad():
        output = MODELS["llava"].model()(**inputs)
    return output.past_key_values.layers, run.stats


def test_the_cache_forgets_what_did_not_survive(monkeypatch):
    """Layers 1 to 3 of 8 (2 to 14 of 32) hold the very keys of the survivors, the layers before them all."""
    method = replace(MustDrop(), total=0.06, single=0.06)
    inputs = together(MODELS["llava"].rows((1, 2)))
    held, stats = prefill(method, inputs)
    monkeypatch.setattr(row_stages.RowPrefill, "finish", lambda *_: None)
    whole, _ = prefill(method, inputs)
    entered, survived = [row[0] for row in stats.tokens], [row[-1] for row in stats.tokens]
    assert all(a > b > 0 for a, b in zip(entered, survived, strict=True))
    text = [int((ids > 6).sum() + 1) for ids in inputs["input_ids"]]
    starts = [stage.start for stage in stats.stages]
    assert starts == [1, 2, 3, 4, 5]
    for layer in range(8):
        kept = max(t + (s if layer >= starts[0] else e) for t, s, e in zip(text, survived, entered, strict=True))
        assert held[layer].keys.shape[2] == kept
        for row, (words, left) in enumerate(zip(text, survived, strict=True)):
            if layer >= starts[0]:
                there = {tuple(key.flatten().tolist()) for key in whole[layer].keys[row].transpose(0, 1)}
                mine = held[layer].keys[row].transpose(0, 1)[-(words + left) :]
                assert {tuple(key.flatten().tolist()) for key in mine} <= there
                assert torch.equal(mine[-5:], whole[layer].keys[row].transpose(0, 1)[-5:])


def entered(inputs, alike):
    """What enters the decoder of every row, and the logits of its last token."""
    with replace(MustDrop(), alike=alike)(MODELS["llava"].model(), native="default") as run, torch.no_grad():
        logits = MODELS["llava"].model()(**inputs).logits[:, -1]
    return [row[0] for row in run.stats.tokens], logits


def test_windows_shorten_every_picture_by_itself():
    """At some likeness the one window of one picture is merged and that of the other is not."""
    inputs = together(MODELS["llava"].rows((1, 1)))
    found = {alike: entered(inputs, alike) for alike in np.linspace(0, 1, 41)}
    (alike, both), *_ = [(alike, logits) for alike, (tokens, logits) in found.items() if len(set(tokens)) == 2]
    assert sorted(found[alike][0]) == [8, 16]
    for row in range(2):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()][None]
        one = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        tokens, alone = entered({**one, "pixel_values": inputs["pixel_values"][row : row + 1]}, alike)
        assert tokens == [found[alike][0][row]]
        assert torch.allclose(both[row], alone[0], atol=1e-4)


def test_a_budget_above_what_the_tower_leaves_is_refused():
    """Where every window is merged, 8 tokens enter."""
    images = [MODELS["llava"].row(seed, 1, 1, 1) for seed in range(3)]
    with pytest.raises(BudgetError, match=r"to 8\.0 tokens of these pictures in the mean.* was to work on 12"):
        replace(MustDrop(), alike=-1.0).calibrated(MODELS["llava"].model(), images, 12)


def test_a_generated_token_stands_in_every_layer_behind_what_this_layer_holds():
    model, row = MODELS["llava"].model(), MODELS["llava"].row(3, 3, 1, 7)
    decoder, seen = model.model.language_model, {}
    held, stats = prefill(method := replace(MustDrop(), total=0.06, single=0.06), row)
    lengths = [layer.keys.shape[2] for layer in held]
    assert len(set(lengths)) > 1
    assert stats.tokens[0][0] > stats.tokens[0][-1]

    def note(index, _, __, kwargs):
        if kwargs["position_embeddings"][0].shape[1] == 1:
            seen[index] = kwargs["position_embeddings"][0]

    with method(model, native="default"), ExitStack() as undo:
        for index, layer in enumerate(decoder.layers):
            undo.callback(layer.register_forward_pre_hook(partial(note, index), with_kwargs=True).remove)
        model.generate(**row, max_new_tokens=2, min_new_tokens=2)
    for index, length in enumerate(lengths):
        expected = decoder.rotary_emb(seen[index], torch.tensor([[length]]))[0]
        assert torch.equal(seen[index], expected), index
