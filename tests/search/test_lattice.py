"""The simplex lattice: all of it, once, and as a space."""

from itertools import product
from math import comb

import pytest
from hypothesis import given, strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.search.lattice import lattice
from clasp_calib.search.space import default_space


def slow_lattice(layers, steps):
    """Of all ways to give each layer a part those that sum to the whole."""
    for parts in product(range(steps + 1), repeat=len(layers)):
        if sum(parts) == steps:
            yield {layer: part / steps for layer, part in zip(layers, parts, strict=True) if part}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True), st.integers(1, 6))
def test_it_holds_every_mixture_once(layers, steps):
    found = list(lattice(layers, steps))
    assert len(found) == comb(len(layers) + steps - 1, steps)
    assert sorted(map(sorted, map(dict.items, found))) == sorted(
        map(sorted, map(dict.items, slow_lattice(layers, steps)))
    )


def test_a_space_gains_what_it_lacks():
    space = default_space((3, 9, 15, 20, 23), 23)
    wide = space.with_lattice(4)
    assert wide.prototypes[: len(space.prototypes)] == space.prototypes
    # Of the 70 mixtures, own, deep, middle, hybrid and hybrid-light are there; uniform in fifths is not one of them.
    assert len(wide.prototypes) == 6 + 70 - 5
    assert "lattice 0.25*3+0.75*9" in {p.name for p in wide.prototypes}
    assert len(wide.candidates(24, 23)) == len(wide.prototypes) * 4
    assert wide.digest != space.digest


def test_a_lattice_that_is_too_big_is_refused():
    with pytest.raises(InputError, match=r"a lattice of 6 steps over 25 layers has 593775 mixtures, more than 20000"):
        next(lattice(range(25), 6))
