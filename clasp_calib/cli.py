"""The command line: mounts the commands, and turns errors into one red line and exit code 2."""

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from clasp_calib import __version__
from clasp_calib.commands import artifact_commands, cache_commands, rules_commands
from clasp_calib.commands.ablate import ablate
from clasp_calib.commands.cache_features import cache_features
from clasp_calib.commands.compare import compare
from clasp_calib.commands.compare_labels import compare_labels
from clasp_calib.commands.doctor import doctor
from clasp_calib.commands.evaluate import evaluate
from clasp_calib.commands.generate import generate
from clasp_calib.commands.label import label
from clasp_calib.commands.publish import publish, pull
from clasp_calib.commands.quickstart import quickstart
from clasp_calib.commands.route import route
from clasp_calib.commands.sample import sample
from clasp_calib.commands.search import search
from clasp_calib.commands.serve_labeler import serve_labeler
from clasp_calib.commands.train_router import train_router
from clasp_calib.commands.used_by import CheckedTyper
from clasp_calib.common.errors import ClaspError, ClaspWarning

FAILED, INTERRUPTED = 2, 130

app = CheckedTyper(
    name="clasp-calib",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(quickstart)
app.command("serve-labeler")(serve_labeler)
app.command()(label)
app.command("compare-labels")(compare_labels)
app.command()(sample)
app.command("train-router")(train_router)
app.command()(route)
app.command("cache-features")(cache_features)
app.add_typer(cache_commands.app, name="cache")
app.command()(search)
app.command()(evaluate)
app.command()(compare)
app.command()(ablate)
app.command()(generate)
app.add_typer(artifact_commands.app, name="artifact")
app.command()(publish)
app.command()(pull)
app.add_typer(rules_commands.app, name="rules")
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Calibrate class-adaptive layer fusion and visual token pruning (CLASP) for multimodal LLMs.

    The path: label -> cache-features -> search -> evaluate. `clasp-calib quickstart` walks it on an embedded model.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 not as it should be, 2 cannot be done as asked."""
    with warnings.catch_warnings():
        warnings.showwarning = partial(_warned, warnings.showwarning)
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(args=arguments, prog_name="clasp-calib", standalone_mode=True)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _complain(
                "interrupted; label, cache-features, search and compare go on where they stopped when the same "
                "command is given again",
                "yellow",
            )
        return end.code if isinstance(end.code, int) else 0
    except ClaspError as error:
        _complain(f"error: {error}", "red")
        return FAILED
    except OSError as error:
        _complain(f"error: {error}; check that the place is there, may be written to and has room", "red")
        return FAILED
    return 0


def _warned(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    if issubclass(category, ClaspWarning):
        _complain(f"warning: {message}", "yellow")
    else:
        otherwise(message, category, *where)


def _complain(text: str, style: str) -> None:
    """Print one line, whatever line breaks a library put into its message."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(" ".join(text.split()), style=style, markup=False)


def main() -> None:
    """Entry point of ``clasp-calib``."""
    sys.exit(run())


if __name__ == "__main__":
    main()
