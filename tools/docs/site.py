"""Lays out the sources of the documentation site, for MkDocs to build (``make docs``).

    python -m tools.docs.site build/site-pages

The site has the repository's own structure, so every link of a page leads to the same place as on a code host, those to
the README among them. Formulas become MathML, which browsers draw themselves: the site loads nothing from the network.
"""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "examples")
"""What the site shows beside ``docs/``."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE_OR_FORMULA = re.compile(r"`[^`]*`|\$([^$]+)\$")
ROW = re.compile(r"^\|.*$", re.MULTILINE)

Formula = Callable[[str, bool], str]
"""Makes MathML of a TeX formula; the second argument says whether it is a block of its own."""


def lay_out(root: Path, out: Path, formula: Formula) -> None:
    """Write the sources of the site into ``out``, which is replaced."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / "docs", out / "docs")
    for name in OUTSIDE:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, out / name)
    for page in out.rglob("*.md"):
        page.write_text(for_the_site(page.read_text(encoding="utf-8"), formula), encoding="utf-8")


def for_the_site(text: str, formula: Formula) -> str:
    """A page as the site's reader of Markdown takes it.

    Formulas (``$...$`` and fenced blocks of ``math``) become MathML, and the code of a table needs no ``\\`` before its
    bars there. Other fenced blocks stay as they are.
    """

    def inline(found: re.Match[str]) -> str:
        # Markdown takes a line that begins with <math> for a block of HTML.
        return f"<span>{formula(found[1], False)}</span>" if found[1] else found[0]

    def row(found: re.Match[str]) -> str:
        return re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), found[0])

    def prose(part: str) -> str:
        return ROW.sub(row, CODE_OR_FORMULA.sub(inline, part))

    parts, begin = [], 0
    for block in FENCED.finditer(text):
        shown = f"<div>{formula(block[2], True)}</div>" if block[1] == "math" else block[0]
        parts += [prose(text[begin : block.start()]), shown]
        begin = block.end()
    return "".join([*parts, prose(text[begin:])])


def mathml(tex: str, block: bool) -> str:
    """The same by latex2mathml, in one line."""
    from latex2mathml.converter import convert

    return " ".join(str(convert(tex.strip(), display="block" if block else "inline")).split())


if __name__ == "__main__":
    lay_out(ROOT, Path(sys.argv[1]), mathml)
