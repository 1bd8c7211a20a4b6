"""Small tables as plain text, Markdown and HTML; all columns but the first are flushed right."""

from collections.abc import Sequence
from html import escape


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them."""
    lines = [header, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(row)).rstrip()
        for row in (list(zip(line, widths, strict=True)) for line in lines)
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """GitHub's tables."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(markdown_cell, line))} |" for line in lines)


def markdown_cell(text: str) -> str:
    """A text that does not end its cell."""
    return text.replace("|", "\\|")


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A ``<table>``, as notebooks show it."""

    def line(row: Sequence[str]) -> str:
        sides = ("right" if place else "left" for place in range(len(row)))
        cells = zip(sides, map(escape, row), strict=True)
        return "".join(f'<td style="text-align:{side}">{cell}</td>' for side, cell in cells)

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    return f"<table>{title}<tr>{head}</tr>{''.join(f'<tr>{line(row)}</tr>' for row in rows)}</table>"
