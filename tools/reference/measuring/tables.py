"""Markdown tables of what was measured, and how a number stands in one with its interval."""

from collections.abc import Sequence

from tools.reference.measuring.evidence import Paired


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def accuracy(one: Paired) -> str:
    """An accuracy in percent with its interval."""
    return f"{100 * one.difference:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def points(one: Paired, test: bool = True) -> str:
    """A difference in percentage points with its interval, and its p value if it is tested."""
    text = f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
    return f"{text}, p = {one.p:.2g}" if test else text
