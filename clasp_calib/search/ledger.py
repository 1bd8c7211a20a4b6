"""Optuna as the ledger: one study a class and budget, one trial a candidate, one reported value a sample.

What a killed run has scored is in the journal; the same search reads it back and goes on behind it.
"""

import fcntl
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from clasp_calib.calib.candidate import Candidate
from clasp_calib.common.errors import StudyError
from clasp_calib.common.hashing import sha256_json

JOURNAL = "journal.log"
_SETUP = "setup"


def open_storage(directory: Path) -> JournalStorage:
    """The journal of a study directory: append-only, a line a score; a last line that a kill tore is dropped.

    Raises:
        StudyError: the place cannot be written to, or the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = directory / JOURNAL
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _KernelLock(path)
        _drop_torn_line(path, lock)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise StudyError(f"cannot write to the study {directory} ({error}); give another place with --run") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"the study's journal {path} is damaged ({error}); remove it to measure again, or give another --run"
        ) from error


class _KernelLock:
    """A lock that ends with its process; Optuna's own outlives a kill, and the next search would wait for it."""

    def __init__(self, journal: Path):
        self._path = journal.with_suffix(".lock")
        self._descriptor = -1

    def acquire(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def _drop_torn_line(path: Path, lock: _KernelLock) -> None:
    # Optuna passes over a torn last line when reading, but would write the next one right behind it.
    lock.acquire()
    try:
        if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


class Ledger:
    """The trials of one class at one budget."""

    def __init__(self, storage: JournalStorage, name: str, candidates: Sequence[Candidate], setup: Mapping[str, Any]):
        """Open or create the study.

        Args:
            storage: the journal.
            name: of the study, for instance ``192/counting``.
            candidates: one trial each.
            setup: what decides the scores (model, samples, schedule ...).

        Raises:
            StudyError: the study was recorded under another setup.
        """
        self._study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        digest = sha256_json(dict(setup))
        known = self._study.user_attrs.get(_SETUP)
        if known is None:
            self._study.set_user_attr(_SETUP, digest)
        elif known != digest:
            raise StudyError(
                f"the study {name!r} was recorded with other settings (setup {known[:12]}, now {digest[:12]}): "
                "the model, its tokenizer, the prompt, the samples, the space, the schedule or the race changed; "
                "give a fresh place with --run, or remove the old study directory"
            )
        self._names = [candidate.name for candidate in candidates]
        existing = {trial.user_attrs.get("candidate"): trial for trial in self._study.get_trials(deepcopy=False)}
        for candidate in candidates:
            if candidate.name not in existing:
                self._study.enqueue_trial({"candidate": candidate.name}, {"candidate": candidate.name})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            while any(t.state == TrialState.WAITING for t in self._study.get_trials(deepcopy=False)):
                self._study.ask({"candidate": optuna.distributions.CategoricalDistribution(self._names)})
        trials = {t.user_attrs["candidate"]: t for t in self._study.get_trials(deepcopy=False)}
        self._scores = [dict(trials[name].intermediate_values) for name in self._names]
        self._states = [trials[name].state for name in self._names]
        self._trials = [optuna.trial.Trial(self._study, trials[name]._trial_id) for name in self._names]
        self._numbers = [trials[name].number for name in self._names]

    def known(self, sample: int) -> dict[int, float]:
        """Scores already recorded for a sample: candidate -> score."""
        return {c: scores[sample] for c, scores in enumerate(self._scores) if sample in scores}

    def scores(self, candidate: int, samples: range) -> list[float]:
        """A candidate's scores on those of the samples that it was measured on, in order."""
        return [self._scores[candidate][sample] for sample in samples if sample in self._scores[candidate]]

    def record(self, sample: int, scores: Mapping[int, float]) -> None:
        """Record a sample's scores by candidate; durable before this returns."""
        for candidate, score in scores.items():
            self._trials[candidate].report(score, sample)
            self._scores[candidate][sample] = score

    def reject(self, candidate: int) -> None:
        """Mark a candidate as pruned."""
        self._finish(candidate, TrialState.PRUNED)

    def complete(self, candidate: int, value: float) -> None:
        """Mark a finalist as complete, with its mean score."""
        self._finish(candidate, TrialState.COMPLETE, value)

    @property
    def recorded(self) -> int:
        """How many scores there are."""
        return sum(map(len, self._scores))

    def _finish(self, candidate: int, state: TrialState, value: float | None = None) -> None:
        if not self._states[candidate].is_finished():
            self._study.tell(self._numbers[candidate], value, state=state)
            self._states[candidate] = state
