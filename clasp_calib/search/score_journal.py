"""The journal of scores: what was measured stays measured, whatever happens to the process.

A file of lines, each a checksum (xxh64, hex), a space, and a JSON object; lines are only ever added. The first line of
a study names the setup that it was begun under:

    7d1f5c...  {"setup": "9c0e...", "study": "192/race/counting"}
    02ab44...  {"candidates": ["own/rho=1", ...], "nll": [0.25, ...], "sample": "calibration/17", "score": [1.0, ...],
                "study": "192/race/counting"}

A sample's line is written in one piece, so that a kill tears the last line at most; a torn last line is dropped.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.common.journal import Journal, JournalKind

JOURNAL = "scores.jsonl"
KIND = JournalKind(
    StudyError,
    mend="remove the line to measure it again, or the file to measure everything again",
    elsewhere="give another --run",
)


class ScoreJournal:
    """All scores of a study directory, in memory and on disk; threads may share it, processes may not.

    Args:
        directory: of the study; made if it is not there. ``None`` keeps scores in memory only.

    Raises:
        StudyError: the place cannot be written to, another process is writing to it, or a line is damaged.
    """

    def __init__(self, directory: Path | None):
        self._lock = Lock()
        self._setups: dict[str, str] = {}
        self._scores: dict[str, dict[str, dict[str, tuple[float, float | None]]]] = {}
        self._journal = Journal(directory and directory / JOURNAL, self._take, KIND)

    def close(self) -> None:
        """Let another process write."""
        self._journal.close()

    def begin(self, study: str, setup: str) -> int:
        """Begin a study or take it up again.

        Args:
            study: its name, for instance ``192/race/counting``.
            setup: digest of all that its scores depend on.

        Returns:
            How many scores it holds.

        Raises:
            StudyError: it was begun under another setup.
        """
        with self._lock:
            if study not in self._setups:
                self._journal.append({"study": study, "setup": setup})
            elif (known := self._setups[study]) != setup:
                raise StudyError(
                    f"the study {study!r} was recorded with other settings (setup {known[:12]}, now {setup[:12]}): "
                    "the model, its tokenizer, the prompt, the samples, the space, the schedule or the strategy "
                    "changed; give a fresh place with --run, or remove the old study directory"
                )
            return sum(map(len, self._scores[study].values()))

    def setup(self, study: str) -> str | None:
        """The setup that a study was begun under; ``None`` if it was not."""
        return self._setups.get(study)

    def known(self, study: str, sample: str, candidates: Sequence[str]) -> list[str]:
        """Those of the candidates that have a score on a sample."""
        scores = self._scores[study].get(sample, {})
        return [name for name in candidates if name in scores]

    def record(self, study: str, sample: str, candidates: Sequence[str], scores: Scores) -> None:
        """Record what candidates scored on a sample; safe from a kill before this returns."""
        line = {"study": study, "sample": sample, "candidates": list(candidates), "score": list(scores.score)}
        self._journal.append(line | {"nll": scores.nll and list(scores.nll)})

    def scores(self, study: str, sample: str, candidates: Sequence[str]) -> list[tuple[float, float | None]]:
        """Score and negative log-likelihood of each candidate on a sample; all must be recorded."""
        scores = self._scores[study][sample]
        return [scores[name] for name in candidates]

    def _take(self, entry: dict[str, Any]) -> None:
        if "setup" in entry:
            self._setups[entry["study"]] = entry["setup"]
            self._scores[entry["study"]] = {}
            return
        nll = entry["nll"] or [None] * len(entry["candidates"])
        of_sample = self._scores[entry["study"]].setdefault(entry["sample"], {})
        of_sample.update({name: (s, n) for name, s, n in zip(entry["candidates"], entry["score"], nll, strict=True)})
