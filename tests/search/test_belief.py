"""The posterior over classes against the same Gaussian model written out densely on raw scores, and what it must not
depend on."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import nnls

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.search import belief as belief_module, hierarchy
from clasp_calib.search.belief import (
    BUDGET_CORRELATIONS,
    KNOBS_NEARNESS,
    ODD_DEFAULT,
    SELECTOR_NEARNESS,
    Groups,
    believe,
    covariances,
    kernels,
    signal,
)
from clasp_calib.search.james_stein import JamesStein
from clasp_calib.search.noise import estimate
from clasp_calib.search.verdict import decide

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


def residuals_by_regression(table):
    """What is left of [n, C] about a free level for each sample and a mean for each candidate, by dummy variables."""
    n, count = table.shape
    measured = ~np.isnan(table)
    measured[measured.sum(1) < 2] = False
    at = np.argwhere(measured)
    design = np.zeros((len(at), n + count))
    design[np.arange(len(at)), at[:, 0]] = 1
    design[np.arange(len(at)), n + at[:, 1]] = 1
    left = np.full(table.shape, np.nan)
    left[measured] = table[measured] - design @ np.linalg.lstsq(design, table[measured])[0]
    return left, len(at) - (np.linalg.matrix_rank(design) if len(at) else 0)


def as_if_equal(tables):
    """Variance of the scores [n, C] about the samples' levels, by loops."""
    squares, freedom = 0.0, 0
    for row in (row[~np.isnan(row)] for table in tables for row in table):
        if len(row) > 1:
            squares, freedom = squares + ((row - row.mean()) ** 2).sum(), freedom + len(row) - 1
    return squares / max(1, freedom)


def paired(table):
    """[..., n, C] without the samples that have one candidate."""
    return np.where((~np.isnan(table)).sum(-1, keepdims=True) > 1, table, np.nan)


def shrunk_variances(squares, freedoms, tables):
    """Of all [n, C] tables and of each, from sums of squares about levels and means, by loops."""
    made_up = 1e-4 + as_if_equal(tables) + 0.1 * max(0, 9 - sum(freedoms))
    common = (sum(squares) + made_up) / max(10, sum(freedoms) + 1)
    scores = [score for table in tables for score in table.ravel() if not np.isnan(score)]
    expected = [1.0] * len(tables)
    if all(0 <= score <= 1 for score in scores):
        for number, table in enumerate(tables):
            found = []
            for c in range(table.shape[1]):
                everywhere = [score for other in tables for score in other[:, c] if not np.isnan(score)]
                here = [score for score in table[:, c] if not np.isnan(score)]
                likely = (sum(everywhere) + 1) / (len(everywhere) + 2)
                rate = (sum(here) + 10 * likely) / (len(here) + 10)
                found.append(rate * (1 - rate))
            expected[number] = np.mean(found)
    ratio = common * (sum(freedoms) + 1)
    ratio /= sum(f * e for f, e in zip(freedoms, expected, strict=True)) + np.mean(expected)
    variances = []
    for square, freedom, table, likely in zip(squares, freedoms, tables, expected, strict=True):
        n = min(freedom, sum(not np.isnan(row).all() for row in table))
        variances.append((n * square / max(1, freedom) + 10 * ratio * likely) / (n + 10))
    return common, variances


def noise_by_regression(tables):
    """Variances [K, B] and the correlation between budgets from [B, n, C] tables, cell by cell."""
    fits = [[residuals_by_regression(at_budget) for at_budget in table] for table in tables]
    squares = [np.nansum(left**2) for of in fits for left, _ in of]
    freedoms = [freedom for of in fits for _, freedom in of]
    common, variances = shrunk_variances(squares, freedoms, [paired(at) for table in tables for at in table])
    together, alike = 6 * common, 10 * common
    for of in fits:
        for (first, _), (second, _) in combinations(of, 2):
            pairs = [(a, b) for a, b in zip(first.flat, second.flat, strict=True) if not np.isnan(a + b)]
            together += sum(a * b for a, b in pairs)
            alike += (sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)) ** 0.5
    return np.reshape(variances, (len(tables), -1)), min(max(together / alike, 0), 0.95)


def likeness_by_regression(tables, similarities):
    """Covariance [C, C] between candidates: products of residuals, sample by sample, on what each part would give."""
    variances, _ = noise_by_regression(tables)
    count = similarities.shape[1]
    parts = [np.eye(count), *similarities]
    take_mean = np.eye(count) - 1 / count
    prior = (10 / max(1, count - 1)) ** 0.5
    design = [np.transpose([prior * (take_mean @ part @ take_mean).ravel() for part in parts])]
    products = [prior * take_mean.ravel()]
    for table, of in zip(tables, variances, strict=True):
        for at_budget, variance in zip(table, of, strict=True):
            left, freedom = residuals_by_regression(at_budget)
            known = ~np.isnan(left)
            lost = freedom / max(1, known.sum() - known.any(1).sum())
            for row, seen in zip(left, known, strict=True):
                if lost > 0 and seen.any():
                    take = np.diag(seen * 1.0) - np.outer(seen, seen) / seen.sum()
                    design.append(lost**0.5 * np.transpose([(take @ part @ take).ravel() for part in parts]))
                    scaled = np.nan_to_num(row) / variance**0.5
                    products.append(np.outer(scaled, scaled).ravel() / lost**0.5)
    weights, _ = nnls(np.vstack(design), np.concatenate(products))
    weights[0] = max(weights[0], 0.05 * weights.sum())
    covariance = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return covariance * (count - 1) / np.trace(take_mean @ covariance)


def dense_posterior(tables, similarities, budgets):
    """Mean [K, B, C] and covariance [K, B, C, C] from [B, n, C] tables: every point of the grid and every sample by
    itself."""
    groups, count = len(tables), tables[0].shape[2]
    noises, correlation = noise_by_regression(tables)
    likeness = likeness_by_regression(tables, similarities)
    size = groups * budgets * count
    observe, seen, spread = [], [], []
    for group, table in enumerate(tables):
        between = correlation + (1 - correlation) * np.eye(budgets)
        cell = np.kron(between * np.sqrt(np.outer(noises[group], noises[group])), likeness)
        for sample in np.moveaxis(table, 1, 0):
            rows = np.zeros((0, budgets * count))
            for budget, row in enumerate(sample):
                known = budget * count + np.flatnonzero(~np.isnan(row))
                if len(known) > 1:
                    rows = np.vstack([rows, contrasts(len(known)) @ np.eye(budgets * count)[known]])
            place = np.zeros((len(rows), size))
            place[:, group * budgets * count : (group + 1) * budgets * count] = rows
            observe.append(place)
            seen.append(rows @ np.nan_to_num(sample.ravel()))
            spread.append(rows @ cell @ rows.T)
    observe, seen, noisy = np.vstack(observe), np.concatenate(seen), block_diagonal(spread)
    scale = noises.mean(1)
    logs, means, seconds = [], [], []
    shares = np.mean(scale) * hierarchy.SHARED if groups > 1 else [0.0]
    pairs = list(product(hierarchy.SLOPES, hierarchy.OWN))
    for kernel, shared, *chosen in product(covariances(similarities, budgets), shares, *[pairs] * groups):
        slopes, own = np.transpose(chosen)
        prior = np.kron(shared * np.outer(slopes, slopes) + np.diag(own * scale), kernel)
        total = observe @ prior @ observe.T + noisy
        logs.append(-0.5 * (seen @ np.linalg.solve(total, seen) + np.linalg.slogdet(total)[1]))
        gain = prior @ observe.T @ np.linalg.inv(total)
        means.append(gain @ seen)
        seconds.append(prior - gain @ observe @ prior + np.outer(means[-1], means[-1]))
    weight = np.exp(np.array(logs) - max(logs))
    weight /= weight.sum()
    mean = np.tensordot(weight, means, 1)
    covariance = (np.tensordot(weight, seconds, 1) - np.outer(mean, mean)).reshape(groups * budgets, count, -1, count)
    within = np.array([covariance[k, :, k] for k in range(groups * budgets)])
    return mean.reshape(groups, budgets, count), within.reshape(groups, budgets, count, count)


def block_diagonal(blocks):
    edges = np.cumsum([0, *map(len, blocks)])
    whole = np.zeros((edges[-1], edges[-1]))
    for block, a, b in zip(blocks, edges, edges[1:], strict=False):
        whole[a:b, a:b] = block
    return whole


@pytest.mark.parametrize("measured", [1.0, 0.5])
@pytest.mark.parametrize(
    ("sizes", "budgets", "own", "slopes", "near"),
    [
        ((12, 5, 3), 1, [0.1], [1.0], 1e-7),
        ((12, 5, 3), 1, [0.1], [0.5], 1e-7),
        ((10,), 1, [0.01, 0.1, 1.0], [0.5, 2.0], 1e-7),
        ((6, 4), 2, [0.1], [1.0], 1e-7),
        ((12, 5), 1, [0.01, 1], [1.0], 0.03),
        ((12, 5), 1, [0.1], [0.5, 2.0], 0.04),
    ],
)
def test_the_belief_is_that_of_the_model_written_out(monkeypatch, sizes, budgets, own, slopes, near, measured):
    """To rounding with one pair or one class; all combinations of several are near what is reckoned instead."""
    monkeypatch.setattr(hierarchy, "SLOPES", np.array(slopes))
    monkeypatch.setattr(hierarchy, "NEGLIGIBLE", 0.0)
    monkeypatch.setattr(hierarchy, "OWN", np.array(own))
    made_tables, similarities = made(sizes, 5, 3, measured), kernels(grid_of(5))
    tables = [np.array([table + 0.1 * other for other in made([len(table)] * budgets, 5, 4)]) for table in made_tables]
    groups = Groups(
        tuple(k for k in range(len(sizes)) for _ in range(budgets)),
        tuple(b for _ in range(len(sizes)) for b in range(budgets)),
    )
    belief = believe([at_budget for table in tables for at_budget in table], similarities, groups)
    mean, covariance = dense_posterior(tables, similarities, budgets)
    assert belief.mean == pytest.approx(mean.reshape(belief.mean.shape), abs=near)
    assert belief.budgets[0] == tuple(range(budgets))
    for group in range(len(belief.mean)):
        draws = belief.draws(40_000, group, np.random.default_rng(0))
        expected = covariance[divmod(group, budgets)]
        assert draws.mean(0) == pytest.approx(belief.mean[group], abs=0.03 * expected.max() ** 0.5)
        assert np.cov(draws.T) == pytest.approx(expected, abs=(0.05 if near < 0.01 else 0.2) * expected.max())


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 3), MEASURED, st.booleans(), SEEDS)
@settings(deadline=None, max_examples=20)
def test_noise_is_that_of_regressions(sizes, budgets, measured, bounded, seed):
    tables = [np.array(made([size] * budgets, 4, seed, measured)) for size in sizes]
    tables = [np.clip(table, 0, 1) for table in tables] if bounded else tables
    found = estimate([paired(table) for table in tables], kernels(grid_of(4)))
    variances, correlation = noise_by_regression(tables)
    assert found.variances == pytest.approx(variances)
    assert found.between_budgets == pytest.approx(correlation + (1 - correlation) * np.eye(budgets), abs=1e-9)
    assert found.between_candidates == pytest.approx(likeness_by_regression(tables, kernels(grid_of(4))), abs=1e-5)


def test_luck_that_neighbours_share_is_found_and_counts_once():
    """Candidates of one mixture fail on the same samples. That is luck, and no reason to believe the mixture."""
    candidates = [Candidate(str(i), (1.0 * (i < 4), 1.0 * (i >= 4)), i % 4 / 4) for i in range(8)]
    rng = np.random.default_rng(0)
    tables = [np.repeat(rng.standard_normal((40, 2)), 4, 1) + 0.5 * rng.standard_normal((40, 8)) for _ in range(5)]
    likeness = estimate([table[None] for table in tables], kernels(candidates)).between_candidates
    assert likeness[0, 3] - likeness[0, 7] > 2 * (likeness[0, 0] - likeness[0, 3])
    belief = believe(tables, kernels(candidates))
    for group in range(5):
        draws = belief.draws(2000, group, np.random.default_rng(0))
        assert 0.02 < (draws[:, :4].mean(1) > draws[:, 4:].mean(1)).mean() < 0.98


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), MEASURED, SEEDS)
@settings(deadline=None, max_examples=25)
def test_orders_do_not_matter(sizes, measured, seed):
    rng = np.random.default_rng(seed)
    tables, candidates = made(sizes, 5, seed, measured), grid_of(5)
    # The default may be odd, and stays the first.
    classes, columns = rng.permutation(len(sizes)), np.array([0, *(1 + rng.permutation(4))])
    exchanged = [tables[k][rng.permutation(sizes[k])][:, columns] for k in classes]
    mean = believe(tables, kernels(candidates)).mean
    turned = believe(exchanged, kernels([candidates[c] for c in columns])).mean
    assert turned == pytest.approx(mean[classes][:, columns], abs=1e-7)


@given(MEASURED, SEEDS)
@settings(deadline=None, max_examples=25)
def test_levels_of_samples_do_not_matter_where_scores_have_no_bounds(measured, seed):
    tables = [table + 9 for table in made([6, 4], 4, seed, measured)]
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


@given(st.integers(1, 12), st.integers(1, 3), SEEDS)
@settings(deadline=None)
def test_kernels_are_correlations_and_covariances_have_one_scale(count, budgets, seed):
    similarities = kernels(grid_of(count, seed))
    assert np.linalg.eigvalsh(similarities).min() > -1e-9
    assert similarities.diagonal(0, 1, 2) == pytest.approx(1)
    centre = np.eye(count) - 1 / count
    for number, covariance in enumerate(covariances(similarities, budgets)):
        assert np.linalg.eigvalsh(covariance).min() > -1e-9
        at_first = covariance[:count, :count].copy()
        # Every second kernel is that of an odd default.
        at_first[0, 0] -= ODD_DEFAULT * (number // (len(BUDGET_CORRELATIONS) if budgets > 1 else 1) % 2)
        assert np.trace(centre @ at_first @ centre) == pytest.approx(count - 1, abs=1e-9)


def test_the_signal_is_the_mean_of_score_and_likelihood_where_both_are_known():
    score = np.array([[1.0, 0.0, np.nan], [1.0, 1.0, 0.0]])
    nll = np.array([[0.0, np.log(2), np.nan], [0.5, np.nan, 0.5]])
    assert signal(score, nll) == pytest.approx(np.array([[1.0, 0.25, np.nan], [1.0, 1.0, 0.0]]), nan_ok=True)
    assert signal(score, None) is score


def made_up_moments(tables):
    """`JamesStein` for tables in which everything was measured, by loops."""
    count = tables[0].shape[1]
    means, squares, freedoms = [], [], []
    for table in tables:
        centred = table - table.mean(1, keepdims=True)
        means.append(centred.mean(0))
        squares.append(((centred - centred.mean(0)) ** 2).sum())
        freedoms.append((len(table) - 1) * (count - 1))
    _, noises = shrunk_variances(squares, freedoms, tables)
    error = [noise / (len(table) * (1 - 1 / count)) for noise, table in zip(noises, tables, strict=True)]
    least = 1e-3 * np.mean(noises)
    K = len(tables)
    average = np.mean(means, 0)
    beyond = sum(((m - average) ** 2).sum() for m in means) - count * sum(e * (1 - 1 / K) for e in error)
    own = max(least, beyond / (count * (K - 1)))
    shared = np.zeros(count)
    doubt = 1 / sum(1 / (own + e) for e in error)
    for c in range(count):
        shared[c] = doubt * sum(m[c] / (own + e) for m, e in zip(means, error, strict=True))
    between = max(least, np.mean(shared**2) - doubt)
    shared, doubt = shared * between / (between + doubt), doubt * between / (between + doubt)
    trust = [own / (own + e) for e in error]
    mean = [t * m + (1 - t) * shared for t, m in zip(trust, means, strict=True)]
    return np.array(mean), np.array([own * (1 - t) + (1 - t) ** 2 * doubt for t in trust])


@given(st.lists(st.integers(2, 9), min_size=2, max_size=4), SEEDS)
@settings(deadline=None, max_examples=25)
def test_above_the_bound_additive_james_stein_takes_over_and_says_so(sizes, seed):
    tables = made(sizes, 5, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(belief_module, "WORK", 1)
        belief = believe(tables, kernels(grid_of(5)))
    mean, variance = made_up_moments(tables)
    assert belief.method == "james-stein"
    assert belief.mean == pytest.approx(mean, abs=1e-8)
    draws = belief.draws(4000, 0, np.random.default_rng(0))
    assert draws.var(0) == pytest.approx(np.full(5, variance[0]), rel=0.15)
    assert believe(tables, kernels(grid_of(5))).method == "pooled"


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_james_stein_levels_of_samples_do_not_matter_in_incomplete_tables(seed):
    tables = [table + 9 for table in made([30, 20], 6, seed, 0.6)]
    shifted = [table + np.random.default_rng(seed).normal(size=(len(table), 1)) for table in tables]
    mean, moved = (np.array([JamesStein(t).mean(k, slice(0, 6)) for k in range(2)]) for t in (tables, shifted))
    assert moved == pytest.approx(mean, abs=1e-3)


def test_budgets_are_believed_together_as_far_as_the_bound_allows(monkeypatch):
    tables = made([8, 8, 8], 4, 0)
    monkeypatch.setattr(belief_module, "WORK", 8**3)
    belief = believe(tables, kernels(grid_of(4)), Groups(("text",) * 3, (64, 128, 192)))
    assert belief.budgets == [(64, 128), (64, 128), (192,)]
    together = believe(tables[:2], kernels(grid_of(4)), Groups(("text",) * 2, (64, 128)))
    alone = believe(tables[2:], kernels(grid_of(4)))
    assert np.array_equal(belief.mean, np.concatenate([together.mean, alone.mean]))


def test_james_stein_takes_nothing_from_budgets_that_it_does_not_name(monkeypatch):
    monkeypatch.setattr(belief_module, "WORK", 1)
    tables = made([8, 9, 8, 9], 4, 0)
    belief = believe(tables, kernels(grid_of(4)), Groups(("text", "scene") * 2, (64, 64, 192, 192)))
    assert belief.budgets == [(64,), (64,), (192,), (192,)]
    apart = [believe(tables[part], kernels(grid_of(4))) for part in (slice(2), slice(2, 4))]
    assert np.array_equal(belief.mean, np.concatenate([one.mean for one in apart]))


def test_another_budget_lends_what_a_few_samples_lack():
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        true = 0.3 * rng.standard_normal(6)
        tables = [true + 0.3 * rng.standard_normal((n, 6)) for n in (4, 200)]
        alone = believe(tables[:1], kernels(grid_of(6))).mean[0]
        fed = believe(tables, kernels(grid_of(6)), Groups(("text", "text"), (192, 64))).mean[0]
        errors.append([np.abs(m - m.mean() - (true - true.mean())).max() for m in (alone, fed)])
    alone, fed = np.mean(errors, 0)
    assert fed < 0.6 * alone


def test_a_class_that_goes_its_own_way_is_not_held_back_by_many_that_do_not():
    rng = np.random.default_rng(0)
    apart = np.array([0, 0, 0.8, 0, 0, 0])
    tables = [0.1 * rng.standard_normal((8, 6)) + (apart if k == 0 else 0) for k in range(9)]
    belief = believe(tables, kernels(grid_of(6)))
    assert belief.leader(0) == 2
    assert belief.mean[0, 2] - belief.mean[0, 0] > 0.7
    assert np.ptp(belief.mean[1:], 1).max() < 0.1


def test_a_class_with_the_same_effects_on_a_larger_scale_does_not_go_its_own_way(monkeypatch):
    """Its few samples say less of its candidates than many samples of classes that show the same, only less of it."""
    lost = []
    for slopes in (hierarchy.SLOPES, np.ones(1)):
        monkeypatch.setattr(hierarchy, "SLOPES", slopes)
        errors = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            effect = rng.standard_normal(6)
            true = [scale * effect for scale in (0.1, 0.1, 0.1, 0.1, 0.3)]
            tables = [t + 0.3 * rng.standard_normal((n, 6)) for t, n in zip(true, (60, 60, 60, 60, 4), strict=True)]
            mean = believe(tables, kernels(grid_of(6))).mean[4]
            errors.append(np.square(mean - mean.mean() - (true[4] - true[4].mean())).mean())
        lost.append(np.mean(errors))
    assert lost[0] < 0.9 * lost[1]


def test_scores_without_noise_are_believed():
    """A thousand times plainer than scores are: what was measured stands, and nothing breaks down."""
    true = np.linspace(0, 500, 6)
    belief = believe([np.tile(true, (300, 1)), np.tile(true[::-1], (300, 1))], kernels(grid_of(6)))
    assert belief.mean[0] - belief.mean[0, 0] == pytest.approx(true, rel=2e-3)
    assert belief.leader(1) == 0


@pytest.mark.parametrize("work", [belief_module.WORK, 1], ids=["pooled", "james-stein"])
def test_candidates_that_were_measured_once_are_not_told_apart_for_sure(monkeypatch, work):
    """Nothing is left over that shows the noise; what differs on one sample may all be luck."""
    monkeypatch.setattr(belief_module, "WORK", work)
    rng = np.random.default_rng(0)
    for table in (rng.normal(0.5, 0.3, (1, 6)), np.kron(np.eye(3), np.ones(2)) * rng.normal(0.5, 0.3, (3, 1))):
        once = np.where(table == 0, np.nan, table + 0.3 * rng.standard_normal(table.shape))
        belief = believe([once] * 3, kernels(grid_of(6)))
        draws = belief.draws(4000, 0, rng)
        assert np.mean(draws[:, belief.leader(0)] < draws[:, [c for c in range(6) if c != belief.leader(0)]].T) > 0.05


@given(st.lists(st.integers(0, 60), min_size=1, max_size=3), st.integers(1, 2), st.sampled_from([0, 1e-9, 1]), SEEDS)
@settings(deadline=None, max_examples=25)
def test_constant_and_nearly_constant_tables_beside_noisy_ones_are_no_trouble(sizes, budgets, noise, seed):
    rng = np.random.default_rng(seed)
    plain = np.array([0.0, 1, 0, 0, 0, 0])
    tables = [plain + noise * rng.standard_normal((size, 6)) for size in sizes]
    flips = [(rng.random((12, 6)) < 0.7).astype(float) for _ in sizes]
    both = [*tables, *flips][: len(sizes) * budgets]
    places = [(k, budget) for budget in range(budgets) for k in range(len(sizes))]
    belief = believe(both, kernels(grid_of(6)), Groups(*zip(*places, strict=True)))
    for group in range(len(both)):
        assert np.isfinite(belief.draws(20, group, rng)).all()
        assert np.linalg.eigvalsh(belief.noise(group)).min() > 0


@pytest.mark.parametrize("candidates", [4, 100])
@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_one_sample_of_each_class_settles_nothing(candidates, gain):
    table = np.zeros((1, candidates))
    table[0, 1] = gain
    tables = [np.zeros((1, candidates)), np.zeros((1, candidates)), table]
    for verdict in decide(believe(tables, kernels(grid_of(candidates))), tables):
        assert verdict.settle != 0
        assert verdict.regret > 0.01


def test_selectors_are_an_axis_of_their_own():
    mixtures = [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    choices = [None, SelectorChoice("divprune"), *(SelectorChoice.of("fastv", {"layer": layer}) for layer in (1, 2))]
    grid = [Candidate(str(n), alpha, 1.0, selector=choice) for n, alpha in enumerate(mixtures) for choice in choices]
    near = kernels(grid)
    plain = kernels([replace(candidate, selector=None) for candidate in grid])
    for one, two in product(range(len(grid)), repeat=2):
        here, there = grid[one].selector, grid[two].selector
        same = (here and here.name) == (there and there.name)
        expected = 1.0 if here == there else KNOBS_NEARNESS * (1.0 if same else SELECTOR_NEARNESS)
        assert near[:, one, two] == pytest.approx(plain[:, one, two] * expected)
    for kernel in near:
        assert np.linalg.eigvalsh(kernel).min() > -1e-9
