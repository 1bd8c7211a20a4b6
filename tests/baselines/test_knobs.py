"""Knobs at which a selector would fail, or keep another number of tokens than it says, are refused when it is made."""

from dataclasses import dataclass, fields, replace

import pytest
import torch
from hypothesis import given, strategies as st
from tiny_models import tiny_batch, tiny_llava

from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.baselines.knobs import require_falling, require_shares, require_starts, require_weight
from clasp_calib.baselines.registry import METHODS, method
from clasp_calib.common.errors import BudgetError, InputError, ModelError
from clasp_calib.runtime.encoding import Kept

NUMBERS = st.floats() | st.sampled_from([0, 1, -1, 0.5])


@dataclass(frozen=True)
class Made:
    name = "made"
    starts: tuple[int, ...] = (2,)
    one: float = 0.5
    some: tuple[float, ...] = ()


def refused(check, made, *args):
    try:
        check(made, *args)
    except InputError:
        return True
    return False


@given(one=NUMBERS, some=st.lists(NUMBERS, max_size=3).map(tuple), starts=st.lists(st.integers(-1, 4), max_size=3))
def test_ranges_are_what_they_say(one, some, starts):
    made = Made(tuple(starts), one, some)
    assert refused(require_shares, made, "one") == (not 0 <= one <= 1)
    assert refused(require_shares, made, "some") == any(not 0 <= share <= 1 for share in some)
    assert refused(require_weight, made, "one") == (not 0 <= one < float("inf"))
    rising = bool(starts) and starts == sorted({*starts}) and starts[0] >= 1
    assert refused(require_starts, made) == (not rising)
    assert refused(require_starts, made, 2) == (not rising or len(starts) != 2)
    falling = list(some) == sorted(some, reverse=True) and all(0 <= share <= 1 for share in some)
    assert refused(require_falling, made, "some") == (not falling or len(some) != len(starts))


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("fastv", {"layer": 0}, "'layer' of fastv is 0; expected a decoder layer from 1 on"),
        ("fastv", {"ratio": 1.5}, r"'ratio' of fastv is 1\.5; expected a share between 0 and 1: change it, or"),
        ("vispruner", {"important": 2.0}, r"'important' of vispruner is 2\.0; expected a share"),
        ("vispruner", {"important": -1.0}, r"'important' of vispruner is -1\.0"),
        ("vispruner", {"important": float("nan")}, "'important' of vispruner is nan"),
        ("scope", {"alpha": -1.0}, r"'alpha' of scope is -1\.0; expected a finite number from 0 up"),
        ("holov", {"strips": 0}, "'strips' of holov is 0; expected at least one"),
        ("holov", {"alpha": float("inf")}, "'alpha' of holov is inf"),
        ("holov", {"alpha": 1e37}, r"'alpha' of holov is 1e\+37; expected a finite number from 0 up to 1e\+20"),
        ("dart", {"starts": (2, 3)}, r"'starts' of dart is \(2, 3\); expected 1 rising decoder layers"),
        ("dart", {"starts": ()}, r"'starts' of dart is \(\)"),
        ("dart", {"kept": -7.0}, r"'kept' of dart is -7\.0"),
        ("dart", {"image_pivots": -2}, "'image_pivots' of dart is -2; expected a number from 0 up"),
        ("dart", {"image_pivots": 4, "text_pivots": -4}, "'text_pivots' of dart is -4"),
        ("dart", {"image_pivots": 0, "text_pivots": 0}, "'image_pivots' of dart is 0; expected at least one pivot of"),
        ("sparsevlm", {"starts": ()}, r"'starts' of sparsevlm is \(\); expected 3 rising"),
        ("sparsevlm", {"counts": (300, 0, 0)}, "'counts' of sparsevlm .* each at least 1"),
        ("sparsevlm", {"share": "x"}, "'share' of sparsevlm is 'x'"),
        ("sparsevlm-v2", {"heads": 2.0}, "'heads' of sparsevlm-v2"),
        ("sparsevlm-v2", {"starts": (3, 3, 4)}, r"'starts' of sparsevlm-v2 is \(3, 3, 4\)"),
        ("pyramiddrop", {"starts": (1,), "ratios": ()}, r"'ratios' of pyramiddrop is \(\); expected 1 shares"),
        ("pyramiddrop", {"ratios": (0.2, 0.3, 0.1)}, "'ratios' of pyramiddrop .* do not grow"),
        ("btp", {"starts": (3, 6)}, r"'starts' of btp is \(3, 6\); expected 4 decoder layers, one for each of its"),
        ("btp", {"starts": (3, 6), "kept": (0.5,)}, "'kept' of btp .* expected 2 shares"),
        ("pyramiddrop", {"starts": (3, 6)}, r"'starts' of pyramiddrop is \(3, 6\); expected 3 decoder layers"),
        ("btp", {"kept": (0.5,)}, "'kept' of btp .* expected 4 shares"),
        ("btp", {"kept": (0.0, 0.0, 0.0, 0.0)}, "'kept' of btp .* above 0 at the first"),
        ("btp", {"diversity": (0.3,)}, r"'diversity' of btp is \(0\.3,\); expected 3 numbers, one for each stage that"),
        ("btp", {"attention": (0.3, 1.9, 1.0)}, "'attention' of btp .* shares between 0 and 1"),
        ("btp", {"candidates": (0.5, 1.0, 1.0)}, "'candidates' of btp .* from 1 up"),
        ("btp", {"candidates": (1.0, float("nan"), 1.0)}, "'candidates' of btp .* finite numbers from 1 up"),
        ("btp", {"candidates": (1.0, float("inf"), 1.0)}, "'candidates' of btp .* finite numbers from 1 up"),
        ("btp", {"cells": -0.5}, r"'cells' of btp is -0\.5"),
        ("btp", {"ranking": "atention"}, "'ranking' of btp is 'atention'; expected one of products, attention"),
    ],
)  # fmt: skip
def test_knobs_out_of_range_are_refused_by_name(name, knobs, message):
    with pytest.raises(InputError, match=message):
        replace(method(name), **knobs)


def test_a_number_of_tokens_is_read_when_a_method_is_made():
    with pytest.raises(BudgetError, match="budget 'nine' is neither"):
        DivPrune(keep="nine")


@pytest.mark.parametrize("name", METHODS)
def test_what_the_authors_set_is_in_range(name):
    plain = method(name)
    for setting in plain.published:
        assert plain.with_native(setting).name == name
    assert replace(plain, **{of.name: getattr(plain, of.name) for of in fields(plain)}) == plain


@pytest.mark.parametrize("more", [-1, 1])
def test_one_that_keeps_another_number_than_it_was_told_is_refused(more):
    class Miscounts(DivPrune):
        def kept(self, image, token_P, count):
            return Kept(token_P[: count + more])

    model = tiny_llava()
    pixels = tiny_batch(model)["pixel_values"][:1]
    told = rf"Miscounts\(keep='9'\) kept {9 + more} of 16 tokens and was to keep 9; change its knobs"
    with torch.no_grad(), Miscounts()(model, budget="9"), pytest.raises(ModelError, match=told):
        model.model.get_image_features(pixels, return_dict=True)
