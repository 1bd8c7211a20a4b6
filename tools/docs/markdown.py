"""Markdown of the package's docstrings and help texts."""

import re

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)


def inline(text: str) -> str:
    """One line of Markdown: double backticks become single ones, and nothing else is taken for markup."""
    parts = CODE.split(" ".join(text.split()))
    plain = [re.sub(r"([*\[\]])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    code = [f"`{part.strip('`')}`" for part in parts[1::2]]
    return "".join(piece for pair in zip(plain, [*code, ""], strict=True) for piece in pair)


def cell(text: str) -> str:
    """The same within a table."""
    return inline(text).replace("|", "\\|")


def paragraphs(text: str) -> str:
    """The paragraphs of a docstring, one a line; indented blocks are code."""
    blocks = [block for block in re.split(r"\n[ \t]*\n", text.strip("\n")) if block.strip()]
    return "\n\n".join(_code(block) if block.startswith("    ") else _prose(block) for block in blocks)


def _prose(block: str) -> str:
    if re.match(r"[-*] ", block):
        return "\n".join(f"- {inline(item)}" for item in re.split(r"(?:^|\n)[-*] ", block) if item.strip())
    return inline(block)


def _code(block: str) -> str:
    lines = [line[4:] for line in block.splitlines()]
    return "\n".join(["```python", *lines, "```"])
