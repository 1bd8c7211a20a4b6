"""The steps of a recipe as processes, one after the other; a killed run goes on with the step that it was at."""

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError, StudyError
from clasp_calib.common.given_files import read_given
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.progress import note
from clasp_calib.common.replacing import replaced
from clasp_calib.common.strict_json import strict_json
from clasp_calib.recipes.command_lines import CLASP, LMMS, Step, task_name
from clasp_calib.recipes.recipe_schema import RecipeColumn

LEDGER = "reproduction.json"
MODULES = {CLASP: "clasp_calib.cli", LMMS: "lmms_eval"}
"""Run by this interpreter, so that the environment is the same."""
GROUP, PLUGIN = "lmms_eval.models", "clasp"
MOST_BYTES = 64 << 20
RESULTS = {"task": "*_results.json", "compare": "comparison-test.json"}
"""Kind of step -> the files that hold what it found."""
VLLM, SKLEARN = "vllm", "sklearn"
"""What labels, unless a server does, and what trains a router."""


def check_installed(steps: Sequence[Step]) -> None:
    """Refuse steps that would find after hours that something is not installed.

    Raises:
        InputError: a package is not in this environment, or lmms-eval does not see the plug-in.
    """
    kinds = {step.kind for step in steps}
    needed = {
        MODULES[LMMS]: ("task", "lmms-eval", "asks the benchmarks' questions", "as docs/guide/lmms-eval.md says"),
        SKLEARN: ("router", "scikit-learn", "trains the router", "with pip install 'clasp-calib[router]'"),
    }
    if any("vllm" in step.argv for step in steps):
        way = "in an environment of its own, start `clasp-calib serve-labeler` there, and name its address (--base-url)"
        needed[VLLM] = ("label", "vLLM", "labels the questions", way)
    for module, (kind, name, does, way) in needed.items():
        if kind in kinds and find_spec(module) is None:
            raise InputError(
                f"{name} is not installed beside this package, and it {does}; install it {way}, and run the same "
                "command again. --dry and --plan do without it"
            )
    if "task" in kinds and not plugin_listed():
        raise InputError(
            f"lmms-eval is installed, and the model {PLUGIN!r} is not among its plug-ins ({GROUP}); install "
            "clasp-calib again"
        )


def plugin_listed() -> bool:
    """Whether lmms-eval finds the plug-in."""
    return PLUGIN in entry_points(group=GROUP).names


class StepRunner:
    """Runs steps and keeps which are done; one that is done runs again when its results are gone.

    Args:
        run: run directory.
        steps: all of the recipe.
        check: called with each step that was run or is done; raises where it did not do what it should.

    Raises:
        InputError: the directory holds another reproduction, or a damaged record.
    """

    def __init__(self, run: Path, steps: Sequence[Step], check: Callable[[Step], object]):
        self._steps, self._path, self._check = steps, run / LEDGER, check
        self._identity = sha256_json([list(step.argv) for step in steps])
        self._done = self._read()

    def run(self) -> None:
        """Run what is not done, in order.

        Raises:
            StudyError: a step ended with an error, or its results cannot be used.
        """
        again = {
            number
            for number, step in enumerate(self._steps[: self._done], start=1)
            if step.results is not None and not results_of(step)
        }
        if self._done:
            note(f"going on after {self._done} of {len(self._steps)} steps, which {self._path} records as done")
        if again:
            note(f"the results of {len(again)} of these are gone, and they run again")
        for number, step in enumerate(self._steps[: self._done], start=1):
            if number not in again:
                self._check(step)
        for number, step in enumerate(self._steps, start=1):
            if number <= self._done and number not in again:
                continue
            line = shlex.join(step.argv)
            note(f"[{number}/{len(self._steps)}] {line}")
            # What programs print is for people; standard output is this command's own.
            argv = [sys.executable, "-m", MODULES[step.argv[0]], *step.argv[1:]]
            code = subprocess.run(argv, stdout=sys.stderr.fileno(), check=False).returncode
            if code:
                raise StudyError(
                    f"step {number} of {len(self._steps)} ended with {code}: {line}; do what it says above, and run "
                    "the same command again: what is done is not repeated"
                )
            self._check(step)
            self._write(max(number, self._done))

    def _read(self) -> int:
        if not self._path.exists():
            return 0
        try:
            known = strict_json(read_given(self._path, MOST_BYTES, "record"))
            same, done = known["steps"] == self._identity, known["done"]
            if not isinstance(done, int) or isinstance(done, bool) or done < 0:
                raise ValueError(f"done is {done!r:.100}, which is no number of steps")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._path} is damaged ({error!r}); remove it, and finished steps run again") from error
        if not same:
            raise InputError(
                f"{self._path} records a reproduction with other steps; give another --run, or repeat the options of "
                "the first call"
            )
        return min(done, len(self._steps))

    def _write(self, done: int) -> None:
        with replaced(self._path) as partial:
            partial.write_text(json.dumps({"steps": self._identity, "done": done}) + "\n", encoding="utf-8")


def results_of(step: Step) -> list[Path]:
    """The files that hold what a step found, the oldest first; none of steps that have no `Step.results`."""
    if step.results is None:
        return []
    return sorted(step.results.rglob(RESULTS[step.kind]), key=lambda path: path.stat().st_mtime_ns)


def task_score(step: Step, column: RecipeColumn) -> float:
    """What lmms-eval found for a task, in the paper's unit.

    Args:
        step: of kind ``task``, which was run.
        column: that it fills.

    Raises:
        StudyError: there is no result, which lmms-eval's exit code does not tell, or it is no number.
    """
    assert step.results is not None
    files = results_of(step)
    if not files:
        raise StudyError(
            f"lmms-eval wrote no results to {step.results}, though it ended with 0; run it by hand and see what it "
            f"says: {shlex.join(step.argv)}"
        )
    try:
        found: Any = json.loads(read_given(files[-1], MOST_BYTES, "results").decode())
        of = found["results"][task_name(column)]
        numbers = [float(of[f"{metric},none"]) for metric in column.metrics]
    except (ValueError, KeyError, TypeError) as error:
        named = ", ".join(column.metrics)
        raise StudyError(
            f"{files[-1]} has no numbers for {named} of {task_name(column)} ({error!r}); see what lmms-eval said, "
            f"remove {step.results}, and run the same command again"
        ) from error
    if not all(map(math.isfinite, numbers)):
        raise StudyError(
            f"{files[-1]}: {', '.join(column.metrics)} are {numbers}; expected finite numbers: remove "
            f"{step.results}, and run the same command again"
        )
    return column.scale * sum(numbers)
