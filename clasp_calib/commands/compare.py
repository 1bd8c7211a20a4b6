"""``clasp-calib compare``."""

import json
from typing import Annotated

import typer

from clasp_calib.commands.opened import opened
from clasp_calib.commands.options import (
    DEFAULT_RUN,
    REFERENCE,
    ArtifactOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    LimitOption,
    ModelOption,
    RunOption,
    SamplesOption,
    SeedOption,
)
from clasp_calib.commands.output import emit, plot_path, say, show


def compare(
    artifact: ArtifactOption = None,
    budget: Annotated[list[str] | None, typer.Option("--budget", help="Default: all budgets of the artifact.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Peers to compare with, such as fastv,dart; default: all.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="The split to compare on.")] = "test",
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    samples: SamplesOption = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="Samples a class, at most; default: all.")] = None,
    solve_on: Annotated[
        int,
        typer.Option(min=1, help="Calibration samples a class to solve knobs on whose tokens depend on the picture."),
    ] = 8,
    timed: Annotated[int, typer.Option(min=0, help="Prefills to time for each method; 0 times none.")] = 5,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an artifact with published pruning methods, all at equal cost.

    All methods answer the same questions by decoding greedily, each with its knobs solved so that a decoder layer works
    on as many visual tokens in the mean as the budget says. Killed, it goes on with the answers that it has.

    Example: clasp-calib compare --run my-run --methods fastv,dart --per-class 2
    """
    from clasp_calib.baselines.registry import METHODS
    from clasp_calib.calib.dataset import by_class
    from clasp_calib.calib.scoring.prompting import Prompter
    from clasp_calib.calib.studies.answers import AnswerJournal, SolvedKnobs
    from clasp_calib.calib.studies.contest import encoded, hold_contest
    from clasp_calib.calib.studies.costs import prefill_costs
    from clasp_calib.calib.studies.entrants import entrants_for
    from clasp_calib.common.hashing import sha256_file
    from clasp_calib.report.contest_tables import contest_json, contest_markdown, contest_rows
    from clasp_calib.report.plots import plot_contest
    from clasp_calib.search.identity import weights_digest

    of = opened(run, artifact, budget, samples, split, model, device, dtype, per_class, limit, seed)
    picture = plot_path(of.directory.report / f"comparison-{split}.png")
    peers = [name.strip() for name in methods.split(",")] if methods else list(METHODS)
    manifest, questions = of.artifact.manifest, of.questions
    prompter = Prompter(of.processor, of.model, manifest.prompt)
    others = by_class([s for s in of.everything if s.split == "calibration"], of.artifact.classes, solve_on, seed)
    images = [encoded(of.model, of.processor, prompter, s) for samples_of in others.values() for s in samples_of]
    identity = {
        "weights": weights_digest(of.model),
        "samples": sha256_file(of.table),
        "prompt": manifest.prompt,
        "decoding": manifest.decoding.model_dump(),
        "dtype": dtype,
    }
    solved = SolvedKnobs(of.directory.comparison, {**identity, "samples a class": solve_on, "seed": seed})
    entrants, refusals = entrants_for(of.model, of.artifact, of.budgets, peers, images, solved)
    with AnswerJournal(of.directory.comparison, identity) as journal:
        if len(journal) and not as_json:
            say(f"going on with {len(journal)} answers in {journal.path}")
        at = (of.model, of.processor, prompter, entrants)
        contest = hold_contest(*at, questions, journal, max_new_tokens=manifest.decoding.max_new_tokens, seed=seed)
    measured = prefill_costs(*at, questions[:timed]) if timed else []
    costs = {(e.method, e.budget): cost for e, cost in zip(entrants, measured, strict=False)}
    of.directory.record(
        "compare", {"artifact": of.place, "split": split, "samples": of.table, "budgets": of.budgets, "seed": seed}
    )
    target = of.directory.report / f"comparison-{split}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(contest_markdown(contest, costs, refusals), encoding="utf-8")
    result = contest_json(contest, costs, refusals)
    target.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if picture:
        plot_contest(contest, picture)
    if as_json:
        emit({"report": target, **result})
        return
    for name in of.budgets:
        header, body = contest_rows(contest, name, costs, digits=0)
        show(f"budget {name}, {len(questions)} questions", header, body)
    for refusal in refusals:
        say(f"not at {refusal.budget}: {refusal.reason}")
    written = "tables, JSON and picture" if picture else "tables and JSON"
    say(f"{written} are in {of.directory.report}; brackets are 95 % intervals")
