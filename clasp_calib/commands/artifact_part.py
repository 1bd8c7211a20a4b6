"""``clasp-calib artifact part``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clasp_calib.commands.options import DEFAULT_RUN, ArtifactOption, JsonOption, RunOption
from clasp_calib.commands.output import emit, say
from clasp_calib.common.run_directory import RunDirectory


def part(
    name: Annotated[
        Literal["fusion", "ratio"],
        typer.Argument(
            help="fusion: its mixtures, with rho = 1 and no other selector. ratio: its ratios and selectors, on the "
            "model's own layer."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the artifact that has that part alone.")],
    artifact: ArtifactOption = None,
    run: RunOption = DEFAULT_RUN,
    as_json: JsonOption = False,
) -> None:
    """Write one part of a calibration as an artifact of its own, to be served or measured by itself.

    `ablate parts` measures both on the samples of a calibration; this is for benchmarks that run elsewhere.

    Example: clasp-calib artifact part fusion --run my-run --out my-run/fusion-alone
    """
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.one_part import PARTS, one_part

    made = one_part(Artifact.load(artifact or RunDirectory(run).artifact), name).save(out)
    if as_json:
        emit({"artifact": out, "part": name, "id": made.manifest.id, "budgets": made.budgets})
        return
    say(f"{name} alone ({PARTS[name]}) for {', '.join(made.budgets)} is in {out}")
