"""The posterior over classes against the same Gaussian model written out densely on raw scores, and what it must not
depend on."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search import evidence, hierarchy
from clasp_calib.search.belief import believe, kernels, signal

SEEDS = st.integers(0, 10**6)
MEASURED = st.sampled_from([1.0, 0.6, 0.2])


def grid_of(count, seed=1):
    rng = np.random.default_rng(seed)
    return [Candidate(str(i), tuple(rng.dirichlet(np.ones(3))), float(rng.random())) for i in range(count)]


def made(sizes, count, seed, measured=1.0):
    """Tables of candidates that differ, with NaN where they were not measured."""
    rng = np.random.default_rng(seed)
    shared = 0.1 * rng.standard_normal(count)
    tables = []
    for size in sizes:
        table = shared + 0.1 * rng.standard_normal(count) + rng.normal(0.5, 0.3, (size, 1))
        table = table + 0.2 * rng.standard_normal((size, count))
        tables.append(np.where(rng.random(table.shape) < measured, table, np.nan))
    return tables


def contrasts(count):
    """[count - 1, count] orthonormal rows that sum to 0."""
    return np.linalg.svd(np.eye(count) - 1 / count)[2][: count - 1]


def noise_by_regression(tables):
    """Variance about a free level for each sample and a mean for each candidate, by dummy variables."""
    squares, freedom = [], []
    for table in tables:
        n, count = table.shape
        at = np.argwhere(~np.isnan(table))
        design = np.zeros((len(at), n + count))
        design[np.arange(len(at)), at[:, 0]] = 1
        design[np.arange(len(at)), n + at[:, 1]] = 1
        value = table[~np.isnan(table)]
        fit = design @ np.linalg.lstsq(design, value)[0]
        squares.append(((value - fit) ** 2).sum())
        freedom.append(len(at) - np.linalg.matrix_rank(design))
    common = (sum(squares) + 1e-4) / max(1, sum(freedom))
    return [(s + 10 * common) / (f + 10) for s, f in zip(squares, freedom, strict=True)]


def dense_posterior(tables, covariances):
    """Mean [K, C] and covariance [K, C, C]: every point of the grid and every sample by itself."""
    groups, count = len(tables), tables[0].shape[1]
    noises = noise_by_regression(tables)
    observe, seen, spread = [], [], []
    for group, (table, noise) in enumerate(zip(tables, noises, strict=True)):
        for row in table:
            known = np.flatnonzero(~np.isnan(row))
            if len(known) < 2:
                continue
            place = np.zeros((len(known), groups * count))
            place[np.arange(len(known)), group * count + known] = 1
            observe.append(contrasts(len(known)) @ place)
            seen.append(contrasts(len(known)) @ row[known])
            spread += [noise] * (len(known) - 1)
    observe, seen, spread = np.vstack(observe), np.concatenate(seen), np.diag(spread)
    grid = np.mean(noises) * hierarchy.VARIANCES
    logs, means, seconds = [], [], []
    for kernel, shared, own in product(covariances, grid if groups > 1 else [0.0], grid):
        prior = np.kron(np.full((groups, groups), shared) + own * np.eye(groups), kernel)
        total = observe @ prior @ observe.T + spread
        logs.append(-0.5 * (seen @ np.linalg.solve(total, seen) + np.linalg.slogdet(total)[1]))
        gain = prior @ observe.T @ np.linalg.inv(total)
        means.append(gain @ seen)
        seconds.append(prior - gain @ observe @ prior + np.outer(means[-1], means[-1]))
    weight = np.exp(np.array(logs) - max(logs))
    weight /= weight.sum()
    mean = np.tensordot(weight, means, 1)
    covariance = (np.tensordot(weight, seconds, 1) - np.outer(mean, mean)).reshape(groups, count, groups, count)
    return mean.reshape(groups, count), np.array([covariance[k, :, k] for k in range(groups)])


@pytest.mark.parametrize("measured", [1.0, 0.5])
@pytest.mark.parametrize("sizes", [(12, 5, 3), (10,)])
def test_the_belief_is_that_of_the_model_written_out(monkeypatch, sizes, measured):
    monkeypatch.setattr(hierarchy, "NEGLIGIBLE", 0.0)
    tables, covariances = made(sizes, 5, 3, measured), kernels(grid_of(5))
    belief = believe(tables, covariances)
    mean, covariance = dense_posterior(tables, covariances)
    assert belief.mean == pytest.approx(mean, abs=1e-7)
    for group in range(len(tables)):
        draws = belief.draws(40_000, group, np.random.default_rng(0))
        scale = covariance[group].diagonal().max()
        assert draws.mean(0) == pytest.approx(mean[group], abs=0.03 * scale**0.5)
        assert np.cov(draws.T) == pytest.approx(covariance[group], abs=0.05 * scale)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), MEASURED, SEEDS)
@settings(deadline=None, max_examples=40)
def test_noise_is_that_of_a_regression_on_samples_and_candidates(sizes, measured, seed):
    tables = made(sizes, 4, seed, measured)
    found = [i.noise for i in evidence.information(tables)]
    assert found == pytest.approx(noise_by_regression(tables))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), MEASURED, SEEDS)
@settings(deadline=None, max_examples=25)
def test_orders_do_not_matter(sizes, measured, seed):
    rng = np.random.default_rng(seed)
    tables, candidates = made(sizes, 5, seed, measured), grid_of(5)
    classes, columns = rng.permutation(len(sizes)), rng.permutation(5)
    exchanged = [tables[k][rng.permutation(sizes[k])][:, columns] for k in classes]
    mean = believe(tables, kernels(candidates)).mean
    turned = believe(exchanged, kernels([candidates[c] for c in columns])).mean
    assert turned == pytest.approx(mean[classes][:, columns], abs=1e-7)


@given(MEASURED, SEEDS)
@settings(deadline=None, max_examples=25)
def test_levels_of_samples_do_not_matter(measured, seed):
    tables = made([6, 4], 4, seed, measured)
    shifted = [table + np.random.default_rng(seed).normal(size=(len(table), 1)) for table in tables]
    assert believe(shifted, kernels(grid_of(4))).mean == pytest.approx(
        believe(tables, kernels(grid_of(4))).mean, abs=1e-7
    )


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_a_sample_with_one_candidate_says_nothing(seed):
    tables = made([6, 4], 4, seed)
    alone = np.full((3, 4), np.nan)
    alone[:, 2] = 1.0
    longer = [np.vstack([tables[0], alone]), tables[1]]
    assert np.array_equal(believe(longer, kernels(grid_of(4))).mean, believe(tables, kernels(grid_of(4))).mean)


def test_of_equal_candidates_the_lower_number_leads():
    candidates = grid_of(4)
    candidates[2] = replace(candidates[1], prototype="twin")
    tables = made([30, 10], 4, 3)
    for table in tables:
        table[:, [1, 2]] = 1.0 + table[:, [3]]
    belief = believe(tables, kernels(candidates))
    assert (belief.leader(0), belief.leader(1)) == (1, 1)
    draws = belief.draws(1000, 0, np.random.default_rng(0))
    assert draws[:, 1].mean() == pytest.approx(draws[:, 2].mean(), abs=1e-9)


def test_nothing_measured_leaves_all_equal_and_the_default_leading():
    belief = believe([np.empty((0, 3)), np.full((2, 3), np.nan)], kernels(grid_of(3)))
    assert np.array_equal(belief.mean, np.zeros((2, 3)))
    assert belief.leader(1) == 0


def test_equal_generators_draw_the_same():
    belief = believe(made([8, 8], 4, 1), kernels(grid_of(4)))
    first, second = (belief.draws(50, 1, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(first, second)


@given(st.integers(1, 12), SEEDS)
@settings(deadline=None)
def test_kernels_are_covariances_of_one_scale(count, seed):
    found = kernels(grid_of(count, seed))
    assert np.linalg.eigvalsh(found).min() > -1e-9
    centre = np.eye(count) - 1 / count
    for kernel in found:
        assert np.trace(centre @ kernel @ centre) == pytest.approx(max(1, count - 1) if count > 1 else 0)


def test_the_signal_is_the_mean_of_score_and_likelihood_where_both_are_known():
    score = np.array([[1.0, 0.0, np.nan], [1.0, 1.0, 0.0]])
    nll = np.array([[0.0, np.log(2), np.nan], [0.5, np.nan, 0.5]])
    assert signal(score, nll) == pytest.approx(np.array([[1.0, 0.25, np.nan], [1.0, 1.0, 0.0]]), nan_ok=True)
    assert signal(score, None) is score
