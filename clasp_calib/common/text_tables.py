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
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A ``<table>``, as notebooks show it."""

    def row(cells: Sequence[str], kind: str) -> str:
        tags = (f'<{kind} style="text-align:{"right" if place else "left"}">' for place in range(len(cells)))
        return f"<tr>{''.join(f'{tag}{escape(cell)}</{kind}>' for tag, cell in zip(tags, cells, strict=True))}</tr>"

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{row(header, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"
