"""Finds what a page's Markdown does that its writer did not mean.

A wrapped line that begins with ``1.``, ``-``, ``+``, ``#`` or ``>`` becomes a list, a heading or a quotation; one bar
or backtick too many breaks a table or the code of a sentence. Pages are read as GitHub reads them (CommonMark with
tables); what the site's reader (Python-Markdown) takes otherwise is refused too, such as a list without an empty line
before it.
"""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

READER = MarkdownIt("commonmark").enable("table")
ITEM = re.compile(r"( *)(?:([-+*])|(\d+)([.)])) ")
BLOCK = re.compile(r" {0,3}(#{1,6} |>|=+$|-+$)")
LEFT_OVER = ("`", "**", "](")
"""What a reader leaves in the text only if it could not make code, bold or a link of it."""


def accidents(page: str) -> list[str]:
    """What is wrong with a page, each beginning with the line's number."""
    lines = page.splitlines()
    code = _lines_of_code(page)
    found = [*_begun_by_chance(lines, code), *_broken_tables(lines, code), *_left_over(page)]
    return [f"{line}: {what}" for line, what in sorted(found)]


def _lines_of_code(page: str) -> set[int]:
    """Numbers, from 0, of the lines within fences (and the fences)."""
    blocks = [token for token in READER.parse(page) if token.type == "fence" and token.map]
    return {line for token in blocks if token.map for line in range(*token.map)}


def _begun_by_chance(lines: list[str], code: set[int]) -> Iterator[tuple[int, str]]:
    last: dict[int, int] = {}
    """Indentation -> number of the last item of the list that is open there, or 0 if it has none."""
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        if number in code or not line.strip():
            continue
        if item := ITEM.match(line):
            at, count = len(item[1]), int(item[3] or 0)
            nested = at % 4 == 0 and ITEM.match(before)
            if before.strip() and at not in last and not nested:
                yield number + 1, f"a list begins within a paragraph: {line}"
            elif count > 1 and last.get(at, 0) != count - 1:
                yield number + 1, f"item {count} of a list follows {last.get(at, 0)}: {line}"
            last = {key: value for key, value in last.items() if key < at} | {at: count}
        elif not line.startswith(" ") and not before.strip():
            last = {}
        if before.strip() and not before.startswith(("|", "#", ">", "<!--")) and BLOCK.match(line):
            yield number + 1, f"a heading, rule or quotation begins within a paragraph: {line}"


def _broken_tables(lines: list[str], code: set[int]) -> Iterator[tuple[int, str]]:
    columns = 0
    for number, line in enumerate(lines):
        if number in code or not line.startswith("|"):
            columns = 0
            continue
        cells = len(re.split(r"(?<!\\)\|", line.strip().strip("|")))
        if not columns:
            following = lines[number + 1] if number + 1 < len(lines) else ""
            if not re.fullmatch(r"\|(?: *:?-+:? *\|)+", following):
                yield number + 1, f"a table without a line of dashes under its header: {line}"
            if number and lines[number - 1].strip():
                yield number + 1, f"a table without an empty line before it: {line}"
            columns = cells
        elif cells != columns:
            yield number + 1, f"{cells} cells where the header has {columns}: {line}"


def _left_over(page: str) -> Iterator[tuple[int, str]]:
    at = 0
    for token in _flat(READER.parse(page)):
        at = token.map[0] + 1 if token.map else at
        if token.type == "code_block":
            yield at, "a block of code by indentation; put it into fences"
        if token.type == "fence" and token.map and not page.splitlines()[token.map[1] - 1].strip().startswith("```"):
            yield at, "a fence that is never closed"
        if token.type in ("html_inline", "html_block") and not token.content.startswith("<!--"):
            yield at, f"{token.content.strip()} is taken for HTML; put it into backticks"
        if token.type == "text" and any(mark in token.content for mark in LEFT_OVER):
            yield at, f"unbalanced: {token.content}"


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flat(token.children or [])
