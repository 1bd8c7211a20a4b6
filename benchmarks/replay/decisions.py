"""Part `decisions`: every rule with everything measured, on samples that were not drawn."""

from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from .rules import RULES
from .statistics import markdown, points
from .tables import Floats, budgets_of, drawn, fitting, recorded

SIZES = (8, 16, 32, 64, 128)
OURS = "**one posterior of all classes**"
TEXT = """\
From every class n samples are drawn, the same for every rule, and every candidate is scored on all of them. Each rule
chooses a candidate for each class. What a choice is worth is its mean score on the samples whose pictures were not
drawn for any class. Numbers are means over the nine classes and {draws} draws, in percent. Behind ± is the 95 %
interval over draws of the difference from *one posterior of all classes*, which is the decision of the search.

- *former rule*: that of earlier versions. Halving on 20 of 36 samples, three finalists on the other 16, and the default
  unless the gain there is significant at 5 %.
- *best mean*: of each class by itself.
- *additive James-Stein*: means of a class, shrunk to the mean over classes; closed form.
- *one for all classes*: the candidate with the best mean over all classes.

"""


def compared(budget: str, n: int, path: Path, seed: int) -> Mapping[str, Floats]:
    """[K] true scores of what each rule chooses."""
    draw = drawn(recorded(budget, path), n, seed)
    found = {name: draw.worth(rule(draw, seed)) for name, rule in RULES.items()}
    belief = draw.belief
    return {**found, OURS: draw.worth([belief.leader(k) for k in range(len(draw.labels))])}


def section(pool: Executor, draws: range, path: Path) -> str:
    text = "## What the decision is worth\n\n" + TEXT.format(draws=len(draws))
    sizes = fitting(path, SIZES)
    for budget in budgets_of(path):
        labels = recorded(budget, path).labels
        found = {n: list(pool.map(partial(compared, budget, n, path), draws)) for n in sizes}
        means, worst = [], []
        for name in found[sizes[0]][0]:
            cells, lowest = [], []
            for n in sizes:
                values = np.array([of[name] for of in found[n]])
                ours, default = (np.array([of[other] for of in found[n]]) for other in (OURS, "default"))
                mean = f"{100 * values.mean():.1f}"
                apart = (values - ours).mean(1)
                cells.append(mean if name == OURS else f"{mean} ({points(apart, '+')})")
                gains = (values - default).mean(0)
                lowest.append(f"{100 * gains.min():+.1f} ({labels[int(gains.argmin())]})")
            means.append([name, *cells])
            worst.append([name, *lowest])
        columns = [f"{budget} tokens", *(f"n = {n}" for n in sizes)]
        text += f"### {budget} tokens\n\n" + markdown(columns, means)
        text += "The worst class: mean gain over the default, in points, and which class it is.\n\n"
        text += markdown(columns, [row for row in worst if row[0] != "default"])
    return text
