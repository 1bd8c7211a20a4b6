"""How sure a calibration is of its choices, for people: rows of tables, and what to do."""

from collections.abc import Sequence

from clasp_calib.artifacts.choices import ClassChoice, Sureness
from clasp_calib.artifacts.manifest import BudgetEntry

MEASURED_COLUMNS = ("score", "default", "spent")
SURE_COLUMNS = ("class", "gain", "worse", "> 1 pt", "own", "regret", "settle")
LEGEND = (
    "score, default: means of the choice and of the model's own setting, each on the samples of the class that it was "
    "measured on; spent: evaluations, and their share of an exhaustive search",
    "gain: of the choice over the default in points (hundredths of the score; of a nat where the search maximised nll "
    "or kl), with its 95 % interval, by the evidence of all classes; own: by "
    "the class's own samples alone, so that the rest is borrowed from other classes",
    "worse: probability that the choice is worse than the default; > 1 pt: by more than a point; regret: points that "
    "the truly best candidate is expected to be better by; settle: about so many more samples of the class would bring "
    "the regret under half a point; both are mostly too high, and too low in a class that was right everywhere",
)


def measured_cells(choice: ClassChoice) -> list[str]:
    """Cells under `MEASURED_COLUMNS`."""
    every = choice.candidates * (choice.samples or 0)
    share = f" ({choice.evaluations / every:.0%})" if every else ""
    return [
        _mean(choice.calibration, choice.calibration_samples),
        _mean(choice.default, choice.default_samples),
        f"{choice.evaluations}{share}",
    ]


def sure_rows(entry: BudgetEntry, labels: Sequence[str]) -> list[list[str]]:
    """Rows under `SURE_COLUMNS`, of those of the classes that have a verdict."""
    return [[label, *_sure_cells(verdict)] for label, verdict in _verdicts(entry, labels).items()]


def _sure_cells(verdict: Sureness) -> list[str]:
    gain, low, high = map(_points, (verdict.gain, verdict.low, verdict.high))
    own = "-" if verdict.own is None else _points(verdict.own)
    compared = [f"{gain} [{low}, {high}]", _chance(verdict.worse), _chance(verdict.much_worse), own]
    if verdict.gain == verdict.low == verdict.high == 0:
        compared = ["is the default", "-", "-", "-"]
    return [*compared, f"{100 * verdict.regret:.1f}", "?" if verdict.settle is None else str(verdict.settle)]


def advice(entry: BudgetEntry, labels: Sequence[str]) -> list[str]:
    """Sentences on how the choices of a budget were made for these classes, and on what would make them surer."""
    verdicts, lines = _verdicts(entry, labels), []
    if decision := entry.decision:
        fed = f", with what was measured at {', '.join(decision.budgets)}" if decision.budgets else ""
        shared = ", all classes together" if len(verdicts) > 1 else ""
        lines.append(
            f"each class has the candidate of the highest posterior mean ({decision.method}{shared}{fed}); "
            f"{100 * decision.regret:.1f} points of regret are expected, on average"
        )
        if kept := [f"{label} (not {of.leader})" for label, of in verdicts.items() if of.leader]:
            lines.append(
                f"the default is kept for {', '.join(kept)}: the probability of being worse is not under "
                f"{decision.cautious:g}, as --cautious asks"
            )
    if unsettled := {label: of.settle for label, of in verdicts.items() if of.settle != 0}:
        wanted = ", ".join(
            f"{label} ({'how many cannot be said' if more is None else f'about {more}'})"
            for label, more in unsettled.items()
        )
        spare = any(_unmeasured(entry.choices[label]) for label in unsettled)
        spend = "measure more (as by a greater --spend of the strategy pooled), or " if spare else ""
        lines.append(
            f"worth more samples, being over half a point of expected regret: {wanted}; {spend}add samples, and search "
            "again"
        )
    elif verdicts:
        lines.append("settled: more samples would hardly change what these choices are worth")
    if missing := [label for label in labels if not entry.choices[label].evaluations]:
        lines.append(f"no samples, so the model's own setting: {', '.join(missing)}")
    return lines


def _verdicts(entry: BudgetEntry, labels: Sequence[str]) -> dict[str, Sureness]:
    return {label: verdict for label in labels if (verdict := entry.choices[label].verdict)}


def _unmeasured(choice: ClassChoice) -> bool:
    return choice.evaluations < choice.candidates * (choice.samples or 0)


def _chance(value: float) -> str:
    # Nothing that was drawn from a posterior is impossible.
    return "<1%" if value < 0.005 else f"{value:.0%}"


def _points(value: float) -> str:
    # Adding zero takes the sign off what is rounded to it.
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _mean(value: float | None, samples: int | None) -> str:
    if value is None:
        return "-"
    # Without answers to compare with scores are likelihoods, which are no shares.
    mean = f"{value:.1%}" if 0 <= value <= 1 else f"{value:.3f}"
    return f"{mean} of {samples}" if samples else mean
