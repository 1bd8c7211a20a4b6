"""The sign-flip test against all patterns of signs, and Holm's adjustment against its definition."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clasp_calib.calib.studies.significance import FLIPS, holm, sign_flip_p


def every_pattern(differences, groups, clusters):
    """The exact p: of all patterns of signs, the share that reaches the macro mean that was seen."""
    names = sorted(set(groups))

    def macro(values):
        return abs(np.mean([np.mean([v for v, g in zip(values, groups, strict=True) if g == name]) for name in names]))

    seen, count, reached = macro(differences), max(clusters) + 1, 0
    for signs in product((1, -1), repeat=count):
        reached += macro([d * signs[c] for d, c in zip(differences, clusters, strict=True)]) >= seen - 1e-12
    return reached / 2**count


@given(st.lists(st.tuples(st.sampled_from([-1, -0.5, 0, 0.5, 1]), st.integers(0, 1), st.integers(0, 6)), min_size=2))
def test_as_all_patterns_say(rows):
    differences, groups, clusters = (list(column) for column in zip(*rows, strict=True))
    groups = np.unique(groups, return_inverse=True)[1]
    clusters = np.unique(clusters, return_inverse=True)[1]
    (p,) = sign_flip_p(np.array([differences], dtype=float), groups, clusters, 0)
    exact = every_pattern(differences, groups, clusters)
    # Five standard errors of a share of random patterns.
    assert p == pytest.approx(exact, abs=5 * (max(exact * (1 - exact), 1e-4) / FLIPS) ** 0.5 + 1 / FLIPS)


def test_settings_that_are_the_same_differ_by_chance_only():
    (p,) = sign_flip_p(np.zeros((1, 4)), np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), 0)
    assert p == 1


def test_no_difference_is_found_too_often_where_there_is_none():
    rng, alarms = np.random.default_rng(0), 0
    groups, clusters = np.arange(80) % 4, np.arange(80) // 8
    differences = rng.choice([-1.0, 0.0, 1.0], (400, 80), p=[0.1, 0.8, 0.1])
    alarms = int((sign_flip_p(differences, groups, clusters, 1) < 0.05).sum())
    assert 5 <= alarms <= 36


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=6))
def test_holm_rejects_as_its_steps_do(values):
    """At every level: the smallest of m against level / m, the next against level / (m - 1), until one stands."""
    p = {str(number): value for number, value in enumerate(values)}
    adjusted = holm(p)
    assert list(adjusted) == list(p)
    for level in (0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for place, name in enumerate(sorted(p, key=p.get)):
            if p[name] * (len(p) - place) > level:
                break
            rejected.add(name)
        assert {name for name, value in adjusted.items() if value <= level} == rejected
