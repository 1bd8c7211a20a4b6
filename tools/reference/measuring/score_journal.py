"""Scores on disk as they come: a line a question, from several processes at once."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.journal import Journal, JournalKind

Scores = Mapping[str, Mapping[str, float]]
"""Id of a sample -> name of a setting -> 1 if the answer was right, else 0."""
KIND = JournalKind(InputError, mend="remove the line", elsewhere="give another --work", plain=True)


class ScoreJournal:
    """The journals ``scores-*.jsonl`` of a split: all are read, one is appended to.

    Args:
        directory: of the split.
        shard: name of the own file.
    """

    def __init__(self, directory: Path, shard: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._shard = directory, shard
        self._own: Journal | None = None

    def read(self) -> dict[str, dict[str, float]]:
        """All that is known; of a question that was scored twice, what was scored under other settings is joined.

        Raises:
            InputError: a line is damaged.
        """
        found: dict[str, dict[str, float]] = defaultdict(dict)

        def take(entry: Any) -> None:
            found[entry["sample"]] |= entry["scores"]

        for path in sorted(self._directory.glob("scores-*.jsonl")):
            Journal(path, take, KIND, writable=False)
        return dict(found)

    def add(self, sample: str, scores: Mapping[str, float]) -> None:
        """Keep a question's scores.

        Raises:
            InputError: another process is writing to the same shard.
        """
        if self._own is None:
            self._own = Journal(self._directory / f"scores-{self._shard}.jsonl", lambda _: None, KIND)
        self._own.append({"sample": sample, "scores": dict(scores)})
