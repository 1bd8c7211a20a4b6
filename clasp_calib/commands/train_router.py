"""``clasp-calib train-router``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clasp_calib.commands.options import (
    DEFAULT_RUN,
    ClassFromOption,
    DefaultClassOption,
    JsonOption,
    RunOption,
    SeedOption,
    TaxonomyOption,
)
from clasp_calib.commands.output import emit, say, show
from clasp_calib.common.run_directory import RunDirectory

if TYPE_CHECKING:
    from clasp_calib.router_labeling.worth import JudgedRouter


def train_router(
    labels: Annotated[
        Path | None, typer.Argument(help="Labelled questions; default: labels.parquet of the run.", show_default=False)
    ] = None,
    run: RunOption = DEFAULT_RUN,
    gold: Annotated[
        Path | None, typer.Option(help="Questions with a 'class' given by hand; to judge by, never to train on.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The router; default: router.safetensors of the run.")] = None,
    wrong_cost: Annotated[
        float, typer.Option(min=1, help="Cost of a wrong class, where the default class in place of another costs 1.")
    ] = 3.0,
    taxonomy: TaxonomyOption = None,
    class_from: ClassFromOption = None,
    default_class: DefaultClassOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write a router that is worth nothing, too.")] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Distil labels into a router: a small linear model that names a question's class without a language model.

    It is judged by cross-validation over five folds, near-duplicates in one. What counts is its accuracy on classes
    given by hand: rows of source 'gold', a column 'gold_class', and --gold. A router that does worse than the packaged
    one, or no better than one class for all questions, is not written. Training needs scikit-learn; routing does not.

    Example: clasp-calib train-router my-run/labels.parquet --run my-run
    """
    from dataclasses import asdict

    from clasp_calib.api.routers import train_router as train
    from clasp_calib.report.plots import plot_path, plot_trade_off
    from clasp_calib.router_labeling.router_file import router_bytes, write_router
    from clasp_calib.router_labeling.training import FOLDS

    directory = RunDirectory(run)
    directory.prepare()
    plot, path = plot_path(directory.report / "router.png"), labels or directory.table
    trained = train(
        path,
        gold=gold,
        taxonomy=taxonomy,
        class_from=class_from,
        default_class=default_class,
        wrong_cost=wrong_cost,
        seed=seed,
        force=force,
    )
    target = out or directory.router
    write_router(trained.router, target)
    told = {"labels": path, "gold": gold, "out": target, "wrong_cost": wrong_cost, "seed": seed, "force": force}
    classes = {"taxonomy": taxonomy, "class_from": class_from, "default_class": default_class}
    directory.record("train-router", told | classes)
    costs, questions, worth = trained.trade_off, trained.router.training.rows, trained.worth
    curves = {"right": costs.right, "abstained": costs.abstained, "wrong class": costs.wrong, "mean cost": costs.cost}
    if plot:
        plot_trade_off(costs.thresholds.tolist(), {n: c.tolist() for n, c in curves.items()}, costs.best, plot)
    if as_json:
        emit(
            {
                "router": target,
                "bytes": len(router_bytes(trained.router)),
                "questions": questions,
                "unplaced": trained.unplaced,
                "groups": trained.groups,
                "gold": None if trained.gold is None else asdict(trained.gold),
                "agreement": asdict(trained.agreement),
                "quality": trained.router.quality and asdict(trained.router.quality),
                "packaged": worth.packaged and asdict(worth.packaged),
                "constant": {"class": worth.constant_class, **asdict(worth.constant)},
                "objection": worth.objection,
                "temperature": trained.router.temperature,
                "threshold": trained.router.threshold,
                "wrong_cost": wrong_cost,
                "mean_cost": {"never_abstaining": costs.cost[0], "at_threshold": costs.cost[costs.best]},
                "log_loss": trained.log_loss,
                "calibration_error": trained.calibration_error,
                "plot": plot,
            }
        )
        return
    say(f"{questions} questions, {trained.groups} without near-duplicates; {trained.unplaced} unplaced left out")
    by = "classes by hand" if worth.against == "gold" else "labels"
    packaged = [_beside("packaged router", by, worth.packaged)] if worth.packaged else []
    hand = [_judged("router", by, trained.gold)] if trained.gold else []
    # Without those that the rules gave, which cannot judge them.
    fair = [_judged("router", by, worth.router)] if not hand and worth.router != trained.agreement else []
    show(
        f"on questions that it was not trained on ({FOLDS} folds)",
        ["", "measured against", "questions", "likeliest right", "right", "macro", "abstained", "wrong class"],
        [
            *(hand or fair),
            *packaged,
            _beside(f"always {worth.constant_class}", by, worth.constant),
            _judged("router", "all labels distilled from", trained.agreement),
        ],
    )
    if trained.gold is None:
        say("how right it is is not known: give questions with a class by hand with --gold. Agreement is not accuracy")
    if worth.objection:
        say(f"kept by --force, though {worth.objection}")
    before, after = trained.calibration_error
    abstains = "never abstains, as there is no default class"
    if trained.router.default is not None:
        cost = f"mean cost {costs.cost[0]:.3f} -> {costs.cost[costs.best]:.3f}"
        abstains = f"abstains below {trained.router.threshold:.2f}: {cost}"
    say(f"{abstains}; calibration error {before:.1%} -> {after:.1%}")
    following = f"--router {out}" if out else f"--run {run}"
    say(f"router in {target}{f', trade-off in {plot}' if plot else ''}; next: clasp-calib route QUESTION {following}")


def _judged(who: str, against: str, judged: "JudgedRouter") -> list[str]:
    shares = (judged.likeliest, judged.accuracy, judged.macro, judged.abstained, judged.wrong)
    return [who, against, str(judged.questions), *(f"{share:.1%}" for share in shares)]


def _beside(who: str, against: str, judged: "JudgedRouter") -> list[str]:
    """Of what has no confidence, and so never abstains."""
    right, macro, wrong = (f"{share:.1%}" for share in (judged.accuracy, judged.macro, judged.wrong))
    return [who, against, str(judged.questions), "-", right, macro, "-", wrong]
