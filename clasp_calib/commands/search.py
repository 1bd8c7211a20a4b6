"""``clasp-calib search``."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.models import load
from clasp_calib.commands.options import (
    DEFAULT_BUDGETS,
    DEFAULT_RUN,
    REFERENCE,
    BudgetOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    LimitOption,
    ModelOption,
    RecomputeOption,
    RunOption,
    SamplesOption,
    SeedOption,
)
from clasp_calib.commands.output import emit, plot_path, say, show
from clasp_calib.commands.sources import cache_of
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.manifest import ClassChoice
    from clasp_calib.common.samples import Sample
    from clasp_calib.search.calibrate import Calibration


def search(
    budget: BudgetOption = DEFAULT_BUDGETS,
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    samples: SamplesOption = None,
    cache: CacheOption = None,
    recompute: RecomputeOption = False,
    space: Annotated[Path | None, typer.Option(help="Search space (YAML); --plan writes the default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Artifact directory; default: artifact/ of the run.")] = None,
    per_class: Annotated[int, typer.Option(min=2, help="Calibration samples a class, at most.")] = 2000,
    strategy: Annotated[str, typer.Option(help="race, grid, tpe, two-step or halving.")] = "race",
    objective: Annotated[
        str,
        typer.Option(help="What strategies maximise: metric, nll, or kl (to the unpruned model; no answers needed)."),
    ] = "metric",
    indifference: Annotated[float, typer.Option(min=0, max=100, help="Race: points that are not worth finding.")] = 0.5,
    first: Annotated[
        int | None, typer.Option(min=1, help="Race, halving: samples before the first are rejected (40, 6).")
    ] = None,
    eta: Annotated[float, typer.Option(min=1.1, help="Halving: 1/ETA of the candidates survive a rejection.")] = 2.0,
    trials: Annotated[int, typer.Option(min=1, help="TPE: candidates to try.")] = 64,
    fixed_rho: Annotated[float, typer.Option(min=0, max=1, help="Two-step: the rho that mixtures meet at.")] = 0.5,
    lattice: Annotated[
        int | None, typer.Option(min=1, help="Add all mixtures of the space's layers in steps of 1/N.")
    ] = None,
    refine: Annotated[
        str, typer.Option(help="none, or coordinate: tune the winner's weights and rho further.")
    ] = "none",
    one_for_all: Annotated[
        bool, typer.Option("--global/--no-global", help="Also search one setting for all classes, to compare with.")
    ] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine to score with.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each worker; default: what torch takes, shared.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Who scores: local or ray.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster; default: one on this machine.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna's: journal:FILE, sqlite:///FILE, postgresql://..., mysql://...; default: in the run."
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Template with <image> and {question}; default: LLaVA-1.5's.")
    ] = None,
    starts: Annotated[str, typer.Option(help="Decoder layers that the pruned sequences enter.")] = "2,6,15",
    router: Annotated[
        Path | None,
        typer.Option(help="Router to put into the artifact; default: router.safetensors of the run, if it is there."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the space and the cost, write the space, stop.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line.")] = False,
) -> None:
    """Find, for each class, the layer mixture and the rho that keep most answers right under a token budget.

    Each class's candidates race on calibration samples, and the worse are rejected early; the best are compared on
    the selection split, where the model's own setting wins if the gain may be noise. A killed search goes on where it
    stopped.

    Example: clasp-calib search --budget 192 --run my-run
    """
    from clasp_calib.artifacts.consistency import check_router
    from clasp_calib.artifacts.files import write_artifact
    from clasp_calib.calib.scoring.objective import KL
    from clasp_calib.calib.scoring.prompting import PROMPT
    from clasp_calib.common.hashing import sha256_file
    from clasp_calib.report.plots import plot_pareto
    from clasp_calib.router_labeling.router_file import load_router
    from clasp_calib.router_labeling.taxonomy import load_taxonomy
    from clasp_calib.runtime.schedule import parse_budget
    from clasp_calib.search.calibrate import Calibration, SearchRequest
    from clasp_calib.search.crew import Crew
    from clasp_calib.search.strategies.registry import describe, strategy_of
    from clasp_calib.search.watchers import EventLines, LiveTable, Watcher

    directory = RunDirectory(run)
    directory.prepare()
    budgets = [parse_budget(text) for text in budget]
    taxonomy = load_taxonomy(None)
    routing = load_router(router or directory.router) if router or directory.router.is_file() else None
    if routing:
        check_router(routing, taxonomy.classes, [taxonomy.digest])
    table = samples or directory.labels
    labelled = _labelled(table, taxonomy.classes, limit, as_json, objective != KL)
    loaded, processor = load(model, device, dtype)
    request = SearchRequest(
        model=model,
        prompt=prompt or PROMPT,
        samples=tuple(labelled),
        samples_hash=sha256_file(table),
        classes=taxonomy.classes,
        taxonomy={slug: intent.class_ for slug, intent in taxonomy.intents.items()},
        taxonomy_hash=taxonomy.digest,
        cache=cache_of(directory, cache, recompute),
        study=directory.study,
        artifact=out or directory.artifact,
        space=space,
        per_class=per_class,
        starts=_starts(starts),
        strategy=strategy_of(
            strategy, indifference=indifference / 100, first=first, eta=eta, trials=trials, rho=fixed_rho
        ),
        seed=seed,
        objective=objective,
        storage=storage,
        crew=Crew(workers, threads, engine, ray_address),  # type: ignore[arg-type]
        lattice=lattice,
        refine=_refine(refine),
        one_for_all=one_for_all,
    )
    calibration = Calibration(loaded, processor, request)
    if plan:
        plans = [calibration.plan(b) for b in budgets]
        path = space or directory.root / "space.yaml"
        edited = path.exists()
        if not edited:
            calibration.write_space(path)
        _show_plans(plans, path, edited, as_json)
        return
    settings = {name: value for name, value in vars(request).items() if name not in ("samples", "strategy")}
    directory.record(
        "search",
        {
            **settings,
            "strategy": describe(request.strategy),
            "budgets": budget,
            "samples": table,
            "device": device,
            "dtype": dtype,
        },
    )
    picture = plot_path(directory.report / "search.png")
    table_of_classes = LiveTable()
    watcher: Watcher = EventLines(lambda line: print(line, flush=True)) if as_json else table_of_classes
    with nullcontext() if as_json else table_of_classes.shown():
        for found in calibration.run(budgets, watcher):
            artifact = write_artifact(found.with_router(routing) if routing else found, request.artifact)
    if picture:
        plot_pareto(_pareto(artifact), picture)
    if as_json:
        manifest = artifact.manifest.model_dump(mode="json")
        result = {"artifact": str(request.artifact), "id": manifest["id"], "budgets": manifest["budgets"]}
        print(json.dumps({"event": "result", "picture": picture and str(picture), **result}))
        return
    for b in budgets:
        _show_budget(artifact, b.name, calibration)
    say(
        "gain on the selection split in points, 95 % interval, and how often luck gives as much; above 5 % it is noise,"
    )
    say("and the class keeps the model's own setting")
    say(
        f"{f'picture in {picture}; ' if picture else ''}artifact in {request.artifact}; "
        f"next: clasp-calib evaluate --run {run} --model {model}"
    )


def _refine(how: str) -> bool:
    if how not in ("none", "coordinate"):
        raise InputError(f"unknown refinement {how!r}; expected none or coordinate")
    return how == "coordinate"


def _labelled(table: Path, classes: tuple[str, ...], limit: int | None, quiet: bool, answers: bool) -> "list[Sample]":
    """The samples; says which of them take longer, because one forward does not tell their score."""
    from clasp_calib.calib.dataset import load_samples
    from clasp_calib.calib.scoring.metrics import generated

    samples = load_samples(table, classes, limit, answers=answers)
    slow = generated(samples)
    if slow and not quiet:
        told = ", ".join(f"{name}: {count}" for name, count in slow.items())
        say(f"these metrics need generated answers, which take longer than the one forward of exact: {told} samples")
    return samples


def _starts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--starts takes layer numbers such as 2,6,15; got {text!r}") from None


def _show_plans(plans: list[dict[str, object]], path: Path, edited: bool, as_json: bool) -> None:
    if as_json:
        emit({"space": path, "plans": plans})
        return
    for entry in plans:
        show("plan", ["", ""], [[name, str(value)] for name, value in entry.items()])
    say(f"the space in {path} {'stays as it is' if edited else 'is new'}: edit it and give it back with --space")


def _show_budget(artifact: "Artifact", budget: str, calibration: "Calibration") -> None:
    entry = artifact.entry(budget)
    show(
        f"budget {budget}: {' / '.join(map(str, entry.counts))} tokens, {entry.mean_tokens:.1f} a layer on average",
        ["class", "mixture", "rho", "selection", "default", "best finalist's gain", "evaluations", "of all"],
        [
            [
                label,
                choice.prototype,
                f"{artifact.rho(budget, label):g}",
                _percent(choice.selection),
                _percent(choice.selection_default),
                _gain(choice),
                str(choice.evaluations),
                _share(choice, calibration.samples(label)),
            ]
            for label, choice in entry.choices.items()
        ],
    )


def _percent(value: float | None) -> str:
    # Without answers to compare with the final has likelihoods, which are no shares.
    return "-" if value is None else f"{value:.1%}" if 0 <= value <= 1 else f"{value:.3f}"


def _gain(choice: "ClassChoice") -> str:
    one = choice.confirmation
    if one is None:
        return "-"
    return f"{100 * one.gain:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}], {one.chance:.1%}"


def _share(choice: "ClassChoice", samples: int) -> str:
    return f"{choice.evaluations / (choice.candidates * samples):.0%}" if samples else "-"


def _pareto(artifact: "Artifact") -> "dict[str, list[tuple[float, float, float]]]":
    """Class -> mean tokens, score of the choice and score of the default, on the selection split, by budget."""
    entries = sorted(artifact.manifest.budgets, key=lambda entry: entry.mean_tokens)
    return {
        label: [
            (entry.mean_tokens, choice.selection, choice.selection_default)
            for entry in entries
            if (choice := entry.choices[label]).selection is not None and choice.selection_default is not None
        ]
        for label in artifact.classes
    }
