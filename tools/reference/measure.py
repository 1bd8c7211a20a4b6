"""Score the reference model under named settings, question by question, so that a killed run goes on.

    python -m tools.reference.measure --work DIR --split test --shard 0/2

draws the split, caches the layers of its pictures, and appends a line a question to a journal. Several processes may
take a shard each; journals of all shards are read together. ``selection`` comes before ``test``, which needs what was
chosen on it.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import ROWS, Evaluator, Pruning
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.progress import console, track
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.common.scripts import ended
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.selection import Selector
from clasp_calib.search.space import OWN
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.choosing import Choices, choose
from tools.reference.measuring.partly_random import PartlyRandom
from tools.reference.measuring.score_journal import ScoreJournal, Scores
from tools.reference.measuring.settings import (
    BUDGETS,
    RHOS,
    STAGES,
    Plan,
    Setting,
    at_rho,
    comparison_plan,
    control_plan,
    mixed,
    selection_plan,
)
from tools.reference.measuring.unpruned import SharedPicture

PICTURES = {"selection": 120, "test": 540, "challenge": 120}
"""Pictures of each split in the committed report; a picture has at most one question a class."""


def measure(bench: Bench, split: str, pictures: int, plan: Plan, shard: tuple[int, int] = (0, 1)) -> None:
    """Score all questions of a split, or of a shard of it, that are not scored yet.

    Args:
        bench: what is measured.
        split: of the benchmark.
        pictures: how many of it.
        plan: what each class's questions are scored under.
        shard: ``(i, n)``, the i-th of n equal parts of the pictures, counted from 0.

    Raises:
        InputError: an unknown split, or a shard that is none.
    """
    if pictures < 2:
        raise InputError(
            f"cannot measure {pictures} pictures of {split}; expected at least 2: a control shows another's"
        )
    part, parts = shard
    if not 0 <= part < parts:
        raise InputError(f"there is no shard {part}/{parts}; expected i/n with i from 0 to n - 1")
    samples = bench.samples(split, pictures)
    evaluator, shared = bench.evaluators(split, samples, bench.lean())
    by_picture: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_picture[str(sample.image)].append(sample)
    groups = list(by_picture.values())
    journal = ScoreJournal(bench.root / split, f"{part}-of-{parts}")
    known = journal.read()
    if done := len(samples) - missing(samples, plan, known):
        console.print(f"{done} of {len(samples)} questions of {split} are measured already", highlight=False)
    first, last = part * len(groups) // parts, (part + 1) * len(groups) // parts
    for number in track(range(first, last), f"measuring {split}", last - first):
        todo = {
            sample: [setting for setting in plan[str(sample.label)] if setting.name not in known.get(sample.id, {})]
            for sample in groups[number]
        }
        found = _unpruned(bench, shared, todo, groups[(number + 1) % len(groups)][0])
        for sample, settings in todo.items():
            scores = found[sample] | _pruned(bench, evaluator, sample, [s for s in settings if s.budget is not None])
            if scores:
                journal.add(sample.id, scores)


def _unpruned(
    bench: Bench, shared: SharedPicture, todo: Mapping[Sample, Sequence[Setting]], other: Sample
) -> dict[Sample, dict[str, float]]:
    """Scores without pruning of questions about one picture; shuffled ones are asked about another's."""
    found: dict[Sample, dict[str, float]] = {sample: {} for sample in todo}
    for setting in dict.fromkeys(s for of in todo.values() for s in of if s.budget is None):
        asked = [sample for sample, of in todo.items() if setting in of]
        hits = shared.hits(other if setting.shuffled else asked[0], asked, bench.mixtures[setting.mixture])
        for sample, hit in zip(asked, hits, strict=True):
            found[sample][setting.name] = hit
    return found


def _pruned(bench: Bench, evaluator: Evaluator, sample: Sample, settings: Sequence[Setting]) -> dict[str, float]:
    """Scores of one question under pruned settings; those of a budget share a forward."""
    found: dict[str, float] = {}
    for budget in dict.fromkeys(setting.budget for setting in settings):
        assert budget is not None
        alike = [setting for setting in settings if setting.budget == budget]
        schedule = schedule_for(bench.model, budget, PruningOptions(starts=STAGES))
        for start in range(0, len(alike), ROWS):
            part = alike[start : start + ROWS]
            candidates = [Candidate(s.mixture, bench.mixtures[s.mixture], s.rho) for s in part]
            selector = partial(_selector, [s.random for s in part])
            scores = evaluator.scores(sample, candidates, Pruning(schedule, selector_for=selector)).score
            found |= {setting.name: score for setting, score in zip(part, scores, strict=True)}
    return found


def _selector(random: Sequence[Sequence[int]], sample: Sample) -> Selector:
    return PartlyRandom(int(sha256_json(sample.id)[:12], 16), random, STAGES)


def missing(samples: Sequence[Sample], plan: Plan, scores: Scores) -> int:
    """Questions that some planned setting was not measured on."""
    return sum(any(s.name not in scores.get(q.id, {}) for s in plan[str(q.label)]) for q in samples)


def plan_for(bench: Bench, split: str, selection: int) -> Plan:
    """What a split is measured under.

    Args:
        bench: what is measured.
        split: of the benchmark.
        selection: pictures of the selection split, which a plan for ``test`` follows from.

    Raises:
        InputError: the selection split was not measured to its end.
    """
    if split == "selection":
        return selection_plan(list(bench.mixtures), CLASSES)
    return comparison_plan(choices_of(bench, selection), CLASSES) if split == "test" else control_plan(CLASSES)


def choices_of(bench: Bench, pictures: int) -> Choices:
    """What is chosen on so many pictures of the selection split.

    Raises:
        InputError: they were not measured to the end.
    """
    samples, plan = bench.samples("selection", pictures), selection_plan(list(bench.mixtures), CLASSES)
    scores = ScoreJournal(bench.root / "selection", "read").read()
    if lacking := missing(samples, plan, scores):
        raise InputError(
            f"{lacking} of {len(samples)} questions of the selection split are not measured yet; "
            f"run `python -m tools.reference.measure --work {bench.root.parent} --split selection "
            f"--selection {pictures}` with the same model to its end first"
        )

    def accuracy(setting: Setting, label: str) -> float:
        values = [scores[s.id][setting.name] for s in samples if s.label == label]
        return sum(values) / len(values)

    return choose(
        lambda budget, rho, label: accuracy(at_rho(budget, rho), label),
        lambda name, label: accuracy(mixed(name), label),
        BUDGETS,
        RHOS,
        [name for name in bench.mixtures if name != OWN],
        [label for label in CLASSES if any(s.label == label for s in samples)],
    )


def shard_of(text: str) -> tuple[int, int]:
    """``"i/n"`` as two numbers."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that measuring and reporting share."""
    parser.add_argument("--work", type=Path, required=True, help="where measurements are kept")
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of the model (default: the embedded one)")
    for split, count in PICTURES.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"pictures (default {count})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--split", choices=PICTURES, nargs="+", default=list(PICTURES))
    parser.add_argument("--shard", type=shard_of, default=(0, 1), help="i/n: the i-th of n parts, from 0")
    given = parser.parse_args(arguments)
    bench = Bench.open(given.work, given.model)
    for split in given.split:
        measure(bench, split, getattr(given, split), plan_for(bench, split, given.selection), given.shard)


if __name__ == "__main__":
    sys.exit(ended(main))
