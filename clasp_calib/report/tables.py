"""Evaluation results as rows for a terminal and as Markdown."""

from collections.abc import Sequence

from clasp_calib.calib.studies.evaluation import BudgetResult, Evaluation
from clasp_calib.calib.studies.intervals import Interval
from clasp_calib.common.text_tables import markdown_table


def rows(result: BudgetResult, settings: Sequence[str], digits: int = 1) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one a class, then macro, metrics of all samples together, tokens and time.

    Args:
        result: of one budget.
        settings: one column each, behind the number of samples.
        digits: decimals of scores and differences.
    """
    header = ["class", "n", *settings, "calibrated - default"]
    body = [
        [
            label,
            str(result.gain[label].samples),
            *(score(result.scores[setting][label], digits) for setting in settings),
            points(result.gain[label], digits),
        ]
        for label in result.gain
    ]
    corpus = next(iter(result.corpus.values()), {})
    body += [
        [name, str(of.samples), *(score(result.corpus[setting][name], digits) for setting in settings), ""]
        for name, of in corpus.items()
    ]
    body.append(["tokens a layer", "", *(str(result.tokens(s)) for s in settings), ""])
    if result.seconds:
        body.append(
            [
                "seconds an answer",
                "",
                *(f"{result.seconds[s]:.3f}" if s in result.seconds else "" for s in settings),
                "",
            ]
        )
    return header, body


def score(value: Interval, digits: int) -> str:
    """Mean and interval in percent."""
    mean, low, high = (f"{100 * v:.{digits}f}" for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def points(value: Interval, digits: int) -> str:
    """A difference and its interval in points."""
    mean, low, high = (f"{100 * v:+.{digits}f}" for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def markdown(evaluation: Evaluation) -> str:
    """All budgets as Markdown tables."""
    parts = []
    for result in evaluation.budgets:
        parts.append(f"### {result.title}\n\n{markdown_table(*rows(result, tuple(result.scores)))}")
    return "\n\n".join(parts) + "\n"
