"""A contest of pruning methods as Markdown tables and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from clasp_calib.artifacts.manifest import CALIBRATED, MACRO
from clasp_calib.calib.studies.comparison import Comparison
from clasp_calib.calib.studies.contest import UNPRUNED, Contest, Entrant
from clasp_calib.calib.studies.costs import PrefillCost
from clasp_calib.calib.studies.entrants import Refusal
from clasp_calib.calib.studies.equal_flops import at_equal_flops
from clasp_calib.calib.studies.intervals import Interval
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.report.tables import points, score

Costs = Mapping[tuple[str, str], PrefillCost]
"""By method and budget."""
LEAD = ["score", f"minus {CALIBRATED}", "p"]
HEADER = ["method", "n", *LEAD, "retained", "tokens a layer", "decoder GFLOPs", "tower GFLOPs"]
TIMED = ["prefill ms", "peak MiB"]
LONG = 12
"""More values than this in one knob are not printed; they are in the JSON."""


def contest_rows(
    contest: Contest, budget: str, costs: Costs, digits: int = 1, *, mixed: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a budget, the best first within the pruned.

    Args:
        contest: what was answered.
        budget: one of its budgets.
        costs: as measured, or empty.
        digits: decimals of scores and differences.
        mixed: the methods that are given the calibration's mixtures, with the calibration for comparison, instead of
            those without; no rows if none is.
    """
    header, body = [*HEADER, *(TIMED if costs else [])], list[list[str]]()
    entrants = {entrant.method: entrant for entrant in _block(contest, budget, mixed)}
    if not entrants:
        return header, body
    whole = contest.comparison(budget)
    compared = whole.part(list(map(whole.settings.index, entrants)), list(entrants))
    (unpruned,) = (contest.scores(e) for e in contest.at(budget) if e.method == UNPRUNED)
    base = contest.compared([UNPRUNED], [unpruned]).table()[UNPRUNED][MACRO].mean
    leads = _leads(compared, digits)
    for name, macro in _best_first(compared, entrants):
        entrant = entrants[name]
        row = [
            name,
            str(macro.samples),
            *leads[name],
            f"{100 * macro.mean / base:.1f} %" if base else "",
            str(contest.tokens(entrant)),
            f"{contest.flops(entrant) / 1e9:.3g}",
            "" if entrant.vision_flops is None else f"{entrant.vision_flops / 1e9:.3g}",
        ]
        if costs:
            cost = costs[entrant.method, entrant.budget]
            row += [f"{1000 * cost.seconds:.0f}", f"{cost.peak_bytes / 2**20:.1f}"]
        body.append(row)
    return header, body


def _leads(compared: Comparison, digits: int) -> dict[str, list[str]]:
    """Of each setting its score, its difference from the calibration and how probably that is chance: see `LEAD`."""
    table, chance = compared.table(), compared.chance(CALIBRATED)
    found = {CALIBRATED: [score(table[CALIBRATED][MACRO], digits), "", ""]}
    for name, p in chance.items():
        less = points(compared.difference(name, CALIBRATED)[MACRO], digits)
        found[name] = [score(table[name][MACRO], digits), less, "< 0.001" if p < 0.001 else f"{p:.3f}"]
    return found


def _best_first(compared: Comparison, entrants: Mapping[str, Entrant]) -> list[tuple[str, Interval]]:
    """Settings and their macro scores, the unpruned before all others."""
    macro = {name: of[MACRO] for name, of in compared.table().items()}
    return sorted(macro.items(), key=lambda of: (not entrants[of[0]].unpruned, -of[1].mean))


def equal_flops_rows(
    contest: Contest, budget: str, digits: int = 1, *, mixed: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a budget at equal decoder FLOPs; arguments as for `contest_rows`."""
    equal, entrants = at_equal_flops(contest, budget), {e.method: e for e in _block(contest, budget, mixed)}
    header, body = ["method", *LEAD, "between budgets"], list[list[str]]()
    if not entrants:
        return header, body
    names = [name for name in equal.comparison.settings if name in entrants]
    compared = equal.comparison.part(list(map(equal.comparison.settings.index, names)), names)
    leads = _leads(compared, digits)
    body += [[name, *leads[name], " and ".join(equal.between[name])] for name, _ in _best_first(compared, entrants)]
    body += [[name, *[""] * len(LEAD), "outside all of them"] for name in equal.outside if name in entrants]
    return header, body


def _block(contest: Contest, budget: str, mixed: bool) -> list[Entrant]:
    found = [entrant for entrant in contest.at(budget) if entrant.mixed == mixed]
    return [e for e in contest.at(budget) if e.method == CALIBRATED] + found if mixed and found else found


def off_budget(contest: Contest, budget: str) -> list[str]:
    """A warning that names the methods whose tokens are not what the budget says; empty if there are none."""
    off = [f"{name} ({share:+.0%})" for name, share in contest.off_budget(budget).items()]
    return [f"Not at equal cost: the mean tokens of {', '.join(off)} are off the budget."] if off else []


def class_rows(contest: Contest, budget: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the mean score of every class, in percent, marked where it differs from ours for sure."""
    compared = contest.comparison(budget)
    body = [["n", *map(str, compared.counts)]]
    for name, of in compared.table().items():
        lead = compared.difference(name, CALIBRATED)
        marks = {c: " +" if lead[c].low > 0 else " -" if lead[c].high < 0 else "" for c in of}
        body.append([name, *(f"{100 * of[c].mean:.1f}{marks[c]}" for c in compared.classes)])
    return ["method", *compared.classes], body


def contest_markdown(contest: Contest, costs: Costs, refusals: Sequence[Refusal]) -> str:
    """All budgets as Markdown."""
    parts = []
    for budget in contest.budgets:
        parts += [f"### budget {budget}", markdown_table(*contest_rows(contest, budget, costs))]
        parts += off_budget(contest, budget)
        header, rows = contest_rows(contest, budget, {}, mixed=True)
        if rows:
            parts += ["Every method given the calibration's mixtures too:", markdown_table(header, rows)]
        flops = f"At equal decoder FLOPs ({at_equal_flops(contest, budget).flops / 1e9:.3g} GFLOPs), interpolated"
        parts += [f"{flops}:", markdown_table(*equal_flops_rows(contest, budget))]
        if rows:
            parts += [
                f"{flops}, with the calibration's mixtures:",
                markdown_table(*equal_flops_rows(contest, budget, mixed=True)),
            ]
        parts += [
            f"By class; + and - mark a paired difference to {CALIBRATED} whose interval leaves out 0:",
            markdown_table(*class_rows(contest, budget)),
        ]
        named = [
            [e.method, e.published, settings(e)] for e in contest.at(budget) if not (e.mixed or e.method == UNPRUNED)
        ]
        parts += [
            "Settings that the budget came to:",
            markdown_table(["method", "its own tokens are", "settings"], named),
        ]
        gone = [[r.method, r.reason] for r in refusals if r.budget == budget]
        if gone:
            parts += ["Not at this budget:", markdown_table(["method", "why"], gone)]
    return "\n\n".join(parts) + "\n"


def settings(entrant: Entrant) -> str:
    """The knobs in one line, without those too long for it."""
    return ", ".join(f"{name} {_short(value)}" for name, value in entrant.knobs.items() if _brief(value))


def _brief(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(not isinstance(v, Sequence) for v in value.values())
    return not isinstance(value, Sequence) or isinstance(value, str) or len(value) <= LONG


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(_short(v) for v in value.values())
    if isinstance(value, list | tuple):
        return "/".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def contest_json(contest: Contest, costs: Costs, refusals: Sequence[Refusal]) -> dict[str, Any]:
    """Everything, for JSON."""
    return {"samples": len(contest.samples), "budgets": [_budget(contest, b, costs, refusals) for b in contest.budgets]}


def _budget(contest: Contest, budget: str, costs: Costs, refusals: Sequence[Refusal]) -> dict[str, Any]:
    scored = _scored(contest.comparison(budget))
    return {
        "budget": budget,
        "methods": [_entrant(contest, e, scored[e.method], costs) for e in contest.at(budget)],
        "equal_flops": _equal_flops(contest, budget),
        "refused": {r.method: r.reason for r in refusals if r.budget == budget},
    }


def _scored(compared: Comparison) -> dict[str, dict[str, Any]]:
    """Of each setting its scores and differences from the calibration, by class, and p adjusted for all of them."""
    chance = compared.chance(CALIBRATED)
    return {
        name: {
            "p": chance.get(name),
            "scores": {c: vars(i) for c, i in of.items()},
            "difference": {c: vars(i) for c, i in compared.difference(name, CALIBRATED).items()},
        }
        for name, of in compared.table().items()
    }


def _equal_flops(contest: Contest, budget: str) -> dict[str, Any]:
    equal = at_equal_flops(contest, budget)
    scored = _scored(equal.comparison)
    methods = [{"method": name, "between": list(budgets), **scored[name]} for name, budgets in equal.between.items()]
    return {"decoder_flops": equal.flops, "methods": methods, "outside": list(equal.outside)}


def _entrant(contest: Contest, entrant: Entrant, scored: Mapping[str, Any], costs: Costs) -> dict[str, Any]:
    cost = costs.get((entrant.method, entrant.budget))
    return {
        "method": entrant.method,
        "mixed": entrant.mixed,
        "settings": dict(entrant.knobs),
        "seeds": len(entrant.seeds),
        **scored,
        "tokens": vars(contest.tokens(entrant)),
        "decoder_flops": contest.flops(entrant),
        "vision_flops": entrant.vision_flops,
        "prefill": None if cost is None else vars(cost),
    }
