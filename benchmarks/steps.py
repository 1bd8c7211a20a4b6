"""Commands as steps of a measurement whose results are kept, so that a killed one goes on."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from clasp_calib.cli import run


def command(*arguments: str) -> dict[str, Any]:
    """Run one command with ``--json`` and return what it printed; of events, one a line, the last."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run([*arguments, "--json"])
    if code:
        raise SystemExit(code)
    text = printed.getvalue()
    result: dict[str, Any] = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
    return result


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was made before and is kept in a file, or is made now."""
    if not path.is_file():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(make()), encoding="utf-8")
        part.replace(path)
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
