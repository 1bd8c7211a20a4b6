"""``clasp-calib artifact``: look at a calibrated artifact."""

from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.options import DEFAULT_RUN, JsonOption, RunOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.run_directory import RunDirectory

app = typer.Typer(no_args_is_help=True, help="Look at a calibrated artifact.")


@app.callback()
def artifact() -> None:
    """Look at a calibrated artifact."""


@app.command("show")
def show_artifact(
    directory: Annotated[Path | None, typer.Argument(help="Artifact directory; default: artifact/ of the run.")] = None,
    run: RunOption = DEFAULT_RUN,
    as_json: JsonOption = False,
) -> None:
    """Verify an artifact and print what it says.

    Example: clasp-calib artifact show --run my-run
    """
    from clasp_calib.artifacts.files import read_artifact

    place = directory or RunDirectory(run).artifact
    known = read_artifact(place)
    manifest = known.manifest
    if as_json:
        numbers = {
            name: {label: {"alpha": known.alpha(name, label), "rho": known.rho(name, label)} for label in known.classes}
            for name in known.budgets
        }
        emit({**manifest.model_dump(mode="json"), "numbers": numbers})
        return
    say(f"{manifest.name} {manifest.version}, format {manifest.format}, id {(manifest.id or '')[:16]}")
    say(
        f"for {manifest.model}: {manifest.shape.architecture}, {manifest.shape.text_layers} decoder layers, "
        f"{manifest.shape.tokens_per_image} visual tokens, fingerprint {manifest.fingerprint[:16]}"
    )
    for entry in manifest.budgets:
        calibrated = entry.results.get("calibrated", {})
        show(
            f"budget {entry.name}: {' / '.join(map(str, entry.counts))} entering layers "
            f"{' / '.join(map(str, manifest.starts))}, {entry.mean_tokens:.1f} a layer on average",
            ["class", "mixture of vision layers", "rho", "test score"],
            [
                [
                    label,
                    " + ".join(f"{w:.2f} x {i}" for i, w in enumerate(known.alpha(entry.name, label)) if w),
                    f"{known.rho(entry.name, label):g}",
                    f"{calibrated[label].mean:.1%}" if label in calibrated else "-",
                ]
                for label in known.classes
            ],
        )
