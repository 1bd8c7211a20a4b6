"""``clasp-calib compare``."""

from typing import Annotated

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    ArtifactOption,
    BudgetsOption,
    CheckpointOption,
    DeviceOption,
    DevicesOption,
    DtypeOption,
    EngineOption,
    ImageRootOption,
    JsonOption,
    LimitOption,
    ModelOption,
    PerClassOption,
    RayAddressOption,
    RunOption,
    SamplesOption,
    SeedOption,
    StrictOption,
    ThreadsOption,
    WorkersOption,
)
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory


def compare(
    artifact: ArtifactOption = None,
    budget: BudgetsOption = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods to compare with, such as fastv,dart, or none; default: all.", show_default=False),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ARTIFACT",
            help="Another artifact of the model to compare with, and the name of its row; repeatable.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split to compare on.")] = "test",
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    per_class: PerClassOption = None,
    solve_on: Annotated[
        int,
        typer.Option(min=1, help="Calibration samples of a class for solving parameters that depend on the picture."),
    ] = 24,
    timed: Annotated[int, typer.Option(min=0, help="Prefills that one process times for each method.")] = 5,
    clip: Annotated[
        str | None,
        typer.Option(
            help="Directory of the CLIP model whose vision tower the model has: cdpruner rates patches by its text "
            "tower. Without it the question's embeddings do, and the row is cdpruner-embeddings.",
            show_default=False,
        ),
    ] = None,
    mixture: Annotated[
        bool, typer.Option(help="Also give every method the calibration's mixtures of vision layers.")
    ] = True,
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    devices: DevicesOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    strict: StrictOption = False,
    checkpoint: CheckpointOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an artifact with published pruning methods, and with other artifacts, all at equal cost.

    All methods answer the same questions by greedy decoding. The parameters of each are solved so that a decoder layer
    works on as many visual tokens, on average, as the budget says. A killed comparison goes on where it stopped.

    Example: clasp-calib compare --run my-run --methods fastv,dart --per-class 2
    """
    from clasp_calib.api.comparing import ComparisonOptions, compare as contest
    from clasp_calib.commands.hiring import Wanted
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.report.contest_tables import contest_rows, off_budget

    directory = RunDirectory(run)
    chosen = [name.strip() for name in methods.split(",")] if methods else None
    if chosen == ["none"]:
        chosen = []
    others = _named(beside or [])
    table = load_samples(samples or directory.table, limit=limit, pictures=directory.pictures, image_root=image_root)
    options = ComparisonOptions(
        split, per_class, seed, solve_on, timed, clip, mixture, strict=strict, checkpoint=checkpoint
    )
    wanted = Wanted(workers, threads, engine, ray_address, devices)
    loaded = load(model, device, dtype, run)
    crew = wanted.crew(loaded[0])
    place = artifact or directory.artifact
    given = (*loaded, place, table, chosen)
    report = contest(*given, budgets=budget, run=run, beside=others, options=options, crew=crew)
    target, _, *pictures = report.files
    if as_json:
        emit({"report": target, **report.as_dict()})
        return
    for name in report.budgets:
        header, body = contest_rows(report.contest, name, report.costs, digits=0)
        show(f"budget {name}, {len(report.contest.samples)} questions", header, body)
        header, body = contest_rows(report.contest, name, {}, digits=0, mixed=True)
        if body:
            show(f"budget {name}, with the calibration's mixtures", header, body)
        for line in off_budget(report.contest, name):
            say(f"budget {name}: {line}")
    for refusal in report.refusals:
        say(f"{refusal.method} is not at {refusal.budget}: {refusal.reason}")
    written = "tables, JSON and picture" if pictures else "tables and JSON"
    say(f"{written} are in {directory.report}; brackets are 95 % intervals")


def _named(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, place = (part.strip() for part in pair.partition("="))
        if not (name and place):
            raise InputError(
                f"--beside {pair!r} does not name an artifact; expected NAME=ARTIFACT, such as "
                "--beside 'last month=old-run/artifact'"
            )
        if name in found:
            raise InputError(f"--beside {name!r} is given twice; give each artifact a name of its own")
        found[name] = place
    return found
