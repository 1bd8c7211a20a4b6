"""``clasp-calib quickstart``: the whole path on the embedded model and benchmark."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from clasp_calib.commands.cache_features import cache_features
from clasp_calib.commands.evaluate import evaluate
from clasp_calib.commands.label import label
from clasp_calib.commands.models import REFERENCE
from clasp_calib.commands.options import DEFAULT_BUDGETS, BudgetOption, JsonOption
from clasp_calib.commands.output import emit, say
from clasp_calib.commands.search import search
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory

RUN = Path("clasp-quickstart")
MOST_SEED = 9_999
NEXT = """
Next, with a model and data of your own (docs/guide/own-model.md walks through it):
  1. Write samples.jsonl, one question a line:
     {{"id": "1", "image": "cat.jpg", "question": "What animal is this?", "answers": ["cat"]}}
  2. clasp-calib label samples.jsonl --run my-run
  3. clasp-calib cache-features --run my-run --model llava-hf/llava-1.5-7b-hf --device cuda
  4. clasp-calib search --run my-run --device cuda --budget 192
  5. clasp-calib evaluate --run my-run --device cuda
Or look at what was made here: clasp-calib artifact show --run {run}"""


def quickstart(
    run: Annotated[Path, typer.Option(help="Directory for everything.")] = RUN,
    budget: BudgetOption = DEFAULT_BUDGETS,
    pictures: Annotated[tuple[int, int], typer.Option(help="Pictures to search on, and to test on.")] = (36, 32),
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Other seeds draw other pictures.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Label, cache, search, evaluate: the whole path on the embedded model and benchmark, in minutes on a CPU.

    Example: clasp-calib quickstart --budget 192
    """
    from clasp_calib.artifacts.artifact import read_artifact
    from clasp_calib.reference.benchmark import write_benchmark

    if min(pictures) < 2:
        raise InputError(f"--pictures {' '.join(map(str, pictures))}: every part needs at least 2")
    splits = dict(zip(("calibration", "test"), pictures, strict=True))
    took: dict[str, float] = {}

    @contextmanager
    def step(name: str, headline: str) -> Iterator[None]:
        if not as_json:
            say(f"\n[{len(took) + 1}/5] {headline}")
        begun = time.perf_counter()
        with redirect_stdout(io.StringIO()) if as_json else nullcontext():
            yield
        took[name] = time.perf_counter() - begun

    with step("draw", f"Drawing {sum(pictures)} pictures with questions"):
        table = write_benchmark(run / "benchmark", splits, first=seed * max(pictures))
    with step("label", "Labelling the questions"):
        label(table, run=run)
    with step("cache", "Caching vision layers"):
        cache_features(run=run, model=REFERENCE)
    with step("search", f"Searching at {', '.join(budget)}"):
        search(budget=budget, run=run, seed=seed, anyway=True)
    with step("evaluate", "Answering the test questions"):
        evaluate(run=run, seed=seed, timed=2)
    if as_json:
        manifest = read_artifact(RunDirectory(run).artifact).manifest
        emit({"run": run, "seconds": took, "artifact": manifest.model_dump(mode="json")})
    else:
        say("time: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()))
        say(NEXT.format(run=run))
