"""``clasp-calib vlmevalkit``."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from clasp_calib.commands.options import DeviceOption, DtypeOption, JsonOption
from clasp_calib.commands.output import emit, say


def vlmevalkit(
    arguments: Annotated[
        list[str], typer.Argument(help="After --: arguments of VLMEvalKit's run.py, --model clasp among them.")
    ],
    model: Annotated[
        str, typer.Option(help="Model directory, Hub id, or 'reference' for the embedded model.")
    ] = "reference",
    artifact: Annotated[
        str | None, typer.Option(help="Artifact directory or org/name@version; without one nothing is pruned.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget; default: the artifact's largest. A method needs one.")
    ] = None,
    label: Annotated[
        str, typer.Option("--class", help="Class of all questions; auto: the artifact's router or the rules say it.")
    ] = "auto",
    method: Annotated[
        str | None, typer.Option(help="A published method instead of an artifact, such as fastv; or default, random.")
    ] = None,
    solve_on: Annotated[
        str | None, typer.Option(help="Table of samples, for methods whose knobs follow from pictures.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of methods with random parts.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a model without the weights of the artifact's calibration.")
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="Accept a model with other weights by their digest, as the warning names it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a pruned model with VLMEvalKit: its own run.py, which then knows the model clasp.

    VLMEvalKit must be installed. Ends with 1 if a benchmark was not scored.

    Example: clasp-calib vlmevalkit --artifact my-run/artifact -- --data MMStar --model clasp
    """
    from clasp_calib.harness.harness_options import HarnessOptions
    from clasp_calib.harness.vlmeval_launch import run_vlmevalkit

    options = HarnessOptions(
        pretrained=model,
        artifact=artifact,
        budget=budget,
        classes=label,
        method=method,
        solve_on=solve_on,
        seed=seed,
        device=device,
        dtype=dtype,
        strict=strict,
        checkpoint=checkpoint,
    )
    done = run_vlmevalkit(options, arguments, max_new_tokens=max_new_tokens, stdout=sys.stderr if as_json else None)
    if as_json:
        emit({**asdict(done), "failed": done.failed})
    elif done.datasets:
        for name, reason in done.failed.items():
            say(f"{name} has no scores: {reason}")
        if done.visual_tokens is not None:
            say(f"visual tokens in {done.visual_tokens}")
        say(f"answers and scores in {done.directory}")
    if done.failed:
        raise typer.Exit(1)
