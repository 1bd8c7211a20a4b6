"""Intervals by picture: resampled, against the slow obvious way and the truth; from counts where that is no use."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.studies.intervals import Clusters, interval, macro_interval, resampled_interval
from clasp_calib.common.shares import FEW, LEVEL, difference_interval, share_interval

NESTED = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=14)


def flat(nested):
    scores = np.array([score for of in nested for score in of], dtype=np.float64)
    return scores, [picture for picture, of in enumerate(nested) for _ in of]


@given(NESTED)
@settings(deadline=None, max_examples=50)
def test_weights_draw_whole_pictures(nested):
    _, pictures = flat(nested)
    weights = Clusters.of(pictures, seed=1, resamples=20).weights
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
    clusters = Clusters.of(pictures, seed=2, resamples=40)
    means = [np.repeat(scores, counts).mean() for counts in clusters.weights]
    found = interval(scores, clusters, "other")
    assert found.mean == pytest.approx(scores.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert found.samples == len(scores)
    assert 0 <= found.low <= found.high <= 1
    if len(nested) >= FEW and len(set(scores)) == 2:
        assert interval(scores, clusters) == found


@given(NESTED, st.data())
@settings(deadline=None, max_examples=50)
def test_a_macro_interval_weighs_classes_alike(nested, data):
    scores, pictures = flat(nested)
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores))))
    clusters = Clusters.of(pictures, seed=3, resamples=30)
    means = []
    for counts in clusters.weights:
        of = []
        for group in sorted(set(groups)):
            drawn = np.repeat(scores[groups == group], counts[groups == group])
            of.append((drawn if len(drawn) else scores[groups == group]).mean())
        means.append(np.mean(of))
    found = macro_interval(scores, groups, clusters, "other")
    assert found.mean == pytest.approx(np.mean([scores[groups == g].mean() for g in sorted(set(groups))]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_same_seed_same_interval():
    pictures = [0, 0, 1, 2, 3]
    assert (Clusters.of(pictures, 5).weights == Clusters.of(pictures, 5).weights).all()
    assert (Clusters.of(pictures, 5).weights != Clusters.of(pictures, 6).weights).any()


def coverage(by_picture: bool) -> float:
    """Share of simulated tables whose interval holds the true mean; questions share their picture's difficulty."""
    rng = np.random.default_rng(0)
    hits, tables, pictures, questions = 0, 200, 60, 4
    for _ in range(tables):
        difficulty = rng.beta(0.5, 0.5, size=pictures)
        scores = (rng.random((pictures, questions)) < difficulty[:, None]).astype(np.float64).ravel()
        clusters = np.repeat(np.arange(pictures), questions) if by_picture else np.arange(len(scores))
        found = interval(scores, Clusters.of(clusters.tolist(), seed=0, resamples=300))
        hits += found.low <= 0.5 <= found.high
    return hits / tables


def test_intervals_by_picture_cover_the_truth_as_often_as_they_say():
    assert abs(coverage(by_picture=True) - LEVEL) < 0.04


def test_intervals_by_question_would_be_too_narrow():
    assert coverage(by_picture=False) < LEVEL - 0.1


@pytest.mark.parametrize(
    ("right", "of", "expected"),
    # Wilson's interval as R's prop.test(right, of, correct = FALSE) gives it.
    [(2, 2, (0.3424, 1)), (0, 3, (0, 0.5615)), (1, 3, (0.0615, 0.7923)), (9, 9, (0.7008, 1)), (30, 30, (0.8865, 1))],
)
def test_few_or_equal_scores_have_the_interval_of_a_share(right, of, expected):
    scores = np.array([1.0] * right + [0.0] * (of - right))
    found = interval(scores, Clusters.of(range(of), seed=0))
    assert (found.low, found.high) == pytest.approx(expected, abs=2e-4)
    macro = macro_interval(scores, np.zeros(of, dtype=int), Clusters.of(range(of), seed=0))
    assert (macro.low, macro.high) == pytest.approx(expected, abs=2e-4)
    assert share_interval(right / of, of) == pytest.approx(expected, abs=2e-4)


def test_questions_about_one_picture_are_no_further_evidence():
    scores = np.ones(40)
    found = interval(scores, Clusters.of([number // 20 for number in range(40)], seed=0))
    assert (found.low, found.samples) == (share_interval(1.0, 2)[0], 40)


@pytest.mark.parametrize("gains", [[0.0, 0.0], [0.0] * 50, [1.0, 1.0], [-1.0] * 3, [1.0, -1.0, 0.0], [0.5] * 12])
def test_a_paired_gain_is_as_unsure_as_what_did_not_happen(gains):
    scores, clusters = np.array(gains), Clusters.of(range(len(gains)), seed=0)
    found = interval(scores, clusters, "gains")
    mirrored = interval(-scores, clusters, "gains")
    assert found.mean == scores.mean()
    assert -1 <= found.low < found.mean + 1e-9
    assert found.mean - 1e-9 < found.high <= 1
    assert found.high - found.low > 0.05
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_a_class_that_says_little_widens_the_mean_over_classes():
    rng = np.random.default_rng(0)
    sure, pictures = (rng.random(200) < 0.5).astype(float), list(range(200))
    alone = macro_interval(sure, np.zeros(200, dtype=int), Clusters.of(pictures, 0))
    scores, groups = np.append(sure, [1.0, 1.0]), np.array([0] * 200 + [1] * 2)
    both = macro_interval(scores, groups, Clusters.of([*pictures, "a", "b"], 0))
    assert alone.high - alone.low < 0.15
    assert both.mean == pytest.approx((sure.mean() + 1) / 2)
    assert both.mean - both.low == pytest.approx(
        np.hypot(alone.mean - alone.low, 1 - share_interval(1.0, 2)[0]) / 2, rel=0.1
    )
    assert both.high - both.mean < alone.high - alone.mean


def coverage_of_few(pictures: int, truth: float, gains: bool, resampled: bool = False) -> float:
    """Share of simulated tables of few pictures whose interval holds the true mean."""
    rng, hits, tables = np.random.default_rng(1), 0, 400
    for _ in range(tables):
        one, other = ((rng.random(pictures) < p).astype(float) for p in (truth, 0.5))
        scores, kind, expected = (one - other, "gains", truth - 0.5) if gains else (one, "shares", truth)
        found = interval(scores, Clusters.of(range(pictures), seed=0, resamples=200), "other" if resampled else kind)
        hits += found.low <= expected <= found.high
    return hits / tables


@pytest.mark.parametrize("gains", [False, True])
@pytest.mark.parametrize("pictures", [2, 4, 8])
def test_intervals_of_few_pictures_cover_the_truth(pictures, gains):
    counted, resampled = (
        [coverage_of_few(pictures, truth, gains, how) for truth in (0.5, 0.8, 0.95)] for how in (False, True)
    )
    # Counts are few, so that no interval covers exactly as often as it says (Brown, Cai and DasGupta 2001).
    assert min(counted) > LEVEL - 0.1
    assert min(resampled) < min(counted)


def test_a_corpus_metric_that_cannot_vary_is_a_share():
    same = resampled_interval(2.0, np.full(100, 2.0), 6, 3, top=2.0)
    assert (same.low, same.high) == (2 * share_interval(1.0, 3)[0], 2.0)
    varied = np.linspace(0, 1, 101)
    assert resampled_interval(0.5, varied, 60, 30).low == pytest.approx(0.025)
    assert resampled_interval(0.5, varied, 60, 5).low == share_interval(0.5, 5)[0]


def test_a_difference_of_none_is_at_most_what_could_have_been_missed():
    low, high = difference_interval(0, 0, 100)
    assert high == -low == pytest.approx(share_interval(0, 100)[1])
