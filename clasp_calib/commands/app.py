"""All commands, mounted."""

from typing import Annotated

import typer

from clasp_calib import __version__
from clasp_calib.commands import artifact_commands, cache_commands, rules_commands
from clasp_calib.commands.ablate import ablate
from clasp_calib.commands.artifact_part import part
from clasp_calib.commands.bench_serve import bench_serve
from clasp_calib.commands.cache_features import cache_features
from clasp_calib.commands.compare import compare
from clasp_calib.commands.compare_labels import compare_labels
from clasp_calib.commands.doctor import doctor
from clasp_calib.commands.evaluate import evaluate
from clasp_calib.commands.generate import generate
from clasp_calib.commands.label import label
from clasp_calib.commands.publish import publish, pull
from clasp_calib.commands.quickstart import quickstart
from clasp_calib.commands.reproduce import reproduce
from clasp_calib.commands.route import route
from clasp_calib.commands.sample import sample
from clasp_calib.commands.search import search
from clasp_calib.commands.serve_labeler import serve_labeler
from clasp_calib.commands.train_labeler import train_labeler
from clasp_calib.commands.train_router import train_router
from clasp_calib.commands.used_by import CheckedTyper
from clasp_calib.commands.vlmevalkit import vlmevalkit

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
app.command("train-labeler")(train_labeler)
app.command("train-router")(train_router)
app.command()(route)
app.command("cache-features")(cache_features)
app.add_typer(cache_commands.app, name="cache")
app.command()(search)
app.command()(evaluate)
app.command()(compare)
app.command()(ablate)
app.command()(reproduce)
app.command()(generate)
app.command("bench-serve")(bench_serve)
app.command()(vlmevalkit)
artifact_commands.app.command()(part)
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
