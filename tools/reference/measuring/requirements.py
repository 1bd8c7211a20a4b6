"""What the reference model must fulfil, computed from what was measured: asked, found, met or not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clasp_calib.search.space import OWN
from tools.reference.measuring.choosing import Choices
from tools.reference.measuring.evidence import LEVEL, Paired
from tools.reference.measuring.results import BLIND, MACRO, Results, Way, corrected
from tools.reference.measuring.settings import (
    ABLATED_BUDGET,
    BUDGETS,
    MIXTURE_BUDGET,
    MIXTURE_RHO,
    RANDOM,
    RHOS,
    SHALLOW,
    STAGES,
    UNPRUNED,
    Setting,
    ablated,
    at_rho,
    mixed,
    unpruned,
)
from tools.reference.measuring.speed import Speed
from tools.reference.measuring.tables import accuracy, points

MACRO_ASKED = 0.70
BLIND_GAIN, BLIND_CLASSES, BLIND_LEAST = 0.25, 7, 0.10
RANDOM_LOSS: Mapping[int, float] = {192: 0.05, 128: 0.10, 64: 0.20}
RHO_CLASSES, MIXTURE_CLASSES = 3, 2
SHALLOW_LOSS = 0.20
ANSWER_SECONDS, CANDIDATE_MS = 0.6, 70.0
NEEDED_STAGES = STAGES[:2]
"""The stages whose loss must be significant; the others' is reported."""


@dataclass(frozen=True)
class Row:
    """One line of a requirement's table: what was measured, and whether it is what was asked for."""

    what: str
    found: str
    good: bool | None = None
    """``None`` where it does not decide."""


@dataclass(frozen=True)
class Requirement:
    """One requirement and what was found."""

    number: int
    title: str
    asked: str
    found: str
    met: bool
    rows: Sequence[Row] = field(repr=False)


def requirements(selection: Results, test: Results, choices: Choices, speed: Speed) -> list[Requirement]:
    """All seven.

    Args:
        selection: every setting, on the split that choices were made on.
        test: what the choices are judged on.
        choices: made on ``selection``.
        speed: of the model.

    Raises:
        InputError: something was not measured.
    """
    return [
        _unpruned(test),
        _no_artefact(selection, test, choices),
        _pruning(test),
        _ratios(test, choices),
        _mixtures(test, choices.mixture, mixed, "a mixture"),
        _stages(test, choices.best[ABLATED_BUDGET], "best rho of each class"),
        _speed(speed),
    ]


def fixed_requirements(test: Results, mixture: str, rho: float) -> list[Requirement]:
    """Those that can be asked without choosing: 1, 3, 5 and 6, with what is alike for all classes.

    Args:
        test: what they are judged on.
        mixture: compared with the own layer, both unpruned.
        rho: of the stages.

    Raises:
        InputError: something was not measured.
    """
    return [
        _unpruned(test),
        _pruning(test),
        _mixtures(test, dict.fromkeys(test.classes, mixture), unpruned, f"{mixture} (both unpruned)"),
        _stages(test, dict.fromkeys(test.classes, rho), f"rho {rho:g}"),
    ]


def _significant(one: Paired) -> bool:
    return one.difference > 0 and one.p < LEVEL


def _unpruned(test: Results) -> Requirement:
    macro = test.mean(UNPRUNED)[MACRO]
    gains = test.differences(UNPRUNED, BLIND)
    high = sum(one.difference >= BLIND_GAIN for one in gains.values())
    least = min(one.difference for one in gains.values())
    accurate = macro.difference >= MACRO_ASKED
    rows = [
        Row("macro accuracy, percent", accuracy(macro), accurate),
        *(
            Row(f"{label}: unpruned - blind", points(one), one.difference >= BLIND_LEAST)
            for label, one in gains.items()
        ),
    ]
    return Requirement(
        1,
        "Unpruned",
        f"macro at least {100 * MACRO_ASKED:.0f}; {BLIND_CLASSES} classes at least {100 * BLIND_GAIN:.0f} points above "
        f"the trained question-only baseline, all at least {100 * BLIND_LEAST:.0f}",
        f"macro {100 * macro.difference:.1f}; {high} classes at least {100 * BLIND_GAIN:.0f} above, the least "
        f"{100 * least:+.1f}",
        accurate and high >= BLIND_CLASSES and least >= BLIND_LEAST,
        rows,
    )


def _no_artefact(selection: Results, test: Results, choices: Choices) -> Requirement:
    """A mixture is compared with itself unpruned: that it may know more than the own layer is no matter of pruning."""
    everywhere: dict[str, Paired] = {}
    own: list[Setting] = [at_rho(budget, rho) for budget in BUDGETS for rho in RHOS]
    for setting in (*own, *RANDOM.values()):
        everywhere[f"selection, {setting.name}"] = selection.macro(setting, UNPRUNED)
    for name in choices.mixtures:
        everywhere[f"selection, {mixed(name).name}"] = selection.macro(mixed(name), unpruned(name))
    ways: dict[str, Way] = {f"best rho at {budget}": _best(choices, budget) for budget in BUDGETS}
    ways |= {f"random at {budget}": setting for budget, setting in RANDOM.items()}
    ways[mixed(OWN).name] = mixed(OWN)
    for name, way in ways.items():
        everywhere[f"test, {name}"] = test.macro(way, UNPRUNED)
    by_class = {
        f"test, {label}, best rho at {budget}": test.difference(label, at_rho(budget, rho), UNPRUNED)
        for budget in BUDGETS
        for label, rho in choices.best[budget].items()
    }
    everywhere, by_class = corrected(everywhere), corrected(by_class)
    worse = [name for name, one in {**everywhere, **by_class}.items() if _significant(one)]
    highest = max(everywhere, key=lambda name: everywhere[name].difference)
    rows = [
        Row(f"{name}: pruned - unpruned", points(one), not _significant(one))
        for name, one in [*everywhere.items(), *by_class.items()]
    ]
    better_mixtures = test.differences(_best_mixtures(choices), UNPRUNED)
    better_mixtures[MACRO] = test.macro(_best_mixtures(choices), UNPRUNED)
    rows += [
        Row(f"test, {label}, best mixture at {MIXTURE_BUDGET} pruned - own layer unpruned", points(one))
        for label, one in better_mixtures.items()
    ]
    return Requirement(
        2,
        "No artefact of training at few tokens",
        "unpruned is at least as good as every pruned setting within noise: none is significantly better, in the mean "
        "over classes (a mixture is compared with itself unpruned) or, on the model's own layer, in a class",
        f"{len(worse)} of {len(everywhere) + len(by_class)} are significantly better; the highest macro difference is "
        f"{points(everywhere[highest])} ({highest})",
        not worse,
        rows,
    )


def _pruning(test: Results) -> Requirement:
    losses = corrected({str(budget): test.macro(UNPRUNED, RANDOM[budget]) for budget in BUDGETS})
    good = {budget: losses[str(budget)].difference >= asked for budget, asked in RANDOM_LOSS.items()}
    return Requirement(
        3,
        "Pruning matters",
        "random pruning loses at least "
        + ", ".join(f"{100 * loss:.0f} points macro at {budget}" for budget, loss in RANDOM_LOSS.items()),
        ", ".join(f"{100 * losses[str(budget)].difference:.1f} at {budget}" for budget in RANDOM_LOSS),
        all(good.values()),
        [Row(f"{budget}: unpruned - random", points(losses[str(budget)]), good[budget]) for budget in RANDOM_LOSS],
    )


def _ratios(test: Results, choices: Choices) -> Requirement:
    rows: list[Row] = []
    parts, good = [], True
    for budget in choices.rho_budgets:
        best, worst = (
            {label: at_rho(budget, rho) for label, rho in of[budget].items()} for of in (choices.best, choices.worst)
        )
        spread = test.differences(best, worst)
        differ = sum(map(_significant, spread.values()))
        for label, one in spread.items():
            ratios = f"{choices.best[budget][label]:g} - {choices.worst[budget][label]:g}"
            rows.append(Row(f"{budget}, {label}: rho {ratios}", points(one), _significant(one)))
        crossed = corrected(dict(_crossed(test, choices, budget)))
        rows += [Row(name, points(one), _significant(one)) for name, one in crossed.items()]
        apart = all(map(_significant, crossed.values()))
        pair = " and ".join(choices.pairs[budget])
        parts.append(f"at {budget} {differ} classes, and {pair} {'differ' if apart else 'do not differ'}")
        good = good and differ >= RHO_CLASSES and apart
    return Requirement(
        4,
        "rho matters",
        f"at 192 or 128 ({choices.wide} was chosen), and at 64: at least {RHO_CLASSES} classes differ significantly "
        "between best and worst rho, and two classes' best rho differ significantly, each being better with its own",
        "; ".join(parts),
        good,
        rows,
    )


def _crossed(test: Results, choices: Choices, budget: int) -> Iterator[tuple[str, Paired]]:
    """Each of a pair of classes with its own best ratio minus with the other's."""
    pair = choices.pairs[budget]
    for label, other in (pair, pair[::-1]):
        own, others = choices.best[budget][label], choices.best[budget][other]
        name = f"{budget}, {label}: its own rho {own:g} - {other}'s {others:g}"
        yield name, test.difference(label, at_rho(budget, own), at_rho(budget, others))


def _mixtures(test: Results, chosen: Mapping[str, str], seen: Callable[[str], Setting], called: str) -> Requirement:
    """Given class -> mixture, how mixtures are seen when they are compared with the own layer, and a name for them."""
    gains = test.differences({label: seen(name) for label, name in chosen.items()}, seen(OWN))
    better = [label for label, one in gains.items() if _significant(one)]
    loss = test.macro(mixed(OWN), mixed(SHALLOW))
    rows = [
        Row(f"{label}: {chosen[label]} - own layer", points(one), _significant(one)) for label, one in gains.items()
    ]
    deep_enough = loss.difference >= SHALLOW_LOSS
    rows.append(Row(f"macro: own layer - {SHALLOW} alone", points(loss), deep_enough))
    return Requirement(
        5,
        "Mixtures matter",
        f"at least {MIXTURE_CLASSES} classes are significantly better with {called} than with the own layer, and a "
        f"single shallow layer loses at least {100 * SHALLOW_LOSS:.0f} points macro (at {MIXTURE_BUDGET}, "
        f"rho {MIXTURE_RHO:g})",
        f"{len(better)} classes ({', '.join(better) or 'none'}); {SHALLOW} alone loses {100 * loss.difference:.1f}",
        len(better) >= MIXTURE_CLASSES and deep_enough,
        rows,
    )


def _stages(test: Results, chosen: Mapping[str, float], called: str) -> Requirement:
    """Given class -> ratio, and what the ratios are called."""
    ways = {label: at_rho(ABLATED_BUDGET, rho) for label, rho in chosen.items()}
    losses = corrected(
        {
            str(stage): test.macro(ways, {label: ablated(stage, rho) for label, rho in chosen.items()})
            for stage in STAGES
        }
    )
    good = {stage: _significant(losses[str(stage)]) for stage in STAGES}
    return Requirement(
        6,
        "Every stage matters",
        f"random selection of as many tokens at stage {', '.join(map(str, STAGES))} loses macro accuracy significantly "
        f"(at {ABLATED_BUDGET}, {called}; stage {STAGES[-1]} is reported and does not decide)",
        ", ".join(f"{100 * losses[str(stage)].difference:.1f} at {stage}" for stage in STAGES),
        all(good[stage] for stage in NEEDED_STAGES),
        [Row(f"stage {stage}: chosen - random", points(losses[str(stage)]), good[stage]) for stage in STAGES],
    )


def _speed(speed: Speed) -> Requirement:
    fast, cheap = speed.answer_seconds < ANSWER_SECONDS, speed.candidate_ms < CANDIDATE_MS
    return Requirement(
        7,
        "Speed",
        f"on one core in float32: an unpruned answer with the vision tower under {ANSWER_SECONDS:g} s, a candidate "
        f"from cached features at 64 tokens under {CANDIDATE_MS:.0f} ms",
        f"{speed.answer_seconds:.2f} s and {speed.candidate_ms:.1f} ms",
        fast and cheap,
        [
            Row("unpruned answer, seconds (median)", f"{speed.answer_seconds:.3f}", fast),
            Row("a candidate alone, ms (median)", f"{speed.candidate_ms:.1f}", cheap),
            Row("a candidate among those of a search, ms (median)", f"{speed.shared_candidate_ms:.1f}"),
        ],
    )


def _best(choices: Choices, budget: int) -> dict[str, Setting]:
    return {label: at_rho(budget, rho) for label, rho in choices.best[budget].items()}


def _best_mixtures(choices: Choices) -> dict[str, Setting]:
    return {label: mixed(name) for label, name in choices.mixture.items()}
