"""What all measured scores say of every candidate in every class: one posterior, shared between the classes.

Shapes: K tables (a class at a budget), C candidates, n samples of a table, D draws.

A class alone has too few samples to tell candidates apart, but what is good for one class is often good for others, and
for neighbouring mixtures and rhos. So the means are those of a two-way random-effects model, ``f[k, c] = shared[c] +
own[k, c]``, both smooth over the candidates, as far as the scores themselves support it. ``docs/design/decision.md``
says how a choice is made from it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.selector_choice import CLASP
from clasp_calib.search.hierarchy import Hierarchy
from clasp_calib.search.information import information
from clasp_calib.search.james_stein import JamesStein
from clasp_calib.search.noise import Floats

RHO_LENGTH, MIXTURE_LENGTH, SEEDING_NEARNESS, RELEVANCE_NEARNESS = 0.4, 0.7, 0.5, 0.5
"""How far neighbours reach, in rho and in total variation of the mixture, and how near two ways of seeding and two of
rating are. Our choice; what the data contradict has no weight."""
SELECTOR_NEARNESS, KNOBS_NEARNESS = 0.5, 0.8
"""How near two selectors are, and one with other knobs to itself. Our choice."""
SIZE_LENGTH = 1.0
"""How far neighbours reach in the size of pictures: so many halvings of the number of tokens. Our choice."""
SMOOTH_SHARES = (0.0, 0.6, 0.95)
"""How much of the variance between candidates is smooth."""
ODD_DEFAULT = 4.0
"""Variance of what sets the default apart from its neighbours, where it is believed that something does."""
BUDGET_CORRELATIONS = (0.5, 0.9, 0.98)
"""Of a candidate's effects at two budgets, to choose from."""
WORK = 9 * 300.0**3
"""The pooled model is for at most so many classes times (budgets times candidates) cubed: some seconds of one core."""
DECIMALS = 9
"""Means are rounded so that sums in another order do not decide between equal candidates."""


@dataclass(frozen=True)
class Groups:
    """Which class and which budget each table is of; [K] each, any names."""

    classes: tuple[Hashable, ...]
    budgets: tuple[Hashable, ...]


def signal(score: Floats, nll: Floats | None) -> Floats:
    """What candidates are judged by: the mean of score and likelihood, in [0, 1] if the score is.

    The probability of the accepted answer still differs between two candidates that are both right, and so says more
    than right and wrong; alone it is a little biased.

    Args:
        score: [n, C], the metric; NaN where not measured.
        nll: [n, C], the answer's negative log-likelihood in nats, NaN or ``None`` where it is not known. A sample on
            which it lacks for a candidate that has a score is judged by its scores alone.
    """
    if nll is None:
        return score
    known = (np.isnan(score) | ~np.isnan(nll)).all(1, keepdims=True)
    judged: Floats = np.where(known, (score + np.exp(-nll)) / 2, score)
    return judged


def kernels(candidates: Sequence[Candidate]) -> Floats:
    """[3, C, C]: how alike candidates are by mixture, by rho, and by both; correlations, 1 on the diagonal.

    Args:
        candidates: the default first, which need not be like its neighbours: it alone was not made by a grid.
    """
    alpha = np.array([c.alpha for c in candidates])
    rho = np.array([c.rho for c in candidates])
    seeding = np.array([c.seeding for c in candidates])
    relevance = np.array([c.relevance or "" for c in candidates])
    selector = np.array([c.selector.name if c.selector else CLASP for c in candidates])
    knobs = np.array([str(c.selector or "") for c in candidates])
    size = np.log2([c.downsample or 1.0 for c in candidates])
    # exp(-|.|_1) and the Gaussian of one variable are positive definite, and so are sums and products.
    near_mixture = np.exp(-0.5 * np.abs(alpha[:, None] - alpha[None]).sum(-1) / MIXTURE_LENGTH)
    near_rho = np.exp(-0.5 * ((rho[:, None] - rho[None]) / RHO_LENGTH) ** 2)
    near_seeding = np.where(seeding[:, None] == seeding[None], 1.0, SEEDING_NEARNESS)
    near_relevance = np.where(relevance[:, None] == relevance[None], 1.0, RELEVANCE_NEARNESS)
    near_size = np.exp(-0.5 * ((size[:, None] - size[None]) / SIZE_LENGTH) ** 2)
    near_selector = np.where(selector[:, None] == selector[None], 1.0, SELECTOR_NEARNESS)
    near_knobs = np.where(knobs[:, None] == knobs[None], 1.0, KNOBS_NEARNESS)
    alike = near_seeding * near_relevance * near_size * near_selector * near_knobs
    near: Floats = np.array([near_mixture, near_rho, near_mixture * near_rho]) * alike
    return near


def covariances(kernels: Floats, budgets: int) -> Floats:
    """[G, B * C, B * C] covariances of effects to choose from: of unrelated candidates, and of smooth ones.

    Each is scaled so that differences from the candidates' mean have an average variance of 1; in every second one the
    default's effect has more. At several budgets the effects of a candidate are correlated, more or less.

    Args:
        kernels: [P, C, C], as `kernels` gives them.
        budgets: B.
    """
    smooth, count = kernels.mean(0), kernels.shape[1]
    between = [(1 - c) * np.eye(budgets) + c for c in (BUDGET_CORRELATIONS if budgets > 1 else (1.0,))]
    found = []
    for share in SMOOTH_SHARES:
        plain = share * smooth + (1 - share) * np.eye(count)
        variance = (np.trace(plain) - plain.mean() * count) / max(1, count - 1)
        plain = plain / variance if variance > 0 else plain
        odd = plain.copy()
        odd[0, 0] += ODD_DEFAULT
        found += [np.kron(correlations, kernel) for kernel in (plain, odd) for correlations in between]
    return np.array(found)


def believe(
    tables: Sequence[Floats], kernels: Floats, groups: Groups | None = None, space: int | None = None
) -> "Belief":
    """The posterior of the candidates' means.

    Args:
        tables: K tables [n, C] of what candidates are judged by (`signal`), NaN where not measured; n may differ.
        kernels: [P, C, C], how alike candidates are, as `kernels` gives them.
        groups: which tables are of one class or one budget; ``None``: all of other classes and one budget. Tables of
            one class have the same samples in the same rows. Budgets are believed together as far as `WORK` allows, in
            the order in which they come; James-Stein believes each alone.
        space: how many candidates `WORK` is asked about; by default all. Those that refining adds to a few of them do
            not change the method.
    """
    groups = groups or Groups(tuple(range(len(tables))), (None,) * len(tables))
    classes, budgets = list(dict.fromkeys(groups.classes)), list(dict.fromkeys(groups.budgets))
    width = int((WORK / len(classes)) ** (1 / 3) + 1e-9)
    candidates = kernels.shape[1]
    space = space or candidates
    if space > width:
        plain = {b: JamesStein([t for t, of in zip(tables, groups.budgets, strict=True) if of == b]) for b in budgets}
        within = [groups.budgets[:k].count(b) for k, b in enumerate(groups.budgets)]
        return Belief(
            [
                _Place(plain[b], k, slice(0, candidates), plain[b].noise[k], (b,))
                for k, b in zip(within, groups.budgets, strict=True)
            ]
        )
    at = {(c, b): table for c, b, table in zip(groups.classes, groups.budgets, tables, strict=True)}
    places: dict[tuple[Hashable, Hashable], _Place] = {}
    together = width // space
    for begun in range(0, len(budgets), together):
        part = tuple(budgets[begun : begun + together])
        found = information([_stacked([at.get((label, b)) for b in part], candidates) for label in classes], kernels)
        posterior = Hierarchy(found, covariances(kernels, len(part)))
        for k, label in enumerate(classes):
            for b, budget in enumerate(part):
                of = slice(b * candidates, (b + 1) * candidates)
                places[label, budget] = _Place(posterior, k, of, found[k].noise[of, of], part)
    return Belief([places[place] for place in zip(groups.classes, groups.budgets, strict=True)])


def _stacked(tables: Sequence[Floats | None], candidates: int) -> Floats:
    """[B, n, C], with NaN below shorter tables and in place of missing ones."""
    samples = max(len(table) for table in tables if table is not None) if any(t is not None for t in tables) else 0
    stacked = np.full((len(tables), samples, candidates), np.nan)
    for into, table in zip(stacked, tables, strict=True):
        if table is not None:
            into[: len(table)] = table
    return stacked


@dataclass(frozen=True)
class _Place:
    """Where the posterior of one table is to be found."""

    posterior: Hierarchy | JamesStein
    group: int
    of: slice
    noise: Floats
    budgets: tuple[Hashable, ...]


class Belief:
    """The posterior of the candidates' means, up to a number that all candidates of a table share.

    Attributes:
        mean: [K, C] float64, rounded to 9 decimals.
        method: ``"pooled"``, or ``"james-stein"`` where there are too many candidates for it.
        budgets: of each table, the budgets whose tables were believed with it.
    """

    def __init__(self, places: Sequence[_Place]):
        self._places = places
        self.mean: Floats = np.array([p.posterior.mean(p.group, p.of) for p in places]).round(DECIMALS)
        plain = isinstance(places[0].posterior, JamesStein)
        self.method: Literal["pooled", "james-stein"] = "james-stein" if plain else "pooled"
        self.budgets = [p.budgets for p in places]

    def leader(self, group: int) -> int:
        """The candidate of the highest mean in a table; of equal ones the lower number."""
        return int(self.mean[group].argmax())

    def noise(self, group: int) -> Floats:
        """Covariance [C, C] of one sample's scores in a table, about its level and the candidates' means.

        Where James-Stein is the method there is one variance for all candidates, [].
        """
        return self._places[group].noise

    def draws(self, count: int, group: int, generator: np.random.Generator) -> Floats:
        """[count, C] draws of the means of one table; those of other tables are drawn apart.

        Draws come in pairs about the same centre, so that equal candidates have equal means over the draws.

        Args:
            count: how many; even.
            group: index of the table.
            generator: of the randomness.
        """
        place = self._places[group]
        half = count // 2
        centre, apart = np.empty((2, half, self.mean.shape[1]))
        times = generator.multinomial(half, place.posterior.weights(place.group))
        begun = 0
        for point in np.flatnonzero(times):
            mean, covariance = place.posterior.moments(int(point), place.group, place.of)
            part = slice(begun, begun := begun + int(times[point]))
            luck = generator.standard_normal((int(times[point]), len(mean)))
            centre[part] = mean
            apart[part] = luck @ _root(covariance) if covariance.ndim == 2 else luck * np.sqrt(covariance)
        return np.concatenate([centre + apart, centre - apart])


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    return root
