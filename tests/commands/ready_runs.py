"""Run directories that commands have been given in."""

import contextlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clasp_calib.cli import run


@dataclass(frozen=True)
class Ready:
    """What a user has after the whole path: see `finished`."""

    model: Path
    samples: Path
    run: Path
    said: dict[str, str]
    """Command -> what it printed."""

    @property
    def picture(self) -> Path:
        return self.samples.parent / "pictures" / "test-0.png"

    @property
    def words(self) -> list[str]:
        """The options that every command with a model gets."""
        return ["--run", str(self.run), "--model", str(self.model)]


def copy_of(ready: Ready, folder: Path) -> Ready:
    """A copy in a temporary folder of a test: as deep as the original, so that its relative paths hold."""
    shutil.copytree(ready.run, folder / "run")
    return Ready(ready.model, ready.samples, folder / "run", {})


def well(words: Sequence[str]) -> str:
    """Run a command that must end well, before there is a test to capture its output."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(words)
    assert code == 0, err.getvalue()
    return out.getvalue()
