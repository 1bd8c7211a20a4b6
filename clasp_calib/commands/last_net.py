"""What nobody foresaw ends in one line: its traceback is kept in a file, and the line says where."""

import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from clasp_calib import __version__
from clasp_calib.common.containing import LESS_MEMORY, lacks_memory, reason_of
from clasp_calib.common.errors import ClaspError, ComputationError, InputError
from clasp_calib.common.redaction import environment_secrets, redacted
from clasp_calib.common.run_directory import RunDirectory


class MistakeError(Exception):
    """A mistake of the package, or of a library below it."""


@contextmanager
def traced(run: Path | None) -> Iterator[None]:
    """Run a command; what it raises of a library's or of our own mistakes is kept in ``errors.log`` of the run.

    Raises:
        ComputationError: with the place of the traceback; also for want of memory, whoever found it.
        InputError: a name of a file, or a text, that is not Unicode.
        MistakeError: anything else that is no error of ours.
    """
    try:
        yield
    except ComputationError as error:
        raise ComputationError(f"{error}; {_kept(error, run)}") from error
    except (ClaspError, OSError, typer.Exit, typer.Abort):
        raise
    except UnicodeEncodeError as error:
        raise InputError(
            f"{ascii(error.object)[:200]} is not Unicode, as all names and texts have to be; rename or mend it"
        ) from error
    except Exception as error:
        if lacks_memory(error):
            raise ComputationError(f"{reason_of(error)}: {LESS_MEMORY}; {_kept(error, run)}") from error
        raise MistakeError(
            f"{reason_of(error)}; this is a mistake of clasp-calib, or of a library below it: please report it. "
            f"What is recorded so far stays; {_kept(error, run)}"
        ) from error


def _kept(error: BaseException, run: Path | None) -> str:
    """Write a traceback, and say where it is."""
    begun = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} clasp-calib {__version__}\n"
    text = redacted(begun + "".join(traceback.format_exception(error)), environment_secrets())
    try:
        if run is not None and run.is_dir() and os.access(run, os.W_OK):
            place = RunDirectory(run).errors
        else:
            place = Path(tempfile.mkstemp(prefix="clasp-calib-", suffix=".log")[1])
        with place.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError as failed:
        return f"its traceback could not be kept ({failed})"
    return f"the traceback is in {place}"
