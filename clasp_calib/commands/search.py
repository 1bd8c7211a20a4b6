"""``clasp-calib search``."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clasp_calib.calib.scoring.objective import Objective
from clasp_calib.commands.models import load, named
from clasp_calib.commands.options import (
    DEFAULT_BUDGETS,
    DEFAULT_RUN,
    BudgetOption,
    CacheOption,
    ClassFromOption,
    DefaultClassOption,
    DeviceOption,
    DevicesOption,
    DtypeOption,
    EngineOption,
    ImageRootOption,
    LimitOption,
    MethodOption,
    ModelOption,
    Profile,
    RayAddressOption,
    RecomputeOption,
    Relevance,
    RunOption,
    SamplesOption,
    SeedOption,
    TaxonomyOption,
    ThreadsOption,
    WorkersOption,
)
from clasp_calib.commands.output import say
from clasp_calib.commands.used_by import UnusedWith, UsedBy
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.common.pruning_options import PruningOptions
    from clasp_calib.router_labeling.router import Router


def search(
    budget: BudgetOption = DEFAULT_BUDGETS,
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = None,
    samples: SamplesOption = None,
    image_root: ImageRootOption = None,
    cache: Annotated[CacheOption, UnusedWith("recompute")] = None,
    recompute: RecomputeOption = False,
    taxonomy: TaxonomyOption = None,
    class_from: ClassFromOption = None,
    default_class: DefaultClassOption = None,
    one_class: Annotated[
        bool,
        typer.Option("--one-class", help="Calibrate one setting for all samples; no labels are needed."),
        UnusedWith("taxonomy"),
        UnusedWith("class_from"),
    ] = False,
    space: Annotated[Path | None, typer.Option(help="Search space (YAML); --plan writes the default.")] = None,
    method: MethodOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Artifact directory; default: artifact/ of the run."), UnusedWith("plan")
    ] = None,
    per_class: Annotated[int, typer.Option(min=2, help="Samples of a class to search on, at most.")] = 2000,
    strategy: Annotated[
        Literal["auto", "pooled", "race", "grid", "tpe", "two-step", "halving"],
        typer.Option(help="Which candidates are measured on which samples; auto: pooled, above 2,000 a class race."),
    ] = "auto",
    spend: Annotated[
        str | None,
        typer.Option(help="Share of the exhaustive evaluations to spend; default: 15%, with --until all."),
        UsedBy("strategy", "auto", "pooled"),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            help="Stop once choices are expected this near the best, in points (nll, kl: hundredths of a nat)."
        ),
        UsedBy("strategy", "auto", "pooled"),
    ] = None,
    cautious: Annotated[
        float | None,
        typer.Option(help="Keep the default candidate unless P(worse) is under this, such as 0.3."),
    ] = None,
    objective: Annotated[
        Objective,
        typer.Option(help="What to maximise; nll: the answer's likelihood; kl, without answers: likeness to unpruned."),
    ] = "metric",
    indifference: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="Points (nll, kl: hundredths of a nat) that do not matter; default: 0.5.",
        ),
        UsedBy("strategy", "race"),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(min=1, help="Samples before the first rejection; default: 40 or a fifth in a race, 6 in halving."),
        UsedBy("strategy", "race", "halving"),
    ] = None,
    eta: Annotated[
        float | None,
        typer.Option(min=1.1, help="Each rung keeps 1/ETA of the candidates; default: 2."),
        UsedBy("strategy", "halving"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Candidates to try; default: 64."), UsedBy("strategy", "tpe")
    ] = None,
    fixed_rho: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Rho at which mixtures are compared; default: 0.5."),
        UsedBy("strategy", "two-step"),
    ] = None,
    lattice: Annotated[
        int | None, typer.Option(min=1, help="Add all mixtures of the space's layers in steps of 1/N.")
    ] = None,
    refine: Annotated[
        Literal["none", "coordinate"], typer.Option(help="Tune the winner's weights and rho further, one at a time.")
    ] = "none",
    workers: WorkersOption = None,
    threads: ThreadsOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    devices: DevicesOption = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage: journal:FILE, sqlite:///FILE, postgresql://..., mysql://...; default: in the run."
        ),
        UnusedWith("plan"),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Template with <image> and {question}; default: the model's own chat template.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest answer that a metric has generated, unless an accepted one is longer; default: that of the "
            "run's artifact, or 16.",
        ),
    ] = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            help="Where tokens are dropped: in stages between decoder layers, or once before them; default: layered, "
            "where the decoder can be pruned inside."
        ),
    ] = None,
    relevance: Annotated[
        Relevance | None,
        typer.Option(help="What of the vision tower rates tokens; default: the first of these that it has."),
        UsedBy("profile", "input"),
    ] = None,
    starts: Annotated[
        str | None,
        typer.Option(help="Decoder layers that the pruned sequences enter, of the profile layered; default: 2,6,15."),
    ] = None,
    router: Annotated[
        Path | None,
        typer.Option(
            help="Router to put into the artifact, or none; default: router.safetensors of the run, if it is there."
        ),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Search though the unpruned model answers nothing right, or by kl despite answers."
        ),
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print space and cost, write the space, and stop.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line.")] = False,
) -> None:
    """Find, for each class, the layer mixture and the rho that keep the most answers right within a token budget.

    A space may name other selectors, such as fastv, which choose tokens in the place of the method's own selection.

    Candidates are measured on a part of the samples, the worse ones are dropped early, and each class gets the one that
    is best by all that was measured, its own samples and those of the other classes. A killed search goes on where it
    stopped.

    Example: clasp-calib search --budget 192 --run my-run
    """
    from clasp_calib.api.calibrating import calibrate, plan_calibration
    from clasp_calib.commands.hiring import Wanted
    from clasp_calib.commands.search_tables import show_budget, show_plans
    from clasp_calib.commands.sureness_tables import say_legend
    from clasp_calib.common.places import Places
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.search.calibration_options import CalibrationOptions
    from clasp_calib.search.space import read_space
    from clasp_calib.search.strategies.registry import strategy_of
    from clasp_calib.search.watchers import EventLines, LiveTable

    directory = RunDirectory(run)
    own = {} if out is None else {"artifact": out}
    places = Places.of(run, features=None if recompute else cache or directory.cache, storage=storage, **own)
    settings = {
        "indifference": indifference and indifference / 100,
        "first": first,
        "eta": eta,
        "trials": trials,
        "rho": fixed_rho,
    }
    pooled = {"spend": None if spend is None else _portion(spend), "until": until}
    named_strategy = "pooled" if strategy == "auto" and (spend, until) != (None, None) else strategy
    options = CalibrationOptions(
        strategy=None if named_strategy == "auto" else strategy_of(named_strategy, **settings, **pooled),
        cautious=cautious,
        objective=objective,
        per_class=per_class,
        space=read_space(space) if space else None,
        method=method,
        lattice=lattice,
        refine=refine == "coordinate",
        pruning=_pruning(profile, relevance, starts),
        router=_router(router, directory, one_class),
        taxonomy=taxonomy,
        class_from=class_from,
        default_class=default_class,
        one_class=one_class,
        anyway=anyway,
        model_name=named(model, directory)[0],
        seed=seed,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
    )
    table = load_samples(samples or directory.table, limit=limit, pictures=directory.pictures, image_root=image_root)
    wanted = Wanted(workers, threads, engine, ray_address, devices)
    loaded, processor = load(model, device, dtype, run)
    crew = wanted.crew(loaded)
    what = (loaded, processor, table, budget)
    if plan:
        planned = plan_calibration(*what, run=places, options=options, crew=crew)
        path = space or directory.root / "space.yaml"
        edited = path.exists()
        if not edited:
            planned.write_space(path)
        show_plans(planned.budgets, path, edited, as_json)
        return
    directory.remember_table(samples)
    live = LiveTable()
    watcher = EventLines(lambda line: print(line, flush=True)) if as_json else live
    measured = _measured(places.artifact)
    with nullcontext() if as_json else live.shown():
        artifact = calibrate(*what, run=places, options=options, crew=crew, watcher=watcher)
    picture = next(directory.report.glob("search.png"), None)
    lost = sorted(measured - _measured(places.artifact))
    if as_json:
        manifest = artifact.manifest.model_dump(mode="json")
        result = {"artifact": str(places.artifact), "id": manifest["id"], "budgets": manifest["budgets"]}
        print(
            json.dumps({"event": "result", "picture": picture and str(picture), "test_scores_dropped": lost, **result})
        )
        return
    for name in dict.fromkeys(budget):
        show_budget(artifact, name)
    say_legend()
    if lost:
        say(f"test scores of {', '.join(lost)} were of an earlier search and are dropped; evaluate again")
    shown = f"picture in {picture}; " if picture else ""
    say(f"{shown}artifact in {places.artifact}; next: clasp-calib evaluate --run {run}")


def _pruning(profile: str | None, relevance: str | None, starts: str | None) -> "PruningOptions | None":
    """What was asked for; None leaves it to the model."""
    from clasp_calib.common.pruning_options import DEFAULT_STARTS, INPUT, LAYERED, PruningOptions

    if profile is None and starts is None:
        return None
    if profile == INPUT and starts is not None:
        raise InputError(
            "--starts names decoder layers, and --profile input drops tokens before all of them; remove --starts, or "
            "give --profile layered"
        )
    layers = DEFAULT_STARTS if starts is None else _starts(starts)
    return PruningOptions(profile=profile or LAYERED, relevance=relevance, starts=layers)


def _starts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--starts takes layer numbers such as 2,6,15; got {text!r}") from None


def _router(given: Path | None, directory: RunDirectory, one_class: bool) -> 'Router | Literal["none"] | None':
    from clasp_calib.router_labeling.router_file import load_router
    from clasp_calib.search.calibration_options import NO_ROUTER

    if str(given) == NO_ROUTER:
        return "none"
    if given is None and (one_class or not directory.router.is_file()):
        return None
    return load_router(given or directory.router)


def _portion(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise InputError(f"--spend takes a share such as 15%; got {text!r}") from None


def _measured(place: Path | None) -> set[str]:
    """Budgets of the artifact that is there of which test scores are recorded."""
    from clasp_calib.artifacts.artifact import artifact_at

    known = artifact_at(place)
    return {entry.name for entry in known.manifest.budgets if entry.measured is not None} if known else set()
