"""Evaluation results as rows for a terminal and as Markdown."""

from collections.abc import Sequence
from html import escape

from clasp_calib.calib.studies.evaluation import BudgetResult, Evaluation
from clasp_calib.calib.studies.intervals import Interval


def rows(result: BudgetResult, settings: Sequence[str], digits: int = 1) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one a class, then macro, metrics of all samples together, tokens and time.

    Args:
        result: of one budget.
        settings: one column each.
        digits: decimals of scores and differences.
    """
    header = ["class", *settings, "calibrated - default"]
    body = [
        [
            label,
            *(score(result.scores[setting][label], digits) for setting in settings),
            points(result.gain[label], digits),
        ]
        for label in result.gain
    ]
    corpus = next(iter(result.corpus.values()), {})
    body += [[name, *(score(result.corpus[setting][name], digits) for setting in settings), ""] for name in corpus]
    body.append(["tokens a layer", *(f"{result.tokens(s):.1f}" for s in settings), ""])
    if result.seconds:
        body.append(
            ["seconds an answer", *(f"{result.seconds[s]:.3f}" if s in result.seconds else "" for s in settings), ""]
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
        parts.append(f"### {result.title}\n\n{table(*rows(result, tuple(result.scores)))}")
    return "\n\n".join(parts) + "\n"


def html(header: Sequence[str], body: Sequence[Sequence[str]], title: str) -> str:
    """An HTML table for a notebook; all columns but the first are flushed right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    rows = ("".join(_cell(number, cell) for number, cell in enumerate(row)) for row in body)
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are flushed right."""
    return "\n".join([_line(header), _line(["---", *["---:"] * (len(header) - 1)]), *map(_line, body)])


def _cell(number: int, text: str) -> str:
    side = "right" if number else "left"
    return f'<td style="text-align: {side}">{escape(text)}</td>'


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
