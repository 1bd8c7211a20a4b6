"""Score the reference model under named settings, question by question, so that a killed run goes on.

    python -m clasp_calib.reference.measure --work DIR --split test --shard 0/2

draws the split, caches the layers of its pictures, and appends a line a question to a journal. Several processes may
take a shard each; journals of all shards are read together. ``selection`` comes before ``test``, which needs what was
chosen on it.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clasp_calib.cache.encode import cache_features
from clasp_calib.calib.candidate import Candidate
from clasp_calib.calib.evaluator import ROWS, Evaluator, Pruning
from clasp_calib.calib.prompting import Prompter
from clasp_calib.calib.sources import open_source
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file, sha256_json
from clasp_calib.common.progress import track
from clasp_calib.common.samples import CLASSES, Sample, read_table, samples_of
from clasp_calib.common.scripts import ended
from clasp_calib.reference.benchmark import FIRST_SEED, VERSION, write_benchmark
from clasp_calib.reference.measuring.choosing import Choices, choose
from clasp_calib.reference.measuring.partly_random import PartlyRandom
from clasp_calib.reference.measuring.score_journal import ScoreJournal, Scores
from clasp_calib.reference.measuring.settings import (
    BUDGETS,
    RHOS,
    STAGES,
    Alpha,
    Plan,
    Setting,
    at_rho,
    comparison_plan,
    control_plan,
    mixed,
    mixtures_of,
    selection_plan,
)
from clasp_calib.reference.measuring.unpruned import SharedPicture
from clasp_calib.reference.model import MODEL
from clasp_calib.reference.wordings import HELD_OUT
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.pruner import schedule_for
from clasp_calib.runtime.selection import Selector
from clasp_calib.search.space import OWN

PICTURES = {"selection": 120, "test": 540, "challenge": 120}
"""Pictures of each split in the committed report; a picture has at most one question a class."""


@dataclass(frozen=True)
class Bench:
    """A model, and the place where what is measured of it is kept."""

    root: Path
    model: Any
    processor: Any
    mixtures: Mapping[str, Alpha]

    @classmethod
    def open(cls, work: Path, directory: Path = MODEL) -> "Bench":
        """Load a model; what is kept of other models or benchmarks lies elsewhere under ``work``.

        Args:
            work: directory of all measurements.
            directory: of the model.

        Raises:
            ModelError: there is no model.
            InputError: the place cannot be written to.
        """
        model, processor = load_model(str(directory), "cpu", "float32")
        files = [[path.name, sha256_file(path)] for path in sorted(directory.iterdir()) if path.is_file()]
        root = work / sha256_json([VERSION, HELD_OUT, files])[:16]
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {work} ({error}); give another place with --work") from error
        adapter = adapter_for(model)
        return cls(root, model, processor, mixtures_of(adapter.vision_layers, adapter.own_layer))

    def samples(self, split: str, pictures: int) -> list[Sample]:
        """The split's questions with gold classes as labels, picture by picture; drawn and cached if need be.

        Raises:
            InputError: the benchmark has no such split.
        """
        if split not in FIRST_SEED:
            raise InputError(f"the benchmark has no split {split!r}; expected one of {', '.join(FIRST_SEED)}")
        place = self.root / split / str(pictures)
        with _locked(self.root / f"{split}.lock"):
            table = place / "samples.parquet"
            if not table.is_file():
                write_benchmark(place, {split: pictures})
            rows = read_table(table, {"class": "gold_class", "intent": "gold_intent"}).drop_columns(["split"])
            samples = samples_of(rows, place, CLASSES)
            adapter = adapter_for(self.model)
            layers = range(1, adapter.own_layer + 1)
            cache_features(self.model, self.processor, samples, layers, self.root / split / "cache", workers=0)
        return samples

    def evaluators(self, split: str, samples: Sequence[Sample]) -> tuple[Evaluator, SharedPicture]:
        """What scores the split: pruned, and unpruned."""
        adapter = adapter_for(self.model)
        source = open_source(self.root / split / "cache", self.model, self.processor)
        features = source.at(tuple(range(1, adapter.own_layer + 1)))
        features.check(list(samples))
        prompter = Prompter(self.processor, adapter.tokens_per_image)
        return Evaluator(self.model, prompter, features), SharedPicture(self.model, prompter, features)


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
    evaluator, shared = bench.evaluators(split, samples)
    by_picture: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_picture[str(sample.image)].append(sample)
    groups = list(by_picture.values())
    journal = ScoreJournal(bench.root / split, f"{part}-of-{parts}")
    known = journal.read()
    first, last = part * len(groups) // parts, (part + 1) * len(groups) // parts
    for number in track(range(first, last), f"measuring {split}", last - first):
        todo = {
            sample: [setting for setting in plan[str(sample.label)] if setting.name not in known.get(sample.id, {})]
            for sample in groups[number]
        }
        found = _unpruned(shared, todo, groups[(number + 1) % len(groups)][0])
        for sample, settings in todo.items():
            scores = found[sample] | _pruned(bench, evaluator, sample, [s for s in settings if s.budget is not None])
            if scores:
                journal.add(sample.id, scores)


def _unpruned(
    shared: SharedPicture, todo: Mapping[Sample, Sequence[Setting]], other: Sample
) -> dict[Sample, dict[str, float]]:
    """Scores without pruning of questions about one picture; shuffled ones are asked about another's."""
    found: dict[Sample, dict[str, float]] = {sample: {} for sample in todo}
    for setting in dict.fromkeys(s for of in todo.values() for s in of if s.budget is None):
        asked = [sample for sample, of in todo.items() if setting in of]
        hits = shared.hits(other if setting.shuffled else asked[0], asked)
        for sample, hit in zip(asked, hits, strict=True):
            found[sample][setting.name] = hit
    return found


def _pruned(bench: Bench, evaluator: Evaluator, sample: Sample, settings: Sequence[Setting]) -> dict[str, float]:
    """Scores of one question under pruned settings; those of a budget share a forward."""
    found: dict[str, float] = {}
    for budget in dict.fromkeys(setting.budget for setting in settings):
        assert budget is not None
        alike = [setting for setting in settings if setting.budget == budget]
        schedule = schedule_for(bench.model, budget, STAGES)
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
            f"run `python -m clasp_calib.reference.measure --work {bench.root.parent} --split selection "
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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
