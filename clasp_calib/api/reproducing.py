"""The paper's tables, run again: planned, rehearsed on the embedded model, or for real beside the paper's numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from clasp_calib.api.rehearsing import PICTURES, Rehearsal, recipe_space
from clasp_calib.api.reproduction_plan import UTILISATION, ReproductionPlan, planned
from clasp_calib.common.errors import InputError, StudyError
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.settings import check_count
from clasp_calib.crew.crew import Crew
from clasp_calib.recipes.command_lines import (
    LMMS,
    RecipeSetting,
    ReproductionOptions,
    Step,
    command_lines,
    task_file,
    task_name,
    tasks_directory,
)
from clasp_calib.recipes.registry import TABLES, PaperTable, paper_table
from clasp_calib.recipes.reproduced import WATERMARK, ReproductionReport, beside_paper
from clasp_calib.recipes.step_running import MODULES, RESULTS, StepRunner, check_installed, task_score

__all__ = [
    "ReproductionOptions",
    "ReproductionPlan",
    "ReproductionReport",
    "paper_tables",
    "plan_reproduction",
    "rehearse",
    "reproduce",
]

EMBEDDED = "embedded"
"""Directory of a rehearsal, in the run's."""


def paper_tables() -> dict[int, PaperTable]:
    """The tables of the paper that there are recipes of, by number."""
    return {number: paper_table(number) for number in TABLES}


def plan_reproduction(
    table: int,
    *,
    options: ReproductionOptions | None = None,
    run: str | Path | None = None,
    utilisation: float = UTILISATION,
) -> ReproductionPlan:
    """The command lines that `reproduce` would run with the same arguments, with disk and GPU hours; runs nothing.

    Args:
        table: of the paper; `paper_tables` names those that there are.
        options: samples, model, device; by default placeholders stand for what has to be given.
        run: run directory; by default ``clasp-reproduce-`` and the table.
        utilisation: share of an A100's 312 TFLOP/s that is reached.

    Raises:
        InputError: there is no such recipe, or an argument cannot be used.
    """
    return planned(paper_table(table), RecipeSetting(_run(table, run), options or ReproductionOptions()), utilisation)


def rehearse(
    table: int,
    *,
    run: str | Path | None = None,
    pictures: tuple[int, int] = PICTURES,
    seed: int = 0,
    crew: Crew | None = None,
) -> ReproductionReport:
    """All steps of a recipe on the embedded model and benchmark, without a GPU; every table says that it is of these.

    A killed rehearsal goes on with what it has.

    Args:
        table: of the paper; `paper_tables` names those that there are.
        run: run directory; by default ``clasp-reproduce-`` and the table. Everything is in ``embedded/`` there.
        pictures: to calibrate and to test on, at least 2 each.
        seed: other seeds draw other pictures.
        crew: who scores; by default this process.

    Raises:
        InputError: there is no such recipe, or an argument cannot be used.
    """
    check_count("seed", seed, 0)
    for number in pictures:
        check_count("pictures", number, 2)
    known = paper_table(table)
    root = _run(table, run) / EMBEDDED
    RunDirectory(root).prepare()
    (root / "README.md").write_text(f"> **{WATERMARK}**\n\nEverything in this directory is of it.\n", encoding="utf-8")
    return _filed(
        Rehearsal(known, root, pictures, seed, crew or Crew()).report(), root / f"table-{table}-{EMBEDDED}.md"
    )


def reproduce(table: int, options: ReproductionOptions, *, run: str | Path | None = None) -> ReproductionReport:
    """Run a table of the paper for real, and stand the results beside those that it printed.

    With full-size weights no recipe has been run by the authors of this package. The steps of `plan_reproduction` run
    one after the other, as processes; killed, the same call goes on with the step that it was at.

    Args:
        table: of the paper; `paper_tables` names those that there are.
        options: samples, model, device.
        run: run directory; by default ``clasp-reproduce-`` and the table.

    Raises:
        InputError: there is no such recipe; there are no samples; the product lacks what the table needs; something is
            not installed; or the run directory holds another reproduction.
        StudyError: a step ended with an error, or left no result.
    """
    known = paper_table(table)
    if known.recipe.missing:
        raise InputError(
            f"table {table} cannot be reproduced: {known.recipe.missing} --dry rehearses it on the embedded model"
        )
    if options.samples is None:
        raise InputError(
            "there are no samples (--samples): the paper does not say which questions it calibrated on, so give some "
            "with answers, of training splits; --dry rehearses the recipe without"
        )
    setting = RecipeSetting(_run(table, run), options)
    steps = command_lines(known, setting)
    check_installed(steps)
    RunDirectory(setting.run).prepare()
    _write_inputs(known, setting)
    StepRunner(setting.run, steps, partial(_score, known)).run()
    report = beside_paper(known, _measured(known, setting, steps))
    return _filed(report, setting.run / f"table-{table}.md")


def _run(table: int, run: str | Path | None) -> Path:
    return Path(f"clasp-reproduce-{table}" if run is None else run)


def _write_inputs(table: PaperTable, setting: RecipeSetting) -> None:
    """The search space, and tasks of lmms-eval with the arguments that the paper's have."""
    from clasp_calib.cache.feature_options import FeatureOptions
    from clasp_calib.search.space import write_space

    of = table.model
    layers = FeatureOptions().layers_of(of.tower.layers, of.own_layer)
    write_space(recipe_space(layers, of.own_layer, table.calibration), setting.run / "space.yaml")
    changed = {key: column for key, column in table.tasks.items() if column.kwargs}
    if not changed:
        return
    from importlib.util import find_spec

    found = find_spec(MODULES[LMMS])
    assert found is not None
    assert found.submodule_search_locations is not None
    home, target = Path(found.submodule_search_locations[0]) / "tasks", tasks_directory(setting.run)
    target.mkdir(exist_ok=True)
    for column in changed.values():
        originals = sorted(home.rglob(f"{column.task}.yaml"))
        if len(originals) != 1:
            raise InputError(f"lmms-eval has {len(originals)} files {column.task}.yaml; expected one: install 0.7.3")
        text = task_file(column, originals[0])
        (target / f"{task_name(column)}.yaml").write_text(text, encoding="utf-8")


def _measured(
    table: PaperTable, setting: RecipeSetting, steps: Sequence[Step]
) -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for step in steps:
        if step.row and step.column and (score := _score(table, step)) is not None:
            found.setdefault((step.row.group, step.row.name), {})[step.column] = score
    if table.costs:
        path = RunDirectory(setting.run).report / RESULTS["compare"]
        costs = _costs(path)
        for row in table.runnable:
            of = costs.get((row.by, row.budget))
            if of is None:
                raise StudyError(f"the comparison has no row of {row.by} at {row.budget}; {_again(path)}")
            found.setdefault((row.group, row.name), {}).update(
                {key: of[column.cost] for key, column in table.costs.items() if column.cost}
            )
    return found


def _score(table: PaperTable, step: Step) -> float | None:
    """Of a task that was run; other steps have none.

    Raises:
        StudyError: the task or the comparison left no result that can be used.
    """
    if step.kind == "compare":
        assert step.results is not None
        _costs(step.results / RESULTS["compare"])
    return task_score(step, table.columns[step.column]) if step.column else None


def _costs(path: Path) -> dict[tuple[str, str | None], Mapping[str, float]]:
    """Method and budget -> what a prefill costs, from what ``compare`` wrote.

    Raises:
        StudyError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            (of["method"], at["budget"]): {
                "prefill_ms": 1000 * of["prefill"]["seconds"],
                "decoder_tflop": of["decoder_flops"] / 1e12,
            }
            for at in found["budgets"]
            for of in at["methods"]
            if of["prefill"] is not None
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is no comparison with costs ({error!r}); {_again(path)}") from error


def _again(path: Path) -> str:
    return f"see what `clasp-calib compare` said, remove {path}, and run the same command again"


def _filed(report: ReproductionReport, table: Path) -> ReproductionReport:
    table.write_text(report.to_markdown(), encoding="utf-8")
    numbers = table.with_suffix(".json")
    numbers.write_text(json.dumps(report.as_dict(), indent=2, default=str) + "\n", encoding="utf-8")
    return replace(report, files=(table, numbers))
