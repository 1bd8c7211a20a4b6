"""The table of docs/reference/architectures.md, from a run of the tests that show it (some minutes).

    python -m tools.docs.architectures

A cell is a test that passed, or a number: of the reason why there is none. An empty cell without a reason is an error.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from clasp_calib.common.text_tables import markdown_table
from clasp_calib.runtime.adapters import ADAPTERS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "architectures.md"
COMMANDS = ("cache-features", "--recompute", "search", "evaluate", "generate", "compare", "ablate")
COLUMNS = ("layered", "input", "images", "videos", "several", "batch", "beams", *(f"`{name}`" for name in COMMANDS))
MARKED = re.compile(r"(<!-- shown:begin -->\n).*(<!-- shown:end -->)", re.DOTALL)
Shown = Mapping[str, Mapping[str, bool]]

NO_VIDEOS = "The model takes no videos."
UNTRIED = "Its processor needs another package (`num2words`) for videos, with which it has not been tried."
FRAMES = "Its processor writes text between the frames of a video; it has not been tried."
INSIDE = "Its decoder's windows or recurrent layers cannot be pruned inside; the profile *input* is the default."
RECURRENT = "Refused under pruning: beam search over recurrent states is not shown to be right yet."
WHY: Mapping[tuple[str, str], str] = {
    ("llava", "videos"): NO_VIDEOS,
    ("llava_next", "videos"): NO_VIDEOS,
    ("gemma3", "layered"): INSIDE,
    ("gemma3", "videos"): NO_VIDEOS,
    ("glm4v", "videos"): FRAMES,
    ("idefics3", "videos"): NO_VIDEOS,
    ("minicpmv4_6", "layered"): INSIDE,
    ("minicpmv4_6", "videos"): FRAMES,
    ("minicpmv4_6", "beams"): RECURRENT,
    ("qwen3_5", "layered"): INSIDE,
    ("qwen3_5", "videos"): FRAMES,
    ("qwen3_5", "beams"): RECURRENT,
    ("smolvlm", "videos"): UNTRIED,
    ("llava_onevision", "several"): (
        "Its processor cuts a picture into tiles only where it is the only one of a prompt, and features are cached by "
        "the picture."
    ),
}
"""Why a cell is empty."""


def shown(*options: str) -> Shown:
    """What the tests show of each architecture.

    Args:
        options: of pytest, such as ``--collect-only``.
    """
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.shows(" in path.read_text(encoding="utf-8")]
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "shown.json"
        words = ["-m", "pytest", "-p", "shown_cells", "-m", "shows", "-q", "--no-header", "--shown", str(found)]
        path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        ended = subprocess.run(
            [sys.executable, *words, *options, *map(str, sorted(tests))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise SystemExit(ended.stdout + ended.stderr)
        result: Shown = json.loads(found.read_text(encoding="utf-8"))
        return result


def table(found: Shown) -> str:
    """Markdown: a row an architecture, and the reasons below.

    Raises:
        SystemExit: a cell is empty without a reason, or has a reason and a test.
    """
    reasons: list[str] = []

    def cells(name: str) -> Iterator[str]:
        for column in COLUMNS:
            tested, why = found.get(name, {}).get(column), WHY.get((name, column))
            if (tested is None) == (why is None):
                raise SystemExit(
                    f"{name}, {column}: {'no test and no reason' if why is None else 'a test and a reason'}"
                )
            if why is None:
                yield "✓" if tested else "failed"
                continue
            if why not in reasons:
                reasons.append(why)
            yield f"[{reasons.index(why) + 1}]"

    rows = [[f"`{name}`", *cells(name)] for name in sorted(ADAPTERS)]
    told = "\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))
    return f"{markdown_table(['`model_type`', *COLUMNS], rows)}\n\n{told}\n"


def page(found: Shown) -> str:
    """The whole page with a new table."""
    made = f"\n{table(found)}\n"
    return MARKED.sub(lambda marks: marks[1] + made + marks[2], PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(shown()), encoding="utf-8")
