"""Part `hard`: what the decision gains or loses on tables that were made hard."""

from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from .cases import CASES, drawn_case
from .decisions import OURS
from .rules import RULES
from .statistics import markdown, points
from .tables import Floats, budgets_of, fitting

SIZES = (8, 32, 128)
SHOWN = ("best mean of score and likelihood", "additive James-Stein", "one for all classes")
TEXT = """\
The recorded tables, changed. Everything is measured, as above. The first five rows are gains over the default in
points, means over the classes. The others are what a class loses against the best candidate of the samples that judge
it, which no rule can know, so that the best possible figure is somewhat below zero. Each draw singles out the next
class. {draws} draws, 95 % intervals over draws.

- *default best, in its place*: the candidate that is best over all classes is declared the default.
- *default best, out of place*: the default's column and the best one of each class change places, so that its
  neighbours in the grid are no neighbours. As in the row before, best means best on all samples, those of the judge
  included, so that the losses are overstated.
- *mixtures do not help*: every mixture scores as the own layer does at the same rho, less 5 % of the answers.
- *six classes at the ceiling*: there every candidate is right everywhere.
- *one class turned*: its best column changes places with its worst one, and so on.

"""


def judged(name: str, budget: str, n: int, path: Path, seed: int) -> dict[str, Floats]:
    """[K'] what rules gain in each class that counts."""
    draw, classes = drawn_case(name, budget, n, path, seed)
    held = draw.truth.max(1) if CASES[name].against_best else draw.truth[:, 0]
    belief = draw.belief
    choices = {OURS: [belief.leader(k) for k in range(len(draw.labels))]}
    choices |= {rule: RULES[rule](draw, seed) for rule in SHOWN}
    return {rule: (draw.worth(choice) - held)[classes] for rule, choice in choices.items()}


def section(pool: Executor, draws: range, path: Path) -> str:
    text = "## Hard tables\n\n" + TEXT.format(draws=len(draws))
    sizes = fitting(path, SIZES)
    for budget in budgets_of(path):
        rows = []
        for name in CASES:
            found = {n: list(pool.map(partial(judged, name, budget, n, path), draws)) for n in sizes}
            for rule in (OURS, *SHOWN):
                cells = [points([of[rule].mean() for of in found[n]], "+") for n in sizes]
                rows.append([name if rule == OURS else "", rule, *cells])
            print(rows[-len(SHOWN) - 1 :], flush=True)
        text += f"### {budget} tokens\n\n"
        text += markdown(["tables", "rule", *(f"n = {n}" for n in sizes)], rows)
    return text
