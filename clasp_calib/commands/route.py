"""``clasp-calib route``."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import UnusedWith


def route(
    question: Annotated[str, typer.Argument(help="The question.")],
    run: RunOption = DEFAULT_RUN,
    router: Annotated[
        Path | None,
        typer.Option(
            help="A router file; default: router.safetensors of the run, or the packaged one if there is none."
        ),
        UnusedWith("artifact"),
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Use the router of this artifact: a directory or org/name@version.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which class a question gets, how probable it is, and which parts of it weighed most.

    Example: clasp-calib route "How many dogs are there?" --run my-run
    """
    from dataclasses import asdict

    from clasp_calib.api.routers import route as routed
    from clasp_calib.common.progress import note
    from clasp_calib.common.run_directory import RunDirectory

    found = routed(question, router=router, artifact=artifact, run=run)
    if router is None and artifact is None and not RunDirectory(run).router.is_file():
        note(f"there is no router in {run}, so the packaged one answers")
    if as_json:
        emit({"class": found.label, **{name: value for name, value in asdict(found).items() if name != "label"}})
        return
    if found.abstained:
        say(
            f"class {found.label}: {found.by} abstains, since {found.likeliest} has {found.confidence:.1%}, "
            f"less than {found.threshold:.0%}"
        )
    else:
        say(f"class {found.label}, confidence {found.confidence:.1%} ({found.by})")
    rows = [[repr(reason.text), f"{reason.weight:+.3f}"] for reason in found.reasons]
    show(f"what spoke most for {found.likeliest} (^ and $ are the ends of the question)", ["part", "weight"], rows)
