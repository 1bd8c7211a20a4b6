"""Choices where pooling and smoothness could mislead: right and wrong on made tables whose true means are known."""

from statistics import NormalDist

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.belief import believe, kernels
from clasp_calib.search.verdict import decide

RHOS = (1.0, 0.75, 0.5, 0.25)
MIXTURES = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5))
CANDIDATES = [Candidate(str(m), alpha, rho) for m, alpha in enumerate(MIXTURES) for rho in RHOS]
KERNELS = kernels(CANDIDATES)
SMOOTH = np.array([0.15 * alpha[1] - 0.2 * (rho - 0.5) ** 2 for alpha, rho in ((c.alpha, c.rho) for c in CANDIDATES)])
"""A made-up effect of each candidate, smooth over the grid."""
QUANTILE = np.vectorize(NormalDist().inv_cdf)


def flips(means, samples, rng):
    """[n, C] of right and wrong with these true means, correlated within a sample as on the embedded model."""
    margin = QUANTILE(np.clip(means, 0.001, 0.999)) + 0.9 * rng.standard_normal((samples, 1))
    return (margin + (1 - 0.9**2) ** 0.5 * rng.standard_normal((samples, len(means))) > 0).astype(float)


def regrets(all_means, samples, seeds):
    """[seeds, K]: how far the choice's true mean is below the best."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        belief = believe([flips(m, n, rng) for m, n in zip(all_means, samples, strict=True)], KERNELS)
        found.append([m.max() - m[belief.leader(k)] for k, m in enumerate(all_means)])
    return np.array(found)


def test_a_class_turned_against_all_others_wins_its_own_choice():
    means = [0.8 + SMOOTH] * 7 + [0.8 - SMOOTH]
    at_others_best = (means[-1].max() - means[-1][SMOOTH.argmax()]).item()
    lost = regrets(means, [120] * 8, 6)
    assert at_others_best > 0.1
    assert lost[:, -1].mean() < 0.02
    assert lost[:, :-1].mean() < 0.01


def test_a_default_that_is_best_and_out_of_place_is_hardly_lost():
    means = 0.8 + SMOOTH
    means[0] = means.max() + 0.08
    assert regrets([means] * 8, [32] * 8, 6).mean() < 0.005


def test_a_large_class_speaks_for_itself_and_small_ones_gain_by_it():
    means = [0.8 + SMOOTH] * 4
    together = regrets(means, [800, 8, 8, 8], 8)
    alone = np.mean([regrets([m], [8], 8) for m in means])
    assert together[:, 0].mean() < 0.01
    assert together[:, 1:].mean() < 0.6 * alone


def test_classes_that_are_always_right_are_not_certain_and_harm_nobody():
    rng = np.random.default_rng(0)
    tables = [flips(0.8 + SMOOTH, 60, rng) for _ in range(3)] + [np.ones((60, len(CANDIDATES)))] * 5
    belief = believe(tables, KERNELS)
    for group, verdict in enumerate(decide(belief, tables)):
        assert np.linalg.eigvalsh(belief.noise(group)).min() > 0
        assert verdict.much_worse < 0.1
    lost = [SMOOTH.max() - SMOOTH[belief.leader(k)] for k in range(3)]
    assert np.mean(lost) < 0.02


def test_a_class_that_was_right_everywhere_on_few_samples_may_yet_fail_as_others_do():
    """Eight right answers of each candidate leave room for failures as rare as those of the other classes."""
    said, true = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        means = np.clip(0.9 + SMOOTH, 0, 0.99)
        tables = [flips(means, 8, rng) for _ in range(5)] + [np.ones((8, len(CANDIDATES)))]
        verdict = decide(believe(tables, KERNELS), tables)[-1]
        said.append(verdict.regret)
        true.append(means.max() - means[verdict.candidate])
    assert np.mean(said) > max(0.005, 0.5 * np.mean(true))


def test_mixtures_that_do_not_help_are_not_believed_for_their_luck():
    """All rhos of a mixture fail on the same samples; the model must not do worse than the plain best mean."""
    by_rho = {rho: 0.75 - 0.3 * (rho - 0.5) ** 2 for rho in RHOS}
    means = np.array([by_rho[c.rho] - 0.05 * (c.alpha != MIXTURES[0]) for c in CANDIDATES])
    pooled, plain = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        tables = []
        for _ in range(8):
            table = np.tile(flips(np.array(list(by_rho.values())), 16, rng), len(MIXTURES))
            for mixture in range(1, len(MIXTURES)):
                table[rng.random(16) < 0.07, 4 * mixture : 4 * mixture + 4] = 0
            tables.append(table)
        belief = believe(tables, KERNELS)
        pooled += [means.max() - means[belief.leader(k)] for k in range(8)]
        plain += [means.max() - means[table.mean(0).argmax()] for table in tables]
    assert np.mean(pooled) <= np.mean(plain)
    assert np.mean(pooled) < 0.02
