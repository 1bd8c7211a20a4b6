"""The search as Optuna shows it: one study a class and budget, one trial a candidate, one reported value a block.

Optuna's storage is where others look (`optuna-dashboard`, a notebook, another machine); the scores themselves are in
`ScoreJournal`, and a search never reads its results from here. What a killed search has not told yet is told when it
goes on.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import StudyError
from clasp_calib.search.shown import Trials

FILE = "journal:"
_CANDIDATE = "candidate"


def open_storage(url: str) -> BaseStorage:
    """Optuna's storage at a place.

    Args:
        url: ``journal:FILE``, or a database as SQLAlchemy names it: ``sqlite:///FILE``, ``postgresql://...``,
            ``mysql://...``.

    Raises:
        StudyError: it cannot be opened, or is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if url.startswith(FILE):
            path = Path(url.removeprefix(FILE))
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _KernelLock(path)
            _drop_torn_line(path, lock)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        if "://" not in url:
            raise ValueError("expected journal:FILE, sqlite:///FILE, postgresql://... or mysql://...")
        return RDBStorage(url)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SQLAlchemyError, OptunaError) as error:
        raise StudyError(f"cannot use the storage {url} ({error}); give another with --storage") from error
    except ImportError as error:
        raise StudyError(
            f"the storage {url} needs a database driver ({error}); install it: for PostgreSQL "
            "`pip install psycopg2-binary`, for MySQL `pip install mysqlclient`"
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


class Study(Trials):
    """The trials of one class at one budget, in a storage of Optuna's. Threads take turns.

    Args:
        storage: as `open_storage` gives it; may be shared with other searches.
        name: of the study, unique in the storage.
        layers: vision layers that candidates mix; with rho they are the trials' parameters.

    Raises:
        StudyError: the storage fails.
    """

    _turn = Lock()

    def __init__(self, storage: BaseStorage, name: str, layers: Sequence[int]):
        self._storage, self._layers = storage, layers
        with self._talking():
            optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            self._study = storage.get_study_id_from_name(name)
            trials = storage.get_all_trials(self._study, deepcopy=False)
        self._trials = {trial.user_attrs[_CANDIDATE]: trial._trial_id for trial in trials}
        self._told = {t.user_attrs[_CANDIDATE]: dict(t.intermediate_values) for t in trials}
        self._finished = {t.user_attrs[_CANDIDATE] for t in trials if t.state.is_finished()}

    def report(self, candidate: Candidate, samples: int, mean: float) -> None:
        """See `Trials`."""
        told = self._told.setdefault(candidate.name, {})
        if samples in told or candidate.name in self._finished:
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
        params = {f"layer {layer}": candidate.alpha[layer] for layer in self._layers} | {"rho": candidate.rho}
        space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in params}
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=space, user_attrs={_CANDIDATE: candidate.name}
        )
        number: int = self._storage.create_new_trial(self._study, template_trial=trial)
        return number

    def _finish(self, candidate: Candidate, state: TrialState, mean: float) -> None:
        if candidate.name in self._finished:
            return
        with self._talking():
            self._storage.set_trial_state_values(self._trials[candidate.name], state, [mean])
        self._finished.add(candidate.name)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except OptunaError as error:
                raise StudyError(f"Optuna's storage failed ({error}); mend it and search again") from error
