"""No page's Markdown does what its writer did not mean, and the check for it finds each kind of accident."""

from pathlib import Path

import pytest
from accidents import accidents
from pages import PAGES, ROOT


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_have_no_accidents(path: Path):
    assert not accidents(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("page", "line", "what"),
    [
        ("Weights sum to\n1. Edit the file.", 2, "a list begins within a paragraph"),
        ("Layers 3\n+ 4 are mixed.", 2, "a list begins within a paragraph"),
        ("A range of 3\n- 4 layers.", 2, "a list begins within a paragraph"),
        ("As in a list:\n- one", 2, "a list begins within a paragraph"),
        ("- one\n  and\n  1. more", 3, "a list begins within a paragraph"),
        ("1. one\n2. two\n4. four", 3, "item 4 of a list follows 2"),
        ("Text\n\n3. three", 3, "item 3 of a list follows 0"),
        ("What is\n# 5?", 2, "a heading, rule or quotation begins within a paragraph"),
        ("where p\n> 0.5", 2, "a heading, rule or quotation begins within a paragraph"),
        ("a heading\n---", 2, "a heading, rule or quotation begins within a paragraph"),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 |", 3, "3 cells where the header has 2"),
        ("| a | b |\n|---|---|\n| x|y | 2 |", 3, "3 cells where the header has 2"),
        ("| a | b |\n| 1 | 2 |", 1, "a table without a line of dashes"),
        ("Text\n| a |\n|---|", 2, "a table without an empty line before it"),
        ("Say\n\n```text\nhello", 3, "a fence that is never closed"),
        ("Say `hello twice.", 1, "unbalanced"),
        ("**Say hello.", 1, "unbalanced"),
        ("[here](a page.md)", 1, "unbalanced"),
        ("Say <name> here.", 1, "<name> is taken for HTML"),
        ("- one\n  - nested", 2, "a list begins within a paragraph"),
        ("Say:\n\n    hello", 3, "a block of code by indentation"),
    ],
)
def test_accidents_are_found(page: str, line: int, what: str):
    first, *more = accidents(page)
    assert first.startswith(f"{line}: {what}")
    assert not more


def test_what_is_meant_is_no_accident():
    page = """# Title

Text with `a|b`, 3 > 2 and 1 * 2 * 3.

- one,
  which goes on
- two
    - nested

1. first
2. second, which goes
   on here

   and has a second paragraph
3. third

| a | b |
|---|---:|
| `x\\|y` | 2 |

<!-- a comment -->

```text
- not a list
1. nor this
| nor | a
```
"""
    assert not accidents(page)
