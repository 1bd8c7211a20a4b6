"""``clasp-calib ablate``."""

import json
from typing import Annotated

import typer

from clasp_calib.commands.opened import opened
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
    RunOption,
    SamplesOption,
    SeedOption,
)
from clasp_calib.commands.output import emit, say, show


def ablate(
    name: Annotated[
        str,
        typer.Argument(
            help="parts, rho, layers, iterations, routing, raters, positions, features or starts.", show_default=False
        ),
    ],
    artifact: ArtifactOption = None,
    budget: Annotated[list[str] | None, typer.Option("--budget", help="Default: all budgets of the artifact.")] = None,
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    run: RunOption = DEFAULT_RUN,
    model: ModelOption = REFERENCE,
    samples: SamplesOption = None,
    cache: CacheOption = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="Samples a class, at most; default: all.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    seed: SeedOption = 0,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what one part of a calibration is worth, by changing it alone.

    parts: fusion only, ratio only, both. rho and layers: the same for all classes. routing: a router that errs.
    iterations, raters, positions, features, starts: other values of one option.

    Example: clasp-calib ablate parts --run my-run --per-class 2
    """
    from clasp_calib.calib.studies.ablations import Subject
    from clasp_calib.calib.studies.ablations import ablate as measure
    from clasp_calib.calib.studies.evaluation import evaluator_for
    from clasp_calib.report.ablation import ablation_json, ablation_rows
    from clasp_calib.report.tables import table

    of = opened(run, artifact, budget, samples, split, model, device, dtype, per_class, limit, seed)
    questions = of.questions
    evaluator = evaluator_for(of.model, of.processor, of.artifact, questions, cache or of.directory.cache)
    found = {one: measure(name, evaluator, Subject(of.model, of.artifact, one), of.chosen, seed) for one in of.budgets}
    target = of.directory.report / f"ablation-{name}-{split}.md"
    target.parent.mkdir(exist_ok=True)
    parts = [f"### {name} at budget {one}\n\n{table(*ablation_rows(*pair))}\n" for one, pair in found.items()]
    target.write_text("\n".join(parts), encoding="utf-8")
    result = {one: ablation_json(*pair) for one, pair in found.items()}
    target.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit({"report": target, "samples": len(questions), "budgets": result})
        return
    for one, pair in found.items():
        header, body = ablation_rows(*pair, digits=0)
        show(f"{name} at budget {one}, {len(questions)} questions", header, body)
    say(f"table and JSON are in {of.directory.report}; brackets are 95 % intervals")
