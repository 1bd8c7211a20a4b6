"""``clasp-calib evaluate``."""

from typing import Annotated

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    REFERENCE,
    ArtifactOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    LimitOption,
    ModelOption,
    RecomputeOption,
    RunOption,
    SamplesOption,
    SeedOption,
)
from clasp_calib.commands.output import emit, plot_path, say, show
from clasp_calib.commands.sources import cache_of
from clasp_calib.common.run_directory import RunDirectory


def evaluate(
    artifact: ArtifactOption = None,
    budget: Annotated[list[str] | None, typer.Option("--budget", help="Default: all budgets of the artifact.")] = None,
    split: Annotated[str, typer.Option(help="The split to report on.")] = "test",
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    samples: SamplesOption = None,
    cache: CacheOption = None,
    recompute: RecomputeOption = False,
    per_class: Annotated[int | None, typer.Option(min=1, help="Samples a class, at most; default: all.")] = None,
    timed: Annotated[int, typer.Option(min=0, help="Answers to time for each setting; 0 times none.")] = 5,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the calibrated settings with no pruning, default pruning and random pruning.

    Default pruning is the model's own layer with rho = 1. The report also has the paper's rho, one setting for all
    classes, and exhaustive search where it was run. Intervals are 95 % bootstrap intervals by picture.

    Example: clasp-calib evaluate --run my-run --split test
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.artifacts.files import write_artifact
    from clasp_calib.artifacts.hub import locate_artifact
    from clasp_calib.artifacts.manifest import MACRO, Measured
    from clasp_calib.calib.dataset import by_class, load_samples, of_split
    from clasp_calib.calib.studies.evaluation import SETTINGS, evaluate_artifact
    from clasp_calib.common.hashing import sha256_file
    from clasp_calib.report.plots import plot_evaluation
    from clasp_calib.report.tables import markdown, rows, score
    from clasp_calib.runtime.schedule import parse_budget

    directory = RunDirectory(run)
    directory.prepare()
    picture = plot_path(directory.report / f"evaluation-{split}.png")
    place = artifact or directory.artifact
    home = locate_artifact(place)
    known = read_artifact(home)
    names = [parse_budget(b).name for b in budget] if budget else list(known.budgets)
    for name in names:
        known.entry(name)
    table = samples or directory.labels
    chosen = of_split(load_samples(table, known.classes, limit), split)
    loaded, processor = load(model, device, dtype)
    evaluation = evaluate_artifact(
        loaded,
        processor,
        known,
        names,
        by_class(chosen, known.classes, per_class, seed),
        cache_of(directory, cache, recompute),
        seed,
        timed,
    )
    directory.record("evaluate", {"artifact": place, "split": split, "samples": table, "budgets": names, "seed": seed})
    directory.report.mkdir(exist_ok=True)
    target = directory.report / f"evaluation-{split}.md"
    target.write_text(markdown(evaluation), encoding="utf-8")
    if picture:
        plot_evaluation(evaluation, picture)
    measured = Measured(samples=sha256_file(table), split=split, seed=seed)
    recorded = [known.entry(name).measured for name in names]
    again = all(one == measured for one in recorded)
    agrees = evaluation.agrees_with(known) if again else None
    if whole := home == place and split == "test" and limit is None and per_class is None:
        write_artifact(evaluation.recorded_in(known, measured), place)
    if as_json:
        emit({"report": target, "as_recorded": agrees, **evaluation.as_dict()})
        return
    for result in evaluation.budgets:
        header, body = rows(result, SETTINGS, digits=0)
        show(result.title, header, body)
        for name, of in result.scores.items():
            if name not in SETTINGS:
                say(f"{name}: {MACRO} {score(of[MACRO], digits=1)}")
    if not whole:
        say("not recorded in the artifact: only a whole test split is, and only in a directory of yours")
    elif agrees is not None:
        say("the same numbers as the artifact recorded before" if agrees else "other numbers than recorded before")
    say(f"{'table and plot are' if picture else 'the table is'} in {directory.report}; brackets are 95 % intervals")
