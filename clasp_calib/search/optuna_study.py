"""The search as Optuna shows it: one study a class and budget, one trial a candidate, one reported value a block.

Optuna's storage is where others look (`optuna-dashboard`, a notebook, another machine); the scores themselves are in
`ScoreJournal`, and a search never reads its results from here. What a killed search has not told yet is told when it
goes on.
"""

import fcntl
import itertools
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.containing import reason_of
from clasp_calib.common.errors import StudyError
from clasp_calib.common.given_files import check_regular
from clasp_calib.common.progress import note
from clasp_calib.common.redaction import redacted
from clasp_calib.common.selector_choice import CLASP
from clasp_calib.search.shown import Trials

FILE = "journal:"
_CANDIDATE = "candidate"


def open_storage(url: str) -> BaseStorage:
    """Optuna's storage at a place.

    Args:
        url: ``journal:FILE``, or a database as SQLAlchemy names it: ``sqlite:///FILE``, ``postgresql://...``,
            ``mysql://...``.

    A file that is damaged is renamed, and a new one takes its place: nothing but the display is lost.

    Raises:
        StudyError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if url.startswith(FILE):
            path = Path(url.removeprefix(FILE))
            if path.exists():
                check_regular(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _KernelLock(path)
            _check_begin(path)
            _drop_torn_line(path, lock)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        if "://" not in url:
            raise ValueError("expected journal:FILE, sqlite:///FILE, postgresql://... or mysql://...")
        return RDBStorage(url)
    except ImportError as error:
        raise StudyError(
            f"the storage {redacted(url)} needs a database driver ({error}); install it: for PostgreSQL "
            "`pip install psycopg2-binary`, for MySQL `pip install mysqlclient`"
        ) from error
    except Exception as error:  # What a damaged journal makes of Optuna can be anything.
        if damaged := _damaged_file(url, error):
            aside = _set_aside(damaged)
            note(f"{damaged} is damaged ({reason_of(error)}), and is now {aside}; trials are shown anew from here on")
            return open_storage(url)
        told = f"cannot use the storage {url} ({error}); give another with --storage"
        raise StudyError(redacted(told)) from error


def _damaged_file(url: str, error: Exception) -> Path | None:
    """The storage's file, if the error says that its content is damaged."""
    if url.startswith(FILE):
        path, damaged = Path(url.removeprefix(FILE)), not isinstance(error, OSError)
    else:
        # "file is not a database", "malformed"; what is locked, full or not to be written to is an OperationalError.
        damaged = type(getattr(error, "orig", None)) is sqlite3.DatabaseError
        path = Path(str(make_url(url).database)) if damaged else Path()
    return path if damaged and path.is_file() and _is_optunas(path) else None


def _is_optunas(path: Path) -> bool:
    """Not a file that somebody named by mistake."""
    content = path.read_bytes()
    known = b'"op_code"' in content or content.startswith(b"SQLite format 3")
    return known or path.suffix in (".log", ".db", ".sqlite", ".sqlite3")


def _set_aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    # With what SQLite keeps beside a database, or the new one would get it.
    for suffix in ("", "-journal", "-wal", "-shm"):
        if (part := Path(f"{path}{suffix}")).exists():
            part.rename(f"{aside}{suffix}")
    return aside


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


def _check_begin(path: Path) -> None:
    # Before anything is dropped of a file that is none of Optuna's.
    known, content = b'{"op_code":', path.read_bytes()[:11] if path.exists() else b""
    if not known.startswith(content):
        raise ValueError(f"it does not begin as a journal of Optuna's, with {known.decode()}")


def _drop_torn_line(path: Path, lock: _KernelLock) -> None:
    # Optuna passes over a torn last line when reading, but would write the next one right behind it.
    lock.acquire()
    try:
        if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


class Study(Trials):
    """The trials of one class at one budget, in a storage of Optuna's. Threads take turns.

    If the storage fails, that is said once, and this study is shown no further; the search goes on.

    Args:
        storage: as `open_storage` gives it; may be shared with other searches.
        name: of the study, unique in the storage.
        layers: vision layers that candidates mix. Their weights are the trials' parameters, with rho where the
            dual-stage selection chooses.
        selectors: what chooses tokens in some candidate, by name and knobs. Of several it is a parameter too.
    """

    _turn = Lock()

    def __init__(self, storage: BaseStorage, name: str, layers: Sequence[int], selectors: Sequence[str] = ()):
        self._storage, self._name, self._layers, self._selectors = storage, name, layers, selectors
        self._failed = False
        trials: dict[str, FrozenTrial] = {}
        with self._talking():
            optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            self._study = storage.get_study_id_from_name(name)
            found = storage.get_all_trials(self._study, deepcopy=False)
            # Others may have added trials of their own.
            trials = {t.user_attrs[_CANDIDATE]: t for t in found if _CANDIDATE in t.user_attrs}
        self._trials = {candidate: trial._trial_id for candidate, trial in trials.items()}
        self._told = {candidate: dict(trial.intermediate_values) for candidate, trial in trials.items()}
        self._finished = {candidate for candidate, trial in trials.items() if trial.state.is_finished()}

    def report(self, candidate: Candidate, samples: int, mean: float) -> None:
        """See `Trials`."""
        told = self._told.setdefault(candidate.name, {})
        if self._failed or samples in told or candidate.name in self._finished:
            return
        with self._talking():
            if candidate.name not in self._trials:
                self._trials[candidate.name] = self._begin(candidate)
            self._storage.set_trial_intermediate_value(self._trials[candidate.name], samples, mean)
        told[samples] = mean

    def reject(self, candidate: Candidate) -> None:
        """See `Trials`."""
        # A candidate that was never measured has no trial.
        if told := self._told.get(candidate.name):
            self._finish(candidate, TrialState.PRUNED, told[max(told)])

    def complete(self, candidate: Candidate, mean: float) -> None:
        """See `Trials`."""
        self._finish(candidate, TrialState.COMPLETE, mean)

    def _begin(self, candidate: Candidate) -> int:
        params: dict[str, float | str] = {f"layer {layer}": candidate.alpha[layer] for layer in self._layers}
        if candidate.selector is None:
            params["rho"] = candidate.rho
        space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in params}
        if len(self._selectors) > 1:
            params["selector"] = candidate.called or str(candidate.selector or CLASP)
            space["selector"] = CategoricalDistribution(self._selectors)
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=space, user_attrs={_CANDIDATE: candidate.name}
        )
        number: int = self._storage.create_new_trial(self._study, template_trial=trial)
        return number

    def _finish(self, candidate: Candidate, state: TrialState, mean: float) -> None:
        if self._failed or candidate.name in self._finished:
            return
        with self._talking():
            self._storage.set_trial_state_values(self._trials[candidate.name], state, [mean])
        self._finished.add(candidate.name)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except Exception as error:  # A driver's, Optuna's or the file system's: it is for display only.
                self._failed = True
                reason = redacted(reason_of(error))
                note(f"Optuna's storage failed ({reason}); the search goes on without showing {self._name}")
