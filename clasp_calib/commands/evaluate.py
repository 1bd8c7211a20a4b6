"""``clasp-calib evaluate``."""

from typing import Annotated

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
    RecomputeOption,
    RunOption,
    SamplesOption,
    SeedOption,
    StrictOption,
    ThreadsOption,
    WorkersOption,
)
from clasp_calib.commands.output import emit, say, show
from clasp_calib.commands.used_by import UnusedWith
from clasp_calib.common.run_directory import RunDirectory


def evaluate(
    artifact: ArtifactOption = None,
    budget: BudgetsOption = None,
    split: Annotated[str, typer.Option(help="The split to report on.")] = "test",
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    cache: Annotated[CacheOption, UnusedWith("recompute")] = None,
    recompute: RecomputeOption = False,
    per_class: PerClassOption = None,
    timed: Annotated[
        int, typer.Option(min=0, help="Answers to time for each setting, in one process; 0 times none.")
    ] = 5,
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    devices: DevicesOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
    strict: StrictOption = False,
    checkpoint: CheckpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the calibrated settings with no pruning, default pruning and random pruning.

    Default pruning is the model's own layer with rho = 1, random pruning the mean of three draws. The report also has
    the paper's rho, one setting for all classes, and exhaustive search where it was run. Intervals are 95 % intervals
    by picture. A killed evaluation goes on where it stopped.

    Example: clasp-calib evaluate --run my-run --split test
    """
    from clasp_calib.api.evaluating import EvaluationOptions, evaluate as measure
    from clasp_calib.artifacts.manifest import MACRO
    from clasp_calib.calib.studies.evaluation import SETTINGS
    from clasp_calib.commands.hiring import Wanted
    from clasp_calib.common.places import Places
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.report.tables import rows, score

    directory = RunDirectory(run)
    places = Places.of(run, features=None if recompute else cache or directory.cache)
    table = load_samples(samples or directory.table, limit=limit, pictures=directory.pictures, image_root=image_root)
    options = EvaluationOptions(split, per_class, seed, timed, limit is None, strict=strict, checkpoint=checkpoint)
    wanted = Wanted(workers, threads, engine, ray_address, devices)
    loaded = load(model, device, dtype, run)
    crew = wanted.crew(loaded[0])
    report = measure(
        *loaded, artifact or directory.artifact, table, budgets=budget, run=places, options=options, crew=crew
    )
    target, *pictures = report.files
    if as_json:
        emit({"report": target, **report.as_dict()})
        return
    for result in report.budgets:
        header, body = rows(result, SETTINGS, digits=0)
        show(result.title, header, body)
        for name, of in result.scores.items():
            if name not in SETTINGS:
                say(f"{name}: {MACRO} {score(of[MACRO], digits=1)}")
    if not report.recorded:
        say(
            "not recorded in the artifact: only a whole test split is, measured with the weights of its calibration, "
            "and only in a directory of yours"
        )
    elif report.as_recorded is not None:
        say("the same numbers as the artifact recorded before" if report.as_recorded else "other numbers than before")
    written = "table and plot are" if pictures else "the table is"
    say(f"{written} in {directory.report}; brackets are 95 % intervals")
