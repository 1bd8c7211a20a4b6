"""How scores scatter about the candidates' means: by class and budget, between candidates, and between budgets.

Shapes: K classes, B budgets, T = K * B, n samples of a class, C candidates, P kernels. A table is [B, n, C], with NaN
where a candidate was not measured on a sample.

Candidates that are alike are right and wrong by luck on the same samples. A model that takes such luck for independent
believes neighbours that tell it the same thing twice. So the noise of one sample has the covariance ``variance * (t_0 I
+ t_1 kernel_1 + ...)`` between candidates, with weights that all tables share, found by moments (MINQUE, Rao 1971).
What is luck at one budget is partly the same luck at another, since a candidate sees the same sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR_SAMPLES = 10.0
"""What a table's samples show of rates and of their variance is shrunk as by so many samples more. Our choice."""
PRIOR_FREEDOM = 10.0
"""Likenesses are shrunk towards none, as by so many degrees of freedom, and so many are enough to know the variance of
all tables. Our choice."""
LEAST_SQUARES = 1e-4
"""Of one made-up disagreement, so that tables without any are not taken for certainty. Our choice."""
UNKNOWN_VARIANCE = 0.1
"""Of scores in [0, 1] that agree by chance: it stands for the degrees of freedom that all tables together lack of
`PRIOR_FREEDOM`. Our choice: right and wrong answers have 0.25 at most."""
LEAST_OWN = 0.05
"""Share of the noise that is each candidate's own, at least. Our choice: equal luck would make differences certain."""
PRIOR_CORRELATION, MOST_CORRELATION = 0.6, 0.95
"""Of the noise at two budgets: what it is shrunk towards, as variances are, and never above. Our choice: 0.6 to 0.8
were measured on the embedded model; near 1, differences between budgets would seem known from few samples."""


@dataclass(frozen=True)
class Noise:
    """Of one sample's scores, about its levels and the candidates' means.

    Attributes:
        variances: [K, B], of a score.
        between_budgets: [B, B], correlation of a candidate's noise at two budgets.
        between_candidates: [C, C], covariance in units of the variance.
    """

    variances: Floats
    between_budgets: Floats
    between_candidates: Floats

    def of(self, group: int) -> Floats:
        """[B * C, B * C] covariance of one sample's noise in a class, budget by budget."""
        scale: Floats = np.sqrt(self.variances[group])
        return np.kron(self.between_budgets * np.outer(scale, scale), self.between_candidates).astype(np.float64)


def estimate(tables: Sequence[Floats], kernels: Floats) -> Noise:
    """The noise that the tables show.

    Args:
        tables: K tables [B, n, C], none with a sample that has one candidate at a budget.
        kernels: [P, C, C], how alike candidates are.
    """
    fits = [[_fit(at_budget) for at_budget in table] for table in tables]
    flat = [fit for of in fits for fit in of]
    squares = np.array([np.nansum(fit.residuals**2) for fit in flat])
    freedom = np.array([fit.freedom for fit in flat], float)
    common, of_table = variances_of(squares, freedom, [at_budget for table in tables for at_budget in table])
    budgets = len(tables[0])
    variances = of_table.reshape(-1, budgets)
    correlation = _between_budgets([[fit.residuals for fit in of] for of in fits], common)
    return Noise(
        variances=variances,
        between_budgets=(1 - correlation) * np.eye(budgets) + correlation,
        between_candidates=_between_candidates(flat, variances.ravel(), kernels),
    )


def variances_of(squares: Floats, freedom: Floats, tables: Sequence[Floats]) -> tuple[float, Floats]:
    """Of a score in all tables together, and in each [T].

    A table's own variance is shrunk towards what its rates of right answers lead to expect. It counts by samples, since
    candidates fail together: a table in which all are right shows nothing of the failures that are rarer.

    Args:
        squares: [T], residual sums of squares.
        freedom: [T], their degrees of freedom.
        tables: [n, C] each, which they are of; none with a sample that has one candidate.
    """
    common = _pooled_variance(squares, freedom, tables)
    binomial = _binomial_variances(tables)
    dispersion = common * (freedom.sum() + 1) / (freedom @ binomial + binomial.mean())
    own = squares / np.maximum(1, freedom)
    samples = np.minimum(freedom, [len(_begun(table)) for table in tables])
    return common, (samples * own + PRIOR_SAMPLES * dispersion * binomial) / (samples + PRIOR_SAMPLES)


def _binomial_variances(tables: Sequence[Floats]) -> Floats:
    """[T] of right and wrong answers, averaged over candidates; 1 where scores are not in [0, 1].

    A candidate's rate in a table has a Beta prior about its rate in all of them, which is that of Laplace's rule of
    succession.
    """
    if any((table < 0).any() or (table > 1).any() for table in tables):
        return np.ones(len(tables))
    right = np.array([np.nansum(table, 0) for table in tables])
    count = np.array([(~np.isnan(table)).sum(0) for table in tables])
    prior = (right.sum(0) + 1) / (count.sum(0) + 2)
    rate = (right + PRIOR_SAMPLES * prior) / (count + PRIOR_SAMPLES)
    variance: Floats = (rate * (1 - rate)).mean(1)
    return variance


def _pooled_variance(squares: Floats, freedom: Floats, tables: Sequence[Floats]) -> float:
    """Of a score in all tables: of what is left over, and one made-up degree of freedom as if candidates were equal.

    Where each candidate was measured once nothing is left over, and what differs may all be luck. So may what does not,
    where there is little of it.
    """
    deviations = [table - np.nanmean(table, 1, keepdims=True) for table in map(_begun, tables)]
    pairs = sum(int((~np.isnan(d)).sum()) - len(d) for d in deviations)
    equal = sum(float(np.nansum(d**2)) for d in deviations) / max(1, pairs)
    known = float(freedom.sum()) + 1
    lacking = max(0.0, PRIOR_FREEDOM - known)
    return (float(squares.sum()) + equal + LEAST_SQUARES + lacking * UNKNOWN_VARIANCE) / (known + lacking)


def _begun(table: Floats) -> Floats:
    """Its samples that were measured at all."""
    begun: Floats = table[~np.isnan(table).all(1)]
    return begun


@dataclass(frozen=True)
class _Fit:
    """Levels and means fitted to a table [n, C] by least squares: what is left over, and its degrees of freedom."""

    residuals: Floats
    freedom: int


def _fit(table: Floats) -> _Fit:
    measured = ~np.isnan(table)
    known = measured.astype(float)
    count = np.maximum(1, known.sum(1, keepdims=True))
    score = np.where(measured, table, 0.0)
    centred = known * (score - score.sum(1, keepdims=True) / count)
    precision = np.diag(known.sum(0)) - (known / count).T @ known
    means = np.linalg.pinv(precision, 1e-9, hermitian=True) @ centred.sum(0)
    left = score - means
    left = left - (known * left).sum(1, keepdims=True) / count
    rank = np.linalg.matrix_rank(precision, 1e-9 * max(1, len(table)), hermitian=True)
    return _Fit(np.where(measured, left, np.nan), int(measured.sum() - measured.any(1).sum() - rank))


def _between_budgets(residuals: Sequence[Sequence[Floats]], common: float) -> float:
    alike = PRIOR_FREEDOM * common
    together = PRIOR_CORRELATION * alike
    for of in residuals:
        for first, second in combinations(of, 2):
            both = ~np.isnan(first * second)
            together += float(first[both] @ second[both])
            alike += float(np.linalg.norm(first[both]) * np.linalg.norm(second[both]))
    return float(np.clip(together / alike, 0, MOST_CORRELATION))


def _between_candidates(fits: Sequence[_Fit], variances: Floats, kernels: Floats) -> Floats:
    """Weights of the identity and the kernels that best explain the products of residuals; [C, C].

    A sample's products have the expectation ``H V H``, where H takes the mean of what was measured. The weights are
    those of the least squares fit to them, none negative.
    """
    candidates = kernels.shape[1]
    parts = np.concatenate([np.eye(candidates)[None], kernels])
    normal = PRIOR_FREEDOM * _products(parts, np.ones((1, candidates))) / max(1, candidates - 1)
    found = normal[0].copy()
    for fit, variance in zip(fits, variances, strict=True):
        known = (~np.isnan(fit.residuals)).astype(float)
        left = np.nan_to_num(fit.residuals) / np.sqrt(variance)
        # The means took some of the residuals' freedom.
        lost = fit.freedom / max(1.0, known.sum() - known.any(1).sum())
        normal += lost * _products(parts, known)
        found += np.einsum("nc,pcd,nd->p", left, parts, left, optimize=True)
    weights = _non_negative(normal, found)
    weights[0] = max(weights[0], LEAST_OWN * weights.sum())
    covariance: Floats = np.tensordot(weights, parts, 1)
    own = (np.trace(covariance) - covariance.mean() * candidates) / max(1, candidates - 1)
    return covariance / own if own > 0 else np.eye(candidates)


def _products(parts: Floats, known: Floats) -> Floats:
    """[P, P] sums over samples of the trace of ``H part H part``, from what each measured [n, C]."""
    count = np.maximum(1, known.sum(1))
    sums = known @ parts
    inner = np.einsum("pnc,nc->pn", sums, known)
    traces = np.empty((len(parts), len(parts)))
    for p, q in np.ndindex(traces.shape):
        both = (known @ (parts[p] * parts[q]) * known).sum(1)
        crossed = (sums[p] * sums[q] * known).sum(1)
        traces[p, q] = (both - 2 * crossed / count + inner[p] * inner[q] / count**2).sum()
    return traces


def _non_negative(normal: Floats, found: Floats) -> Floats:
    """The non-negative ``w`` that minimises ``w normal w - 2 w found``: the best of all sets of non-zero weights."""
    best, lowest = np.zeros(len(found)), np.inf
    for size in range(1, len(found) + 1):
        for those in map(list, combinations(range(len(found)), size)):
            weights = np.linalg.lstsq(normal[np.ix_(those, those)], found[those])[0]
            value = -float(weights @ found[those])
            if (weights >= 0).all() and value < lowest - 1e-12:
                best, lowest = np.zeros(len(found)), value
                best[those] = weights
    return best
