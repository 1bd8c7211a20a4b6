"""The pages of the documentation: their code blocks, and how their commands are run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from clasp_calib.cli import run

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *DOCS]
NOT_RUN = ("git", "cd", "make", "export", "vllm")
"""Commands of the pages that are no business of a test, or that tests/on_vllm tries; `make` runs the tests."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every command (a line that begins with ``$``) in the console blocks of a page, in order."""
    lines = "".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    return [shlex.split(line[1:]) for line in lines if line.startswith("$")]


def execute(words: list[str]) -> None:
    """Run a command in the current directory, which must end well; other programs than ours are refused."""
    if words[0] == "clasp-calib":
        assert run(words[1:]) == 0, f"{shlex.join(words)} failed"
    elif words[:2] == ["python", "-m"] and words[2].startswith(("clasp_calib.", "tools.")):
        # Whatever is the current directory, tools are those of this clone.
        subprocess.run([sys.executable, *words[1:]], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    else:
        assert words[0] in NOT_RUN, f"nobody said how to test {shlex.join(words)}"
