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
        text = page.read_text(encoding="utf-8")
        page.write_text(with_formulas(text, formula), encoding="utf-8")


def with_formulas(text: str, formula: Formula) -> str:
    """A page whose formulas (``$...$`` and fenced blocks of ``math``) are MathML; code stays as it is."""

    def shown_inline(found: re.Match[str]) -> str:
        # Markdown takes a line that begins with <math> for a block of HTML.
        return f"<span>{formula(found[1], False)}</span>" if found[1] else found[0]

    def of_prose(prose: str) -> str:
        return CODE_OR_FORMULA.sub(shown_inline, prose)

    parts, begin = [], 0
    for block in FENCED.finditer(text):
        shown = f"<div>{formula(block[2], True)}</div>" if block[1] == "math" else block[0]
        parts += [of_prose(text[begin : block.start()]), shown]
        begin = block.end()
    return "".join([*parts, of_prose(text[begin:])])


def mathml(tex: str, block: bool) -> str:
    """The same by latex2mathml, in one line."""
    from latex2mathml.converter import convert

    return " ".join(str(convert(tex.strip(), display="block" if block else "inline")).split())


if __name__ == "__main__":
    lay_out(ROOT, Path(sys.argv[1]), mathml)
