"""Bootstrap intervals by picture, against the slow obvious way and against the truth."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.studies.intervals import LEVEL, bootstrap_weights, interval, macro_interval

NESTED = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=8)


def flat(nested):
    scores = np.array([score for of in nested for score in of], dtype=np.float64)
    return scores, [picture for picture, of in enumerate(nested) for _ in of]


@given(NESTED)
@settings(deadline=None, max_examples=50)
def test_weights_draw_whole_pictures(nested):
    _, pictures = flat(nested)
    weights = bootstrap_weights(pictures, seed=1, resamples=20)
    assert weights.shape == (20, len(pictures))
    for picture in set(pictures):
        columns = weights[:, [p == picture for p in pictures]]
        assert (columns == columns[:, :1]).all()
    first = [pictures.index(picture) for picture in dict.fromkeys(pictures)]
    assert (weights[:, first].sum(1) == len(nested)).all()


@given(NESTED)
@settings(deadline=None, max_examples=50)
def test_an_interval_is_what_resampling_one_by_one_gives(nested):
    scores, pictures = flat(nested)
    weights = bootstrap_weights(pictures, seed=2, resamples=40)
    means = [np.repeat(scores, counts).mean() for counts in weights if counts.sum()]
    found = interval(scores, weights)
    assert found.mean == pytest.approx(scores.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert found.samples == len(scores)
    assert 0 <= found.low <= found.high <= 1


@given(NESTED, st.data())
@settings(deadline=None, max_examples=50)
def test_a_macro_interval_weighs_classes_alike(nested, data):
    scores, pictures = flat(nested)
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores))))
    weights = bootstrap_weights(pictures, seed=3, resamples=30)
    means = []
    for counts in weights:
        of = []
        for group in sorted(set(groups)):
            drawn = np.repeat(scores[groups == group], counts[groups == group])
            of.append((drawn if len(drawn) else scores[groups == group]).mean())
        means.append(np.mean(of))
    found = macro_interval(scores, groups, weights)
    assert found.mean == pytest.approx(np.mean([scores[groups == g].mean() for g in sorted(set(groups))]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_same_seed_same_interval():
    pictures = [0, 0, 1, 2, 3]
    assert (bootstrap_weights(pictures, 5) == bootstrap_weights(pictures, 5)).all()
    assert (bootstrap_weights(pictures, 5) != bootstrap_weights(pictures, 6)).any()


def coverage(by_picture: bool) -> float:
    """Share of simulated tables whose interval holds the true mean; questions share their picture's difficulty."""
    rng = np.random.default_rng(0)
    hits, tables, pictures, questions = 0, 200, 60, 4
    for _ in range(tables):
        difficulty = rng.beta(0.5, 0.5, size=pictures)
        scores = (rng.random((pictures, questions)) < difficulty[:, None]).astype(np.float64).ravel()
        clusters = np.repeat(np.arange(pictures), questions) if by_picture else np.arange(len(scores))
        found = interval(scores, bootstrap_weights(clusters.tolist(), seed=0, resamples=300))
        hits += found.low <= 0.5 <= found.high
    return hits / tables


def test_intervals_by_picture_cover_the_truth_as_often_as_they_say():
    assert abs(coverage(by_picture=True) - LEVEL) < 0.04


def test_intervals_by_question_would_be_too_narrow():
    assert coverage(by_picture=False) < LEVEL - 0.1
