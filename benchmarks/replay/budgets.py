"""Part `budgets`: what other budgets' scores are worth to a choice, and whether it stays as sure as it says."""

from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from clasp_calib.search.belief import Groups, believe
from clasp_calib.search.verdict import decide

from .statistics import markdown, points
from .sureness import Claim, claims_of, shown
from .tables import budgets_of, covariances, drawn, fitting, recorded

SIZES = (8, 32)
TEXT = """\
Everything is measured at all three budgets, on the same samples. *with the others*: the choice for a budget knows the
scores at the two others too. *from the others alone*: it knows nothing else. Numbers are mean true accuracies over nine
classes and {draws} draws; behind ± is the 95 % interval of the difference from *its own scores alone*.

"""
OWN, WITH, WITHOUT = "its own scores alone", "with the others", "from the others alone"


def compared(budget: str, n: int, path: Path, seed: int) -> tuple[dict[str, float], list[Claim]]:
    """What choices are worth, and what is claimed where the other budgets fed them."""
    order = [budget, *(other for other in budgets_of(path) if other != budget)]
    draws = [drawn(recorded(other, path), n, seed) for other in order]
    own, K = draws[0], len(draws[0].labels)
    groups = Groups(own.labels * len(order), tuple(other for other in order for _ in own.labels))
    tables = [table for draw in draws for table in draw.signals]
    nothing = [np.full_like(table, np.nan) for table in own.signals]
    fed = believe(tables, covariances(own.candidates), groups)
    blind = believe([*nothing, *tables[K:]], covariances(own.candidates), groups)
    beliefs = {OWN: own.belief, WITH: fed, WITHOUT: blind}
    worth = {name: own.worth([b.leader(k) for k in range(K)]).mean() for name, b in beliefs.items()}
    return worth, claims_of(own, decide(fed, tables)[:K], range(K), budget)


def section(pool: Executor, draws: range, path: Path) -> str:
    text = "## Several budgets\n\n" + TEXT.format(draws=len(draws))
    sizes, rows, claims = fitting(path, SIZES), [], []
    for budget in budgets_of(path):
        found = {n: list(pool.map(partial(compared, budget, n, path), draws)) for n in sizes}
        claims += [claim for of in found.values() for _, some in of for claim in some]
        for name in (OWN, WITH, WITHOUT):
            cells = []
            for n in sizes:
                values, own = (np.array([worth[which] for worth, _ in found[n]]) for which in (name, OWN))
                mean = f"{100 * values.mean():.1f}"
                cells.append(mean if name == OWN else f"{mean} ({points(values - own, '+')})")
            rows.append([f"{budget} tokens" if name == OWN else "", name, *cells])
    text += markdown(["choice for", "from", *(f"n = {n}" for n in sizes)], rows)
    return text + shown("What is said with the other budgets' scores", claims)
