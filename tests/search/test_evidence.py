"""The posterior of a race against the same model written out densely, and what it must not depend on."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.search import posterior as evidence
from clasp_calib.search.posterior import Evidence, companion, kernels, log_odds, noise, odds_scale

SEEDS = st.integers(0, 10**6)


def made(samples, candidates, seed):
    """Scores and NLLs of candidates that differ."""
    rng = np.random.default_rng(seed)
    margin = (
        rng.normal(0.8, 0.4, candidates) + rng.normal(size=(samples, 1)) + 0.5 * rng.normal(size=(samples, candidates))
    )
    return (margin > 0).astype(float), np.logaddexp(0, -2 * margin)


def grid_of(candidates):
    rng = np.random.default_rng(1)
    return rng.dirichlet(np.ones(3), candidates), rng.random(candidates)


def contrasts(count):
    """[count - 1, count] orthonormal rows that sum to 0."""
    return np.linalg.svd(np.eye(count) - 1 / count)[2][: count - 1]


def dense_posterior(covariances, blocks, between, outputs):
    """Mean [C] and covariance [C, C] of centred mean scores: every point of the grid by itself, nothing factored.

    ``blocks``: (mean [o, m], samples, live, R).
    """
    candidates = covariances.shape[1]
    values, vectors = np.linalg.eigh(between)
    whiten = vectors @ np.diag(values**-0.5) @ vectors.T
    observe, spread, seen = [], [], []
    for mean, count, live, covariance in blocks:
        of = contrasts(len(live)) @ np.eye(candidates)[list(live)]
        observe.append(np.kron(np.eye(outputs), of))
        inner = contrasts(len(live)) @ covariance @ contrasts(len(live)).T
        spread.append(np.kron(between, inner) / count)
        seen.append((mean @ contrasts(len(live)).T).ravel())
    observe, seen = np.vstack(observe), np.concatenate(seen)
    edges = np.cumsum([0, *map(len, spread)])
    noisy = np.zeros((len(seen), len(seen)))
    for part, a, b in zip(spread, edges, edges[1:], strict=False):
        noisy[a:b, a:b] = part
    angles = evidence.ANGLES if outputs == 2 else [0.0]
    each = list(product(range(len(covariances)), evidence.VARIANCES))
    logs, means, seconds = [], [], []
    for angle, *chosen in product(angles, *[each] * outputs):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])[:outputs, :outputs]
        back = np.kron(np.linalg.inv(turn @ whiten), np.eye(candidates))
        prior = np.zeros((outputs * candidates,) * 2)
        for output, (kernel, variance) in enumerate(chosen):
            at = slice(output * candidates, (output + 1) * candidates)
            prior[at, at] = variance * covariances[kernel]
        prior = back @ prior @ back.T
        total = observe @ prior @ observe.T + noisy
        logs.append(-0.5 * (seen @ np.linalg.solve(total, seen) + np.linalg.slogdet(total)[1]))
        gain = prior @ observe.T @ np.linalg.inv(total)
        centre = np.eye(candidates) - 1 / candidates
        mean = centre @ (gain @ seen)[:candidates]
        covariance = centre @ (prior - gain @ observe @ prior)[:candidates, :candidates] @ centre
        means.append(mean)
        seconds.append(covariance + np.outer(mean, mean))
    weight = np.exp(np.array(logs) - max(logs))
    weight /= weight.sum()
    mean = np.tensordot(weight, means, 1)
    return mean, np.tensordot(weight, seconds, 1) - np.outer(mean, mean)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_have_the_moments_of_the_model_written_out(monkeypatch, outputs, seed):
    monkeypatch.setattr(evidence, "VARIANCES", np.array([1e-3, 0.05, 0.5]))
    monkeypatch.setattr(evidence, "ANGLES", np.arange(4) * np.pi / 8)
    score, nll = made(60, 5, seed)
    covariances = kernels(5, *grid_of(5))
    of = Evidence(covariances)
    smooth = companion(nll, odds_scale(nll[:25]))
    blocks = []
    for begun, end, live in ((0, 25, [0, 1, 2, 3, 4]), (25, 60, [0, 2, 3])):
        of.add(score[begun:end][:, live], nll[begun:end][:, live] if outputs == 2 else None, live)
        both = np.stack([score, smooth])[:outputs]
        between, covariance = noise(both[:, :end][..., live])
        blocks.append((both[:, begun:end].mean(1)[:, live], end - begun, live, covariance))
    draws = of.draws(40_000, range(5), np.random.default_rng(0))
    draws -= draws.mean(1, keepdims=True)
    mean, covariance = dense_posterior(covariances, blocks, between, outputs)
    deviation = np.sqrt(np.diag(covariance))
    assert np.abs(draws.mean(0) - mean).max() < 0.03 * deviation.max()
    assert np.cov(draws.T) == pytest.approx(covariance, abs=0.05 * deviation.max() ** 2)


@given(st.integers(2, 12), st.integers(2, 6), st.sampled_from([1, 2]), SEEDS)
@settings(deadline=None, max_examples=40)
def test_noise_against_loops(samples, candidates, outputs, seed):
    score, nll = made(samples, candidates, seed)
    given_outputs = np.stack([score, companion(nll, 1.0)])[:outputs]
    between, covariance = noise(given_outputs)
    deviations = np.empty_like(given_outputs)
    for o, i, c in np.ndindex(deviations.shape):
        of = given_outputs[o]
        deviations[o, i, c] = of[i, c] - of[i].mean() - of[:, c].mean() + of.mean()
    freedom = (samples - 1) * (candidates - 1)
    expected = np.array([[(a * b).sum() / freedom for b in deviations] for a in deviations])
    expected[0, 0] += 1 / samples**2
    expected += np.diag(1e-12 + 1e-6 * np.diag(expected))
    assert between == pytest.approx(expected)
    values, vectors = np.linalg.eigh(expected)
    white = np.tensordot(vectors @ np.diag(values**-0.5) @ vectors.T, deviations, 1).reshape(-1, candidates)
    products = {(a, b): white[:, a] * white[:, b] for a, b in np.ndindex(candidates, candidates)}
    pairs = [pair for pair in products if pair[0] != pair[1]]
    uncertain = sum(products[p].var() / (len(white) - 1) for p in pairs)
    explained = sum(products[p].mean() ** 2 for p in pairs)
    shrinkage = min(1, uncertain / explained) if explained else 1
    for a, b in pairs:
        assert covariance[a, b] == pytest.approx((1 - shrinkage) * products[a, b].mean(), abs=1e-9)
    for c in range(candidates):
        own = products[c, c].mean() * candidates / (candidates - 1)
        assert covariance[c, c] == pytest.approx((samples * own + 10) / (samples + 10))
    assert np.linalg.eigvalsh(covariance).min() > 0


@given(st.integers(1, 12), SEEDS)
@settings(deadline=None)
def test_kernels_are_covariances_of_one_scale(candidates, seed):
    rng = np.random.default_rng(seed)
    found = kernels(candidates, rng.dirichlet(np.ones(4), candidates), rng.random(candidates))
    assert np.linalg.eigvalsh(found).min() > -1e-9
    centre = np.eye(candidates) - 1 / candidates
    for kernel in found:
        assert np.trace(centre @ kernel @ centre) == pytest.approx(max(1, candidates - 1) if candidates > 1 else 0)
    assert len(kernels(candidates)) == 1


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_what_a_sample_adds_to_all_candidates_says_nothing(seed):
    score, _ = made(30, 4, seed)
    of, shifted = Evidence(kernels(4)), Evidence(kernels(4))
    of.add(score, None, range(4))
    shifted.add(score + np.random.default_rng(seed).normal(size=(30, 1)), None, range(4))
    a, b = (e.draws(100, range(4), np.random.default_rng(0)).mean(0) for e in (of, shifted))
    assert a - a[0] == pytest.approx(b - b[0], abs=1e-6)


def test_equal_candidates_have_equal_means():
    score, nll = made(50, 4, 3)
    score[:, 2], nll[:, 2] = score[:, 1], nll[:, 1]
    of = Evidence(kernels(4))
    of.add(score, nll, range(4))
    mean = of.draws(1000, range(4), np.random.default_rng(0)).mean(0)
    assert mean[1] == pytest.approx(mean[2], abs=1e-12)


def test_the_race_goes_by_scores_alone_once_a_likelihood_is_missing():
    score, nll = made(60, 3, 5)
    of, without = Evidence(kernels(3)), Evidence(kernels(3))
    for part in (slice(0, 40), slice(40, 60)):
        of.add(score[part], nll[part] if part.start == 0 else None, range(3))
        without.add(score[part], None, range(3))
    mean, expected = (e.draws(4000, range(3), np.random.default_rng(0)).mean(0) for e in (of, without))
    # Not equal: the first block's noise was estimated with the likelihood's help.
    assert mean - mean.mean() == pytest.approx(expected - expected.mean(), abs=0.02)


@given(st.floats(0, allow_infinity=True))
@settings(deadline=None)
def test_companions_are_finite_and_fall_with_the_nll(nll):
    at, above = companion(np.array([nll, nll + 1]), 1.0)
    assert 0 <= above <= at <= 1
    assert np.isfinite(log_odds(np.array([nll])))


def test_log_odds_by_hand():
    assert log_odds(-np.log(np.array([0.5, 0.8]))) == pytest.approx([0, np.log(4)])
    assert odds_scale(np.full((3, 2), 0.7)) == 1.0
