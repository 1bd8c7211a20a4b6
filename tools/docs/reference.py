"""Writes the pages of the reference: the command line and the Python interface, as the package describes them itself.

    python -m tools.docs.reference

writes docs/reference/cli.md and docs/reference/python.md; a test fails while they are not what this would write.
"""

import sys
from pathlib import Path

from tools.docs.cli_page import cli_page
from tools.docs.python_page import python_page

ROOT = Path(__file__).parents[2]
SHELF = ROOT / "docs" / "reference"


def pages() -> dict[Path, str]:
    """Path -> text of every generated page."""
    return {SHELF / "cli.md": cli_page(), SHELF / "python.md": python_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
