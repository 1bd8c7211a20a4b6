"""A recipe as the command lines that run it, in their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.settings import check_count, one_of
from clasp_calib.recipes.recipe_schema import CALIBRATED, PARTS, UNPRUNED, RecipeColumn, RecipeRow
from clasp_calib.recipes.registry import PaperTable

CLASP, LMMS = "clasp-calib", "lmms-eval"
DTYPES = ("float32", "bfloat16", "float16")
StepKind = Literal["label", "sample", "router", "cache", "search", "part", "task", "compare"]


@dataclass(frozen=True)
class Step:
    """One command line."""

    kind: StepKind
    argv: tuple[str, ...]
    row: RecipeRow | None = None
    """Of the table, that a task is run for."""
    column: str | None = None
    """That the task fills."""
    results: Path | None = None
    """Directory that lmms-eval or ``compare`` writes its results to."""


@dataclass(frozen=True)
class ReproductionOptions:
    """What the user says of a run.

    Attributes:
        samples: questions with answers to calibrate on, of training splits, as ``label`` takes them. The paper does not
            say which it took.
        image_root: directory that their pictures' paths are relative to.
        model: where the model lies, a directory or a Hub id; by default the recipe's Hub id.
        base_url: of a server that labels, such as ``clasp-calib serve-labeler`` starts in an environment with vLLM; by
            default vLLM labels in this one.
        device: a torch device.
        dtype: of the model, ``float32``, ``bfloat16`` or ``float16``.
        seed: of what is drawn.

    Raises:
        InputError: a value that cannot be used.
    """

    samples: str | Path | None = None
    image_root: str | Path | None = None
    model: str | Path | None = None
    base_url: str | None = None
    device: str = "cuda:0"
    dtype: str = "float16"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is none of these."""
        one_of("dtype", self.dtype, dict.fromkeys(DTYPES))
        check_count("seed", self.seed, 0)


@dataclass(frozen=True)
class RecipeSetting:
    """Where a recipe runs, and with what."""

    run: Path
    options: ReproductionOptions

    def __post_init__(self) -> None:
        """Refuse names that lmms-eval would take apart.

        Raises:
            InputError: a comma or an equals sign is in one.
        """
        for name in (self.run, self.options.model):
            if any(letter in str(name) for letter in ",="):
                raise InputError(
                    f"{name} goes into --model_args of lmms-eval, which splits at commas and equals signs; give a name "
                    "without them"
                )

    def model(self, table: PaperTable) -> str:
        """Where the model lies."""
        return str(self.options.model or table.model.id)


def command_lines(table: PaperTable, setting: RecipeSetting) -> list[Step]:
    """All steps; none of a table that cannot be run.

    Args:
        table: the recipe.
        setting: where, with what, and on which device.
    """
    rows = table.runnable
    if not rows:
        return []
    calibrates = [row for row in rows if row.by in (*CALIBRATED, *PARTS)]
    steps = _calibration(table, setting, calibrates) if calibrates else []
    for part in PARTS:
        if any(row.by == part for row in rows):
            argv = (CLASP, "artifact", "part", part, "--run", str(setting.run), "--out", str(setting.run / part))
            steps.append(Step("part", argv))
    for row in rows:
        steps += [_task(table, setting, row, key, column) for key, column in table.tasks.items()]
    if table.costs:
        steps.append(_compare(table, setting))
    return steps


def task_name(column: RecipeColumn) -> str:
    """What lmms-eval calls the task of a column: its own name, or that of our file where we give it other arguments."""
    assert column.task is not None
    return "_".join([column.task, *sorted(column.kwargs), "for_clasp"]) if column.kwargs else column.task


def task_file(column: RecipeColumn, original: Path) -> str:
    """The YAML of a task with other arguments, which includes the original one.

    Args:
        column: with ``kwargs``.
        original: the task's own file, in the installed lmms-eval.
    """
    asked = {"pre_prompt": "", "post_prompt": "\nAnswer the question using a single word or phrase.", **column.kwargs}
    content = {
        "include": str(original),
        "task": task_name(column),
        "lmms_eval_specific_kwargs": {"default": asked},
    }
    return yaml.safe_dump(content, sort_keys=False)


def tasks_directory(run: Path) -> Path:
    """Where the files of `task_file` are."""
    return run / "lmms-tasks"


def _calibration(table: PaperTable, setting: RecipeSetting, rows: Sequence[RecipeRow]) -> list[Step]:
    run, how, directory = ("--run", str(setting.run)), table.calibration, RunDirectory(setting.run)
    of = setting.options
    samples = str(of.samples or "SAMPLES")
    root = ("--image-root", str(of.image_root)) if of.image_root else ()
    drawn = ("--samples", str(directory.sample))
    model = ("--model", setting.model(table))
    on = ("--device", setting.options.device, "--dtype", setting.options.dtype)
    seed = ("--seed", str(setting.options.seed))
    by = ("--backend", "server", "--base-url", of.base_url) if of.base_url else ("--backend", "vllm")
    label = (CLASP, "label", samples, *run, *root, *by, "--labeler-model", how.labeler)
    draw = (CLASP, "sample", *run, "--per-class", str(how.per_class), *(() if how.balanced else ("--natural",)), *seed)
    budgets = [word for name in dict.fromkeys(row.budget for row in rows if row.budget) for word in ("--budget", name)]
    space = ("--space", str(setting.run / "space.yaml"), "--per-class", str(how.per_class), "--strategy", how.strategy)
    return [
        Step("label", label),
        Step("router", (CLASP, "train-router", "--force", *run)),
        Step("sample", draw),
        Step("cache", (CLASP, "cache-features", *run, *drawn, *model, *on)),
        Step("search", (CLASP, "search", *run, *drawn, *budgets, *space, *on, *seed)),
    ]


def _task(table: PaperTable, setting: RecipeSetting, row: RecipeRow, key: str, column: RecipeColumn) -> Step:
    directory = RunDirectory(setting.run)
    model = {"pretrained": setting.model(table), "dtype": setting.options.dtype}
    if row.by in (*CALIBRATED, *PARTS):
        place = directory.artifact if row.by == CALIBRATED[0] else setting.run / row.by
        model |= {"artifact": str(place), "budget": str(row.budget)}
    elif row.by != UNPRUNED:
        model |= {"method": row.by, "budget": str(row.budget), "solve_on": str(directory.sample)}
    place = setting.run / "lmms" / f"{row.by}-{row.budget or 'all'}".replace("%", "pc") / key
    argv = [LMMS, "--model", "clasp", "--model_args", ",".join(f"{name}={value}" for name, value in model.items())]
    argv += [
        "--tasks",
        task_name(column),
        "--device",
        setting.options.device,
        "--batch_size",
        "1",
        "--output_path",
        str(place),
    ]
    if column.kwargs:
        argv += ["--include_path", str(tasks_directory(setting.run))]
    return Step("task", tuple(argv), row, key, place)


def _compare(table: PaperTable, setting: RecipeSetting) -> Step:
    directory = RunDirectory(setting.run)
    argv = [CLASP, "compare", "--run", str(setting.run), "--samples", str(directory.sample)]
    argv += ["--methods", ",".join(table.methods) or "none", "--no-mixture", "--per-class", "20", "--timed", "100"]
    argv += ["--device", setting.options.device, "--dtype", setting.options.dtype, "--seed", str(setting.options.seed)]
    return Step("compare", tuple(argv), results=directory.report)
