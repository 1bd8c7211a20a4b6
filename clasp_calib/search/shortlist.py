"""The selectors that a search goes on with beside CLASP: the three that a first round leaves.

Nobody knows beforehand which selector fits a model, and a whole search of all of them is long. So all of them are
asked a few questions of each class, with a few mixtures. What is believed of the answers is what a search would believe
of them. Three selectors stay that complement CLASP and each other: of which the best one of each class, at each budget,
is expected to be highest on average. Three that are good for the same classes are worth less.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common import plugins
from clasp_calib.common.containing import lacks_memory
from clasp_calib.common.errors import BudgetError, ComputationError, InputError, ModelError, PictureError
from clasp_calib.common.progress import note
from clasp_calib.common.pruning_options import INPUT
from clasp_calib.common.selector_choice import AUTO, CLASP, SelectorChoice
from clasp_calib.crew.tasks import Workers
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.selectors import GROUP, actions_at_input, selector_of
from clasp_calib.search.belief import Groups, believe, kernels
from clasp_calib.search.measuring import Desk, Measuring
from clasp_calib.search.noise import Floats
from clasp_calib.search.parts import Pools
from clasp_calib.search.shown import Trials
from clasp_calib.search.space import Prototype, SearchSpace, SpaceSelector
from clasp_calib.search.strategies.strategy import DEFAULT, Ask
from clasp_calib.search.watchers import Watcher

KEPT = 3
"""Selectors that stay. Our choice: with CLASP they make a search about half as long again as CLASP alone."""
QUESTIONS = 6
"""Of each class. Our choice: classes and budgets share what they show, so nine classes make 54 questions a budget."""
MIXTURES = 3
"""Of which each question sees two. Our choice: what a selector is worth depends on what the tokens show, so that those
are tried that differ most."""
DRAWS = 1000
"""From the posterior of each class at each budget."""
DECIMALS = 3
"""Of what three selectors are worth: a tenth of a point, which is about the luck of the draws."""


def contenders(space: SearchSpace, profile: str, adapter: Adapter) -> tuple[SpaceSelector, ...]:
    """Those that a space names beside ``clasp``; all that are installed, by name, where it names none.

    Args:
        space: may name some.
        profile: in ``input``, which servers run, those that nobody named choose before the decoder too.
        adapter: of the model.

    Raises:
        InputError: a package calls its selector `AUTO`.
    """
    known = plugins.brought(GROUP)
    if AUTO in known:
        raise InputError(
            f"an installed package brings a selector called {AUTO!r}, which stands for the choice of a search; remove "
            "that package, or name the selectors in a space"
        )
    named = tuple(selector for selector in space.selectors if selector.name != CLASP)
    if named:
        return named
    installed = tuple(SpaceSelector(name=name) for name in sorted({*known} - {CLASP}))

    def attempt(selector: SpaceSelector) -> None:
        actions_at_input(selector_of(SelectorChoice(selector.name)), adapter)

    return able(installed, attempt) if profile == INPUT else installed


def able(selectors: Sequence[SpaceSelector], attempt: Callable[[SpaceSelector], object]) -> tuple[SpaceSelector, ...]:
    """Those that do not fail in an attempt; a note says why others do.

    Raises:
        ClaspError: what is not the selector's: a cache, a picture that cannot be read, or a want of memory. It may be
            gone when a killed search goes on, which has to come to the same choice.
    """
    found = []
    for selector in selectors:
        try:
            attempt(selector)
        except (BudgetError, ComputationError, InputError, ModelError) as error:
            if isinstance(error, PictureError) or lacks_memory(error.__cause__ or error):
                raise
            note(f"the selector {selector.name!r} is left out of this search: {error}")
        else:
            found.append(selector)
    return tuple(found)


def first_space(space: SearchSpace, own_layer: int) -> SearchSpace:
    """What the first round tries of a space: all its selectors, few mixtures, and of ratios the smallest and largest.

    Mixtures are that which is nearest to the model's own layer, and those that differ most from it and each other: in
    how much weight lies on other layers (total variation, as for the posterior), and where that is equal in how far
    it would have to be moved through the layers to make one of the other (Wasserstein-1), for neighbours see the same.

    Args:
        space: with a prototype that shows pictures as they are.
        own_layer: the model's own.
    """
    plain = [prototype for prototype in space.prototypes if prototype.downsample is None]
    own = Prototype(name="own", weights={own_layer: 1.0})
    chosen = [min(plain, key=lambda one: _distance(one, own))]
    while len(chosen) < min(MIXTURES, len(plain)):
        left = [one for one in plain if one not in chosen]
        chosen.append(max(left, key=lambda one: tuple(np.min([_distance(one, other) for other in chosen], axis=0))))
    fewer = {
        "prototypes": tuple(chosen),
        "rhos": tuple(sorted({min(space.rhos), max(space.rhos)})),
        "seedings": space.seedings[:1],
        "relevances": space.relevances[:1],
    }
    return space.model_copy(update=fewer)


def _distance(one: Prototype, other: Prototype) -> tuple[float, float]:
    """Total variation, and the Wasserstein-1 distance over the layers."""
    moved = np.zeros(1 + max(*one.weights, *other.weights))
    for sign, weights in ((1, one.weights), (-1, other.weights)):
        for layer, weight in weights.items():
            moved[layer] += sign * weight
    return round(float(np.abs(moved).sum()) / 2, 9), round(float(np.abs(moved.cumsum()).sum()), 9)


@dataclass(frozen=True)
class FirstRound:
    """The questions of the first round.

    Attributes:
        space: see `first_space`.
        desks: of all budgets of a search; their candidates are those of the space.
    """

    space: SearchSpace
    desks: Sequence[Desk]

    def best(self, workers: Workers, watcher: Watcher) -> tuple[str, ...]:
        """The names of the selectors that stay, in their order; what was measured before is not measured again."""
        tables, classes, budgets = list[Floats](), list[str](), list[str]()
        for desk in self.desks:
            shown = dict.fromkeys(desk.pools, Trials())
            asks = first_asks(self.space, desk.candidates, desk.pools)
            measuring = Measuring(desk, workers, watcher, shown, partial(_most, len(asks[0].live)))
            measuring.measure(asks)
            tables += measuring.signals()
            classes += desk.pools
            budgets += [desk.budget] * len(desk.pools)
        candidates = self.desks[0].candidates
        belief = believe(tables, kernels(candidates), Groups(tuple(classes), tuple(budgets)))
        # Not the means: by these many sets are equal, for one that adds nothing that is known may add what is not.
        draws = [belief.draws(DRAWS, number, np.random.default_rng(number)) for number in range(len(tables))]
        names = np.array([one.selector.name if one.selector else CLASP for one in candidates])
        worth = {name: np.concatenate(draws)[:, names == name].max(1) for name in sorted({*names.tolist()})}
        return complementing(worth, {name: _cost(name) for name in worth if name != CLASP})

    def told(self, desk: Desk) -> list[Ask]:
        """What the round asked at one of its budgets of candidates that a search has too, for its desk."""
        place = {candidate: number for number, candidate in enumerate(desk.candidates)}
        (mine,) = (one for one in self.desks if one.budget == desk.budget)
        return [
            Ask(ask.label, ask.samples, [place[c] for n in ask.live if (c := mine.candidates[n]) in place])
            for ask in first_asks(self.space, mine.candidates, mine.pools)
        ]


def first_asks(space: SearchSpace, candidates: Sequence[Candidate], pools: Pools) -> list[Ask]:
    """A question at a time, of all candidates with the first mixture and with one of the others in turn.

    Args:
        space: see `first_space`.
        candidates: of the space, the default first.
        pools: samples by class.
    """
    first, *others = [prototype.name for prototype in space.prototypes]
    asks = []
    for label, pool in pools.items():
        for number in range(min(QUESTIONS, len(pool))):
            shown = (first, others[number % len(others)]) if others else (first,)
            live = [c for c, one in enumerate(candidates) if c == DEFAULT or one.prototype in shown]
            asks.append(Ask(label, [number], live))
    return asks


def complementing(worth: Mapping[str, Floats], costs: Mapping[str, int]) -> tuple[str, ...]:
    """The names of the selectors of which, together with CLASP, the best one is highest on average.

    Args:
        worth: name, ``clasp`` among them -> [N], what its best candidate is worth in N draws of classes and budgets.
        costs: name of each but ``clasp`` -> what decides between equal ones, before their names.
    """

    def rank(names: tuple[str, ...]) -> tuple[float, int, tuple[str, ...]]:
        best = np.maximum.reduce([worth[CLASP], *(worth[name] for name in names)])
        return -round(float(best.mean()), DECIMALS), sum(costs[name] for name in names), names

    return min(combinations(sorted(costs), min(KEPT, len(costs))), key=rank)


def _most(candidates: int, samples: int) -> int:
    return candidates * min(QUESTIONS, samples)


def _cost(name: str) -> int:
    """At a budget all work on as many tokens; but one that needs a whole prompt takes no beginning from a cache."""
    return int(selector_of(SelectorChoice(name)).whole_prompt)
