"""``clasp-calib reproduce``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.options import ImageRootOption, JsonOption
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import UnusedWith, UsedBy
from clasp_calib.common.errors import InputError

if TYPE_CHECKING:
    from clasp_calib.api.reproducing import ReproductionPlan


def reproduce(
    table: Annotated[
        int | None, typer.Argument(help="Table of the paper; without one, those that there are.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print command lines, disk and GPU hours, and stop.")] = False,
    dry: Annotated[
        bool,
        typer.Option("--dry", help="Run all steps on the embedded model and benchmark, on this CPU."),
        UnusedWith("plan"),
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Run directory; default: clasp-reproduce- and the table.", show_default=False),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option("--samples", help="Questions with answers to calibrate on, of training splits: any data format."),
        UnusedWith("dry"),
    ] = None,
    image_root: Annotated[ImageRootOption, UnusedWith("dry")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Where the table's model lies; default: its Hub id."),
        UnusedWith("dry"),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Server that labels, as serve-labeler starts it; default: vLLM in this environment."),
        UnusedWith("dry"),
    ] = None,
    device: Annotated[str, typer.Option(help="Torch device."), UnusedWith("dry")] = "cuda:0",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16."), UnusedWith("dry")] = "float16",
    utilisation: Annotated[
        float, typer.Option(help="Share of an A100's 312 TFLOP/s that is reached."), UsedBy("plan")
    ] = 0.3,
    pictures: Annotated[
        tuple[int, int], typer.Option(help="Drawn pictures to calibrate and to test on."), UsedBy("dry")
    ] = (8, 8),
    seed: Annotated[int, typer.Option("--seed", min=0, max=9_999, help="Of what is drawn.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a table of the CLASP paper again: its recipe says model, benchmarks, budgets and calibration.

    Results stand beside the numbers that the paper printed. A killed run goes on with the step that it was at. With
    full-size weights no recipe has been run by the authors of this package.

    Example: clasp-calib reproduce 10 --plan
    """
    from clasp_calib.api.model_loading import REFERENCE, load_model
    from clasp_calib.api.reproducing import ReproductionOptions, plan_reproduction, rehearse, reproduce as run_table
    from clasp_calib.crew.crew import Crew, workers_for

    if table is None:
        if plan or dry or run or samples:
            raise InputError("which table? Name one of those that `clasp-calib reproduce` lists")
        _list(as_json)
        return
    options = ReproductionOptions(samples, image_root, model, base_url, device, dtype, seed)
    if plan:
        planned = plan_reproduction(table, options=options, run=run, utilisation=utilisation)
        emit(planned.as_dict()) if as_json else _show(planned)
        return
    if dry:
        crew = Crew(workers_for(load_model(REFERENCE)[0]))
        report = rehearse(table, run=run, pictures=pictures, seed=seed, crew=crew)
    else:
        report = run_table(table, options, run=run)
    target, _ = report.files
    if as_json:
        emit({"report": target, **report.as_dict()})
        return
    show(report.heading, report.header, report.rows)
    for line in report.notes:
        say(f"- {line}")
    say(f"table and JSON are in {target.parent}")


def _list(as_json: bool) -> None:
    from clasp_calib.api.reproducing import paper_tables

    tables = paper_tables().values()
    if as_json:
        told = [
            {
                "table": of.recipe.table,
                "title": of.recipe.title,
                "model": of.model.id,
                "budgets": of.recipe.budgets,
                "not measured": of.lacking,
            }
            for of in tables
        ]
        emit({"tables": told})
        return
    rows = []
    for of in tables:
        can = "no" if of.recipe.missing else "in part" if of.lacking else "yes"
        rows.append([str(of.recipe.table), of.recipe.title, of.model.id, can])
    show("Recipes of the paper's tables", ["table", "title", "model", "real run"], rows)
    say("next: clasp-calib reproduce TABLE --plan says what a real run takes and lacks; --dry rehearses it here")


def _show(planned: "ReproductionPlan") -> None:
    of = planned.table
    say(f"Table {of.recipe.table}: {of.recipe.title}")
    say(f"model {of.model.id}, revision {of.model.revision}{'' if of.model.pinned else ' (not pinned)'}")
    for line in of.lacking:
        say(f"- not measured: {line}")
    for number, step in enumerate(planned.steps, start=1):
        hours = step.hours(planned.utilisation)
        costs = ["GPU hours not estimated"] if hours is None else [f"{hours:.2g} GPU hours"] if hours else []
        costs += [f"{step.disk / 1e9:.0f} GB"] if step.disk else []
        say(f"[{number}/{len(planned.steps)}] {', '.join(costs)}".rstrip())
        say(f"  {shlex.join(step.argv)}")
    if planned.steps:
        say(f"in all {planned.hours:.0f} GPU hours and {planned.disk / 1e9:.0f} GB")
    for line in [*planned.told, *of.notes]:
        say(f"- {line}")
