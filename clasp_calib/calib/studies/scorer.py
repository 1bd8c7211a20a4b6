"""Samples scored by a crew: recorded as they come, and not scored again by a call that goes on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.score_tasks import ScoreTask
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import StudyError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.journal import Journal, JournalKind, number
from clasp_calib.common.progress import progress
from clasp_calib.crew.tasks import Together, Workers

UNIT = 16
"""Tasks of one picture that a worker is given at a time, for they share a read of it. Our choice: many enough that the
read is little beside them, few enough that a killed worker loses little."""
KIND = JournalKind(StudyError, mend="remove the line to measure it again", elsewhere="give another --run")


class ScoreLedger:
    """The journal ``<directory>/scores-<16 hex of the identity's hash>.jsonl``: what tasks scored, by all they are.

    Args:
        directory: made if it is missing; ``None`` keeps scores in memory only.
        identity: all that decides scores but for what a `ScoreTask` says: model, table, prompt, decoding, threads.

    Raises:
        StudyError: the file is damaged, cannot be written to, or another process is writing to it.
    """

    def __init__(self, directory: Path | None, identity: Mapping[str, Any]):
        self._known: dict[str, tuple[float, ...]] = {}
        self._content = cache(image_key)
        self.path = directory and directory / f"scores-{sha256_json(identity)[:16]}.jsonl"
        self._journal = Journal(self.path, self._take, KIND, head=identity)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> tuple[float, ...]:
        return self._known[key]

    def key(self, task: ScoreTask) -> str:
        """What the scores of a task are recorded under: its sample with its pictures' content, pruning, candidates."""
        sample = task.sample
        # In memory no file can change between one call and the next.
        content = " ".join(self._content(one.picture) for one in sample.alone) if self.path else ""
        asked = [sample.id, content, sample.question, sample.answers, sample.metric]
        return sha256_json([asked, _told(task.pruning), [candidate.key for candidate in task.candidates]])[:32]

    def record(self, key: str, scores: Sequence[float]) -> None:
        """Record what a task scored; safe from a kill before this returns."""
        self._journal.append({"task": key, "scores": list(scores)})

    def discard(self) -> None:
        """Remove the file: all is measured."""
        if self.path is not None:
            self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def _take(self, entry: Any) -> None:
        self._known[str(entry["task"])] = tuple(number(score) for score in entry["scores"])


class Scorer:
    """Scores tasks.

    Args:
        workers: whose tool is an evaluator.
        ledger: where scores are recorded; by default in memory.
    """

    def __init__(self, workers: Workers, ledger: ScoreLedger | None = None):
        self._workers = workers
        self._ledger = ScoreLedger(None, {}) if ledger is None else ledger

    def scores(self, tasks: Sequence[ScoreTask]) -> list[tuple[float, ...]]:
        """What each task's candidates score.

        Args:
            tasks: those of a picture one after the other.

        Raises:
            StudyError: workers died too often, or the ledger cannot be written to.
            ComputationError: the model fails on a sample, or its memory is too small.
        """
        keys, ledger = [self._ledger.key(task) for task in tasks], self._ledger
        left = {key: task for key, task in zip(keys, tasks, strict=True) if key not in ledger}
        units = list(units_of(list(left.items())))
        with progress() as bar:
            shown = bar.add_task("answering", total=len(set(keys)), completed=len(set(keys)) - len(left))
            for place, found in self._workers.do([Together(tuple(unit.values())) for unit in units]):
                for key, scores in zip(units[place], found, strict=True):
                    ledger.record(key, scores.score)
                bar.advance(shown, len(found))
        return [ledger[key] for key in keys]


def units_of(tasks: Sequence[tuple[str, ScoreTask]]) -> Iterator[dict[str, ScoreTask]]:
    """Tasks by their keys, as workers are given them: at most `UNIT` of one picture at a time, in order."""
    for _, group in groupby(tasks, key=lambda pair: pair[1].sample.media):
        of = list(group)
        for start in range(0, len(of), UNIT):
            yield dict(of[start : start + UNIT])


def _told(pruning: Pruning) -> list[Any]:
    assert pruning.selector_for is None, "nobody knows what a function chooses"
    schedule = pruning.schedule
    return [schedule and [type(schedule).__name__, asdict(schedule)], asdict(pruning.options)]
