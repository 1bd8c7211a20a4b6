"""The command line: signals, errors and exit codes. What it runs is loaded once the signals are heard."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from clasp_calib.common.errors import ClaspError, ClaspWarning

FAILED, MISTAKEN = 2, 70
GOES_ON = "label, cache-features, search and compare go on where they stopped when the same command is given again"


class _Ending:
    """Hears the signals that end a command. The first one lets it put things back, the next one ends it at once."""

    def __init__(self) -> None:
        self.told = signal.SIGINT

    def listen(self, heard: bool = False) -> None:
        """Listen from now on; one signal was ``heard`` already if the next one is to end at once."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What whoever started this wants it to live through, as nohup does, it lives through.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._at_once if heard else self._raise)

    @property
    def message(self) -> str:
        """What is said."""
        how = "interrupted" if self.told is signal.SIGINT else f"ended by {self.told.name}"
        return f"{how}; {GOES_ON}"

    @property
    def code(self) -> int:
        """The exit code, as shells count it."""
        return 128 + self.told

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.told = signal.Signals(number)
        self.listen(heard=True)
        while frame is not None:
            # An import may swallow what is raised in it, and there is nothing to put back: files survive any kill.
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                self._at_once(number, frame)
            frame = frame.f_back
        raise KeyboardInterrupt

    def _at_once(self, number: int, _: FrameType | None) -> None:
        self.told = signal.Signals(number)
        # A progress bar may have hidden the cursor.
        cursor = "\x1b[?25h" if os.isatty(2) else ""
        with suppress(OSError):
            os.write(2, f"{cursor}{self.message}\n".encode())
        os._exit(self.code)


_ENDING = _Ending()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 not as it should be, 2 cannot be done as asked, 70 a mistake of the package, 130 or 143 interrupted.
    """
    with warnings.catch_warnings():
        warnings.showwarning = partial(_warned, warnings.showwarning)
        code = _run(arguments)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return _complain(f"error: the output cannot be written ({error.strerror}); give it another place", FAILED)
        code = code or 1
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        from clasp_calib.commands.app import app

        app(args=arguments, prog_name="clasp-calib", standalone_mode=True)
    except KeyboardInterrupt:
        return _complain(_ENDING.message, _ENDING.code, "yellow")
    except SystemExit as end:
        if end.code == 128 + signal.SIGINT:
            return _complain(_ENDING.message, _ENDING.code, "yellow")
        return end.code if isinstance(end.code, int) else 0
    except Exception as error:
        advice = "; check that the place is there, may be written to and has room" * isinstance(error, OSError)
        return _complain(f"error: {error}{advice}", FAILED if isinstance(error, ClaspError | OSError) else MISTAKEN)
    return 0


def _warned(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    if issubclass(category, ClaspWarning):
        _complain(f"warning: {message}", 0, "yellow")
    else:
        otherwise(message, category, *where)


def _complain(text: str, code: int, style: str = "red") -> int:
    """Print one line, whatever a library put into its message, and return the exit code."""
    from rich.console import Console

    from clasp_calib.common.redaction import environment_secrets, redacted

    line = redacted(" ".join(text.split()), environment_secrets())
    line = "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in line)
    with suppress(OSError, SystemExit):  # Rich's own end where nobody reads it; our code tells what happened.
        Console(stderr=True, soft_wrap=True, highlight=False).print(line, style=style, markup=False)
    return code


def main() -> None:
    """Entry point of ``clasp-calib``."""
    _ENDING.listen()
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # In another locale, libraries would not find the names of files that Python gives them.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    # Arrow's own pool keeps half as much again as a large table needs.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with suppress(OSError):
        # Where an output is closed, the next file that is opened would get its number, and what is printed.
        while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(free)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter gets its number.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = run()
    _ENDING.listen(heard=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
