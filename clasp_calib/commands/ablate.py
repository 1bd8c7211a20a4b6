"""``clasp-calib ablate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    ArtifactOption,
    BudgetsOption,
    CacheOption,
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
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.calib.studies.confusion import Confusion


def ablate(
    name: Annotated[
        str,
        typer.Argument(
            help="parts, rho, layers, iterations, routing, raters, positions, features or starts.", show_default=False
        ),
    ],
    artifact: ArtifactOption = None,
    budget: BudgetsOption = None,
    confusion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="Of routing, how a router errs: labels with gold_class, or JSON with classes and counts; repeatable.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    cache: CacheOption = None,
    per_class: PerClassOption = None,
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
    """Measure what one part of a calibration contributes, by changing only that part.

    parts: fusion only, ratio only, both. rho and layers: the same for all classes. routing: a router that errs, at
    random or as in --confusion.
    iterations, raters, positions, features, starts: other values of one option.

    Example: clasp-calib ablate parts --run my-run --per-class 2
    """
    from clasp_calib.api.ablating import ablate as measure
    from clasp_calib.api.studied import StudyOptions
    from clasp_calib.commands.hiring import Wanted
    from clasp_calib.common.places import Places
    from clasp_calib.common.sample_sources import load_samples

    directory, confusions = RunDirectory(run), _confusions(name, confusion or [])
    places = Places.of(run, features=cache or directory.cache)
    table = load_samples(samples or directory.table, limit=limit, pictures=directory.pictures, image_root=image_root)
    options = StudyOptions(split, per_class, seed, strict=strict, checkpoint=checkpoint)
    wanted = Wanted(workers, threads, engine, ray_address, devices)
    loaded = load(model, device, dtype, run)
    crew = wanted.crew(loaded[0])
    place = artifact or directory.artifact
    given = (name, *loaded, place, table)
    report = measure(*given, budgets=budget, run=places, options=options, crew=crew, confusions=confusions)
    target, _ = report.files
    if as_json:
        emit({"report": target, **report.as_dict()})
        return
    for one in report.found:
        compared, _ = report.found[one]
        show(f"{report.title(one)}, {len(compared.samples)} questions", *report.rows(one, digits=0))
    for line in report.notes:
        say(line)
    say(f"table and JSON are in {directory.report}; brackets are 95 % intervals")


def _confusions(ablation: str, given: list[str]) -> "list[Confusion]":
    """What may be named; a file whose own name holds an equals sign is a file."""
    from clasp_calib.api.confusions import check_routed, read_confusions

    check_routed(ablation, given)
    found: list[Confusion] = []
    for one in given:
        name, equals, place = one.partition("=")
        found += read_confusions({name: place} if name and equals and not Path(one).exists() else [one])
    return read_confusions(found)
