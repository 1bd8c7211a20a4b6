"""The journal of scores: what was measured stays measured, whatever happens to the process, whoever asks next.

A score is kept under all that it depends on, a sample's key and a candidate's own mixture and rho, and under nothing
else. So strategies share scores, and a search that has more or fewer samples or candidates than the one before measures
only what is new:

    {"budget":"192","setting":{"prompt":"USER: ...","weights":"9f0c...", ...}}
    {"candidates":["0.5*3+0.5*23 rho=0.25", ...],"nll":[0.25, ...],"sample":"3f2a... metric 7d1f...","score":[1.0, ...]}

Scores and likelihoods are rounded, so that what a forward of other candidates, or another processor, makes of the last
bits is mostly forgotten, and is never part of a decision that was recorded.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.common.journal import Journal, JournalKind, OtherVersionError, number
from clasp_calib.search.identity import changes

JOURNAL = "scores.jsonl"
DECIMALS = 6
"""Of scores and likelihoods. Our choice: the last bits of float32 are at 1e-7 of a likelihood of some nats."""
KIND = JournalKind(
    StudyError,
    mend="remove the line to measure it again, or the file to measure everything again",
    elsewhere="give another --run",
)

Score = tuple[float, float | None]
"""A score and, where there is one, its negative log-likelihood."""


class ScoreJournal:
    """All scores of a study directory, in memory and on disk; threads may share it, processes may not.

    Args:
        directory: of the study; made if it is not there. ``None`` keeps scores in memory only.

    Raises:
        StudyError: the place cannot be written to, another process is writing to it, or a line is damaged.
    """

    def __init__(self, directory: Path | None):
        self._lock = Lock()
        self._settings: dict[str, Any] = {}
        self._scores: dict[str, dict[str, Score]] = defaultdict(dict)
        self._journal = Journal(directory and directory / JOURNAL, self._take, KIND)

    def close(self) -> None:
        """Let another process write."""
        self._journal.close()

    def settle(self, budget: str, setting: Mapping[str, Any], record: bool = True) -> None:
        """Make sure that the setting of a budget's search is still the same, and record it if there is none yet.

        Args:
            budget: its name.
            setting: name -> value of all that every score depends on; JSON.
            record: do so.

        Raises:
            StudyError: it is another; says what changed.
        """
        setting = json.loads(json.dumps(setting))
        known = self._settings.get(budget)
        if known is None:
            if record:
                self._journal.append({"budget": budget, "setting": setting})
        elif changed := list(changes(known, setting)):
            raise StudyError(
                f"the scores for budget {budget!r} in {self._journal.path} were recorded with other settings: "
                f"{'; '.join(changed)}; search with those again, give another --run, or remove that file"
            )

    def count(self, samples: Iterable[str]) -> int:
        """How many scores there are of samples, by their keys."""
        return sum(len(self._scores.get(key, ())) for key in samples)

    def known(self, sample: str, candidates: Collection[Candidate]) -> list[Candidate]:
        """Those of the candidates that have a score on a sample."""
        scores = self._scores.get(sample, {})
        return [candidate for candidate in candidates if candidate.key in scores]

    def record(self, sample: str, candidates: Sequence[Candidate], scores: Scores) -> None:
        """Record what candidates scored on a sample; safe from a kill before this returns."""
        score, nll = (values and [round(value, DECIMALS) for value in values] for values in (scores.score, scores.nll))
        keys = [candidate.key for candidate in candidates]
        self._journal.append({"sample": sample, "candidates": keys, "score": score, "nll": nll})

    def scores(self, samples: Sequence[str], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Score and negative log-likelihood, ``[n, m, 2]``, of each candidate on each sample; not-a-number if unknown.

        Args:
            samples: n keys.
            candidates: m.
        """
        unknown: Score = (math.nan, None)
        rows = [[self._scores.get(key, {}).get(c.key, unknown) for c in candidates] for key in samples]
        return np.array(rows, dtype=np.float64).reshape(len(samples), len(candidates), 2)

    def _take(self, entry: Any) -> None:
        if "setting" in entry:
            self._settings[entry["budget"]] = dict(entry["setting"])
        elif "study" in entry:
            raise OtherVersionError("its scores cannot be compared with those of this one")
        else:
            scores = [number(score) for score in entry["score"]]
            nll = [None if one is None else number(one) for one in entry["nll"] or [None] * len(scores)]
            of = self._scores[entry["sample"]]
            of.update(zip(entry["candidates"], zip(scores, nll, strict=True), strict=True))
