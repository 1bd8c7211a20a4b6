"""The journal of scores: what was measured stays measured, whatever happens to the process, whoever asks next.

A score is kept under all that it depends on, a sample's key and a candidate's own mixture and rho, and under nothing
else. So strategies share scores, and a search that has more or fewer samples or candidates than the one before measures
only what is new:

    {"budget":"192","setting":{"prompt":"USER: ...","weights":"9f0c...", ...}}
    {"begun":"9c0e...","study":"192/race/counting"}
    {"candidates":["0.5*3+0.5*23 rho=0.25", ...],"nll":[0.25, ...],"sample":"3f2a... metric 7d1f...","score":[1.0, ...]}

Versions before this one kept a score under names of study, sample and candidate, and of all else a digest only.
"""

import json
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
from clasp_calib.common.journal import Journal, JournalKind, number
from clasp_calib.search.identity import changes

JOURNAL = "scores.jsonl"
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
        self._setups: dict[str, str] = {}
        self._scores: dict[str, dict[str, Score]] = defaultdict(dict)
        self._older: dict[str, dict[str, dict[str, Score]]] = {}
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

    def begin(self, study: str, setup: str, samples: Mapping[str, str], candidates: Sequence[Candidate]) -> None:
        """Begin a study or go on with it; what a version before recorded of it is taken up.

        Args:
            study: its name, for instance ``192/race/counting``.
            setup: digest of the whole search.
            samples: key of each sample, by the name that versions before gave it.
            candidates: of the search.

        Raises:
            StudyError: a version before recorded it under another setup, so that its scores cannot be told apart.
        """
        with self._lock:
            known, older = self._setups.get(study), self._older.get(study, {})
            if older and known != setup:
                raise StudyError(
                    f"the study {study!r} in {self._journal.path} was recorded by an earlier version under other "
                    f"settings, of which it kept a digest only ({known}, now {setup}): the model, its tokenizer, the "
                    "prompt, the samples, the space, the schedule or the strategy changed; search once with those of "
                    "then, which takes its scores up, give another --run, or remove that file"
                )
            for name, key in samples.items():
                recorded = older.get(name, {})
                missing = [c for c in candidates if c.name in recorded and not self.known(key, [c])]
                if missing:
                    score, nll = zip(*(recorded[c.name] for c in missing), strict=True)
                    self.record(key, missing, Scores(score, None if None in nll else nll))
            if older or known != setup:
                self._journal.append({"begun": setup, "study": study})

    def setup(self, study: str) -> str | None:
        """The setup that a study was last begun with; ``None`` if it was not."""
        return self._setups.get(study)

    def count(self, samples: Iterable[str]) -> int:
        """How many scores there are of samples, by their keys."""
        return sum(len(self._scores.get(key, ())) for key in samples)

    def known(self, sample: str, candidates: Collection[Candidate]) -> list[Candidate]:
        """Those of the candidates that have a score on a sample."""
        scores = self._scores.get(sample, {})
        return [candidate for candidate in candidates if candidate.key in scores]

    def record(self, sample: str, candidates: Sequence[Candidate], scores: Scores) -> None:
        """Record what candidates scored on a sample; safe from a kill before this returns."""
        line = {"sample": sample, "candidates": [c.key for c in candidates], "score": list(scores.score)}
        self._journal.append(line | {"nll": scores.nll and list(scores.nll)})

    def scores(self, samples: Sequence[str], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Score and negative log-likelihood, ``[n, m, 2]``, of each candidate on each sample; all must be recorded.

        A likelihood that there is not is not-a-number.
        """
        rows = [[self._scores[sample][candidate.key] for candidate in candidates] for sample in samples]
        return np.array(rows, dtype=np.float64).reshape(len(samples), len(candidates), 2)

    def _take(self, entry: Any) -> None:
        if "setting" in entry:
            self._settings[entry["budget"]] = dict(entry["setting"])
        elif "begun" in entry:
            self._setups[entry["study"]] = entry["begun"]
            self._older.pop(entry["study"], None)
        elif "setup" in entry:
            self._setups[entry["study"]] = entry["setup"]
            self._older[entry["study"]] = defaultdict(dict)
        else:
            scores = [number(score) for score in entry["score"]]
            nll = [None if one is None else number(one) for one in entry["nll"] or [None] * len(scores)]
            of = self._older[entry["study"]] if "study" in entry else self._scores
            of[entry["sample"]].update(zip(entry["candidates"], zip(scores, nll, strict=True), strict=True))
