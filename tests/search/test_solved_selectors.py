"""Selectors that are solved for a budget cost what it says, whatever their other knobs; others are refused."""

from dataclasses import dataclass
from math import isfinite

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tiny_models import tiny_batch, tiny_llava

from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.baselines.prumerge import PruMerge
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common import plugins
from clasp_calib.common.errors import InputError
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.runtime.selectors import selected, selector_of
from clasp_calib.search.solved_selectors import solved_choice, solved_for

ODD = st.sampled_from([float("inf"), float("nan")])
SHARES = st.floats(0, 1) | ODD
PIVOTS = st.integers(0, 20)


def three(numbers):
    return st.tuples(numbers, numbers, numbers)


KNOBS = {
    "fastv": st.fixed_dictionaries({"layer": st.integers(1, 2)}),
    "vispruner": st.fixed_dictionaries({"important": SHARES}),
    "scope": st.fixed_dictionaries({"alpha": st.floats(0, 1e308) | ODD}),
    "holov": st.fixed_dictionaries({"strips": st.integers(1, 10**12), "alpha": st.floats(0, 1e20) | ODD}),
    "sparsevlm-v2": st.fixed_dictionaries({"heads": SHARES}),
    "dart": st.fixed_dictionaries({"image_pivots": PIVOTS, "text_pivots": PIVOTS}).filter(lambda of: any(of.values())),
    "btp": st.fixed_dictionaries(
        {
            "diversity": three(SHARES),
            "attention": three(SHARES),
            "candidates": three(st.floats(1, 1e308) | ODD),
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
    """To half a token: each layer works on a whole number. Those that are not finite are refused."""
    knobs = data.draw(KNOBS[name])
    choice = SelectorChoice.of(name, knobs)
    if not all(isfinite(one) for of in knobs.values() for one in (of if isinstance(of, tuple) else (of,))):
        with pytest.raises(InputError, match=f" of {name} is "):
            solved_choice(choice, model, parse_budget("9"), filmed=False)
        return
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
class Scored(DivPrune):
    def marked(self, model, image):
        return super().marked(model, image)


@dataclass(frozen=True)
class Entered(PruMerge):
    """No `InputMethod`, though it chooses before the decoder."""

    def solved(self, adapter, budget):
        return self

    def on_marked(self, model, adapter):
        return super().on_marked(model, adapter)


@dataclass(frozen=True)
class Fails(DivPrune):
    def solved(self, adapter, budget):
        return 1 / 0


@pytest.mark.parametrize(
    ("kind", "knobs", "message"),
    [
        (Served, {"keep": "9"}, r"'other' chooses before the decoder, and has its own attached\(\)\..* in kept\(\)"),
        (Scored, {"keep": "9"}, r"and has its own marked\(\)"),
        (Entered, {}, r"and has its own on_marked\(\)"),
        (
            Fails,
            {"keep": "9"},
            r"other keep=9 cannot be solved for a budget of 8 \(ZeroDivisionError: .*take another selector",
        ),
    ],
)
def test_somebody_elses_that_cannot_be_searched_are_refused_by_name(model, monkeypatch, kind, knobs, message):
    point = type("Point", (), {"load": lambda self: kind, "dist": None, "value": "others:Other"})
    monkeypatch.setattr(plugins, "brought", lambda _: {"other": [point()]})
    with pytest.raises(InputError, match=message):
        solved_choice(SelectorChoice.of("other", knobs), model, parse_budget("8"), filmed=False)


def test_no_package_may_call_its_selector_clasp(model, monkeypatch):
    point = type("Point", (), {"dist": None, "value": "others:Other"})()
    monkeypatch.setattr(plugins, "brought", lambda _: {"clasp": [point]})
    with pytest.raises(InputError, match="selector 'clasp' is brought by clasp-calib and others:Other; remove one"):
        solved_for([Candidate("own", (0.0, 1.0), 1.0)], model, parse_budget("8"), filmed=False)
