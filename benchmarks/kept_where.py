"""Where the tokens lie that published methods keep, and which part of a method loses those that a question asks about.

    python benchmarks/kept_where.py [--pictures 20] [--budgets 192,64] [--work DIR] [--pages DIR]

The program that draws the pictures knows which of the 576 patches show what a question asks about, which show something
else and which show background. Every method answers every question of some pictures that nothing else used, as released
and with one part changed (`varied_methods.py`). It is noted which patches each layer sees that reads from the picture.
About 40 minutes of one core that did other work too; a killed run goes on with the method where it stopped.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import MEASURED
from numpy.typing import NDArray
from seeding import told
from steps import kept
from varied_methods import VARIED, Merging, Varied

import clasp_calib as cc
from clasp_calib.baselines.method import Method
from clasp_calib.baselines.solving import ImageDependent
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.contest import Answerer, Entrant
from clasp_calib.calib.studies.entrants import ByMethod
from clasp_calib.calib.studies.intervals import Clusters, Interval, interval
from clasp_calib.common.errors import BudgetError
from clasp_calib.common.progress import track
from clasp_calib.common.samples import Sample
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.reference.benchmark import scene_questions, split_scene, write_benchmark
from clasp_calib.reference.model import MODEL, VERSION
from clasp_calib.reference.questions import Question
from clasp_calib.reference.scenes import Scene
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.stats import PruningStats
from tools.reference.by_design import BY_DESIGN
from tools.reference.idle_blocks import leave_out_idle_blocks
from tools.reference.remembered_tower import remember_tower
from tools.reference.shape import BLOCKS
from tools.reference.supervision import KIND, NOTHING, covered, patch_labels

ROOT = Path(__file__).parent.parent
FIRST = 13_000
"""Number of the first picture of each split: no other measurement uses these."""
SOLVE_ON, EVERY = 24, 8
"""Calibration pictures, and each eighth of their questions, on which knobs are solved that depend on the picture."""
LONGEST = 8
"""Tokens of an answer."""
READ = tuple(block.attention for block in BLOCKS if block.role == "read")
"""Decoder layers that fetch from the picture."""
SHARES = ("asked", "found", "other", "background")
NOTE = """Embedded model v{version}, float32, all {questions} questions about {pictures} pictures of the test split,
from number {first} on."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """A question, and where in the picture is what it asks about: a box is a mask of all patches."""

    sample: Sample
    boxes: tuple[Bools, ...]
    things: Bools
    """Patches that show something."""

    def shares(self, kept_LN: Bools) -> dict[str, float]:
        """What the reading layers see, the mean over them; nothing where no place is asked about.

        ``asked``, ``other`` and ``background``: shares of these patches; ``found``: share of the boxes of which a patch
        is seen.

        Args:
            kept_LN: patches that each of L layers sees.
        """
        if not self.boxes:
            return {}
        asked_N = np.any(self.boxes, axis=0)
        parts = asked_N, self.things & ~asked_N, ~(self.things | asked_N)
        asked, other, background = (float(kept_LN[:, part_N].mean()) for part_N in parts)
        found = float(np.mean([kept_LN[:, box_N].any(1) for box_N in self.boxes]))
        return {"asked": asked, "found": found, "other": other, "background": background}


def placed(sample: Sample, scene: Scene, question: Question) -> Asked:
    """A question with its places."""
    if sample.question != question.text:
        raise ValueError(f"{sample.id} asks {sample.question!r}, and its scene {question.text!r}")
    things_N = patch_labels(scene)[:, KIND] != NOTHING
    columns, rows = (side // 14 for side in scene.size)
    boxes = []
    for box in question.evidence:
        mask_RC = np.zeros((rows, columns), dtype=bool)
        mask_RC[covered(box)] = True
        boxes.append(mask_RC.flatten())
    return Asked(sample, tuple(boxes), things_N)


def seen_by(stats: PruningStats, layers: Sequence[int], patches: int, token_N: NDArray[np.int64] | None) -> Bools:
    """Patches that each layer of the first row sees, [L, N]; of merged ones all that went into a token.

    Args:
        stats: of a prefill.
        layers: of the decoder.
        patches: N.
        token_N: which token each patch went into, if that is not its own.
    """
    token_N = np.arange(patches) if token_N is None else token_N
    stages = [[stage for stage in stats.stages if stage.start <= layer][-1] for layer in layers]
    return np.array([np.isin(token_N, stage.kept(0)) for stage in stages])


@dataclass(frozen=True)
class Watched:
    """Applies a method, and notes what its prefills kept."""

    solved: Method
    seen: list[Bools]
    patches: int

    @contextmanager
    def __call__(self, model: Any, sample: Sample, seed: int) -> Iterator[Any]:
        """See `Entrant.apply`."""
        merging = Merging()
        with ByMethod(self.solved)(model, sample, seed) as run, merging.attached():
            yield run
            token_N = None if merging.token_N is None else merging.token_N.numpy()
            self.seen.append(seen_by(run.stats, READ, self.patches, token_N))


def measured(varied: Varied, budget: str, asked: Sequence[Asked], answerer: Answerer, solve: Any) -> dict[str, Any]:
    """Of every question the score, the tokens a layer, and `Asked.shares`."""
    model, method = answerer.model, varied.method
    if isinstance(method, ImageDependent):
        solved: Method = method.calibrated(model, solve(), budget)[0]
    else:
        adapter = adapter_for(model)
        solved = method.solved(adapter, pruning_budget(adapter, budget))
    watched = Watched(solved, [], len(asked[0].things))
    entrant, rows = Entrant(varied.name, budget, watched), []
    for one in track(asked, f"{varied.name} at {budget}", len(asked)):
        (answer,) = answerer.answers(one.sample, [(entrant, 0)])
        rows.append({"right": answer.score, "tokens": answer.tokens, **one.shares(watched.seen[-1])})
    return {"rows": rows}


def table(found: Mapping[str, Sequence[Mapping[str, float]]], clusters: Clusters) -> str:
    """A row for each method and change; the first method is what the others are compared with."""
    lines, begun = [], next(iter(found.values()))
    for varied in (varied for varied in VARIED if varied.name in found):
        rows = found[varied.name]
        has = np.array(["asked" in row for row in rows])
        shares = {
            name: interval(np.array([row[name] for row in rows if name in row]), clusters.inside(has))
            for name in SHARES
        }
        right = np.array([row["right"] for row in rows])
        gain = interval(right - np.array([row["right"] for row in begun]), clusters, "gains")
        lines.append(
            [
                f"`{varied.method.name}`" if not varied.part else f"... {varied.part}",
                percent(shares["asked"]),
                *(f"{100 * shares[name].mean:.0f}" for name in SHARES[1:]),
                f"{100 * right.mean():.1f}",
                told(gain) if rows is not begun else "",
                f"{np.mean([row['tokens'] for row in rows]):.0f}",
            ]
        )
    header = ["method", *SHARES, "right", f"minus {VARIED[0].method.name}", "tokens a layer"]
    return markdown_table(header, lines)


def percent(found: Interval) -> str:
    return f"{100 * found.mean:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--budgets", default="192,64")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "kept-where")
    parser.add_argument("--pages", type=Path, help="directory of the page that the tables are put into")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(str(MODEL), "cpu", "float32")
    leave_out_idle_blocks(model)
    remember_tower(model)
    work = arguments.work / f"{arguments.pictures}-pictures"
    splits = {"test": arguments.pictures, "calibration": SOLVE_ON}
    samples = list(cc.load_samples(write_benchmark(work / "benchmark", splits, first=FIRST)))
    prompter = Prompter(processor, model)
    solving = [sample for sample in samples if sample.split == "calibration"][::EVERY]
    scenes = [split_scene("test", FIRST + number) for number in range(arguments.pictures)]
    questions = [(scene, question) for scene in scenes for question in scene_questions(scene)]
    tested = [sample for sample in samples if sample.split == "test"]
    asked = [placed(sample, *of) for sample, of in zip(tested, questions, strict=True)]
    answerer = Answerer(model, processor, prompter, LONGEST)

    def solve() -> list[dict[str, Any]]:
        return [dict(prompter.inputs(model, sample)) for sample in solving]

    clusters = Clusters.of([one.sample.cluster for one in asked], 0)
    parts = [NOTE.format(version=VERSION, questions=len(asked), pictures=clusters.count, first=FIRST), BY_DESIGN]
    for budget in arguments.budgets.split(","):
        found = {}
        for varied in VARIED:
            make = partial(measured, varied, budget, asked, answerer, solve)
            try:
                found[varied.name] = kept(work / f"{budget}, {varied.name}.json", make)["rows"]
            except BudgetError as error:
                print(f"{varied.name} takes no part at {budget}: {error}")
        parts.append(f"### {budget} tokens\n\n{table(found, clusters)}")
    text = "\n\n".join(parts)
    print(text)
    if arguments.pages:
        page = (ROOT / "docs" / "results" / "below-random.md").read_text(encoding="utf-8")
        put = MEASURED.sub(lambda marks: f"{marks[1]}{text}\n{marks[2]}", page)
        (arguments.pages / "below-random.md").write_text(put, encoding="utf-8")


if __name__ == "__main__":
    main()
