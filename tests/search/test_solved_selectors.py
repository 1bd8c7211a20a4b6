"""Selectors that are solved for a budget cost what it says, whatever their other knobs; others are refused."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tiny_models import tiny_batch, tiny_llava

from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.common import plugins
from clasp_calib.common.errors import InputError
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.runtime.selectors import selected, selector_of
from clasp_calib.search.solved_selectors import solved_choice

SHARES = st.floats(0, 1)
WEIGHTS = st.floats(0, 1e38)
PIVOTS = st.integers(0, 20)


def three(numbers):
    return st.tuples(numbers, numbers, numbers)


KNOBS = {
    "fastv": st.fixed_dictionaries({"layer": st.integers(1, 2)}),
    "vispruner": st.fixed_dictionaries({"important": SHARES}),
    "scope": st.fixed_dictionaries({"alpha": WEIGHTS}),
    "holov": st.fixed_dictionaries({"strips": st.integers(1, 10**12), "alpha": WEIGHTS}),
    "sparsevlm-v2": st.fixed_dictionaries({"heads": SHARES}),
    "dart": st.fixed_dictionaries({"image_pivots": PIVOTS, "text_pivots": PIVOTS}).filter(lambda of: any(of.values())),
    "btp": st.fixed_dictionaries(
        {
            "diversity": three(SHARES),
            "attention": three(SHARES),
            "candidates": three(st.floats(1, 1e308)),
            "cells": SHARES,
        }
    ),
}


@pytest.fixture(scope="module")
def model():
    return tiny_llava(decoder_layers=5)


@pytest.mark.parametrize("name", KNOBS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_knobs_in_their_ranges_cost_what_the_budget_says(model, name, data):
    """To half a token: each layer works on a whole number."""
    choice = SelectorChoice.of(name, data.draw(KNOBS[name]))
    found = selector_of(solved_choice(choice, model, parse_budget("9"), filmed=False))
    with selected(model, found, None) as pruned, torch.no_grad():
        model(**tiny_batch(model))
    assert pruned.stats.mean_tokens == pytest.approx([9] * len(pruned.stats.mean_tokens), abs=0.5)


@dataclass(frozen=True)
class Served(DivPrune):
    """Would be served as it is not scored."""

    def attached(self, model, adapter, prompt_lengths):
        return super().attached(model, adapter, prompt_lengths)


@dataclass(frozen=True)
class Fails(DivPrune):
    def solved(self, adapter, budget):
        return 1 / 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Served, r"'other' is an InputMethod with an attached\(\) of its own, .*; let it derive from Method"),
        (Fails, r"other keep=9 cannot be solved for a budget of 8 \(ZeroDivisionError: .*take it out of the space"),
    ],
)
def test_somebody_elses_that_cannot_be_searched_are_refused_by_name(model, monkeypatch, kind, message):
    point = type("Point", (), {"load": lambda self: kind})
    monkeypatch.setattr(plugins, "brought", lambda _: {"other": [point()]})
    with pytest.raises(InputError, match=message):
        solved_choice(SelectorChoice.of("other", {"keep": "9"}), model, parse_budget("8"), filmed=False)
