"""Scores on disk as they come: a line a question, from several processes at once."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json

Scores = Mapping[str, Mapping[str, float]]
"""Id of a sample -> name of a setting -> 1 if the answer was right, else 0."""


class ScoreJournal:
    """The files ``scores-*.jsonl`` of a split: all are read, one is appended to. Torn last lines are dropped.

    Args:
        directory: of the split.
        shard: name of the own file.
    """

    def __init__(self, directory: Path, shard: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._path = directory, directory / f"scores-{shard}.jsonl"
        if self._path.is_file():
            content = self._path.read_bytes()
            if content and not content.endswith(b"\n"):
                os.truncate(self._path, content.rfind(b"\n") + 1)

    def read(self) -> dict[str, dict[str, float]]:
        """All that is known; of a question that was scored twice, what was scored under other settings is joined.

        Raises:
            InputError: a line is damaged.
        """
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for path in sorted(self._directory.glob("scores-*.jsonl")):
            content = path.read_bytes()
            for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
                try:
                    entry = json.loads(line)
                    found[entry["sample"]] |= entry["scores"]
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(f"line {number} of {path} is damaged ({error}); remove the line") from error
        return dict(found)

    def add(self, sample: str, scores: Mapping[str, float]) -> None:
        """Keep a question's scores."""
        with self._path.open("ab", buffering=0) as file:
            file.write((canonical_json({"sample": sample, "scores": dict(scores)}) + "\n").encode())
