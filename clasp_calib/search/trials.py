"""The trials of a calibration, in Optuna's storage where something is kept, which is loaded only there."""

from collections.abc import Callable, Sequence

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.places import Places
from clasp_calib.common.selector_choice import CLASP
from clasp_calib.search.shown import Trials

STORAGE = "journal.log"
"""Optuna's file in the study directory, where no other storage is named."""


def trials_in(places: Places, layers: Sequence[int]) -> Callable[[Sequence[Candidate], str], Trials]:
    """Makes the trials of a search's candidates in a study, by its name; where nothing is kept, they are shown nowhere.

    Args:
        places: whose storage they are in, or else the study.
        layers: that candidates may mix.

    Raises:
        StudyError: the storage cannot be opened.
    """
    place, study = places.storage, places.study
    if place is None and study is None:
        return lambda candidates, name: Trials()
    from clasp_calib.search.optuna_study import FILE, Study, open_storage

    storage = open_storage(place or f"{FILE}{study}/{STORAGE}")

    def shown(candidates: Sequence[Candidate], name: str) -> Trials:
        choosers = list(dict.fromkeys(str(candidate.selector or CLASP) for candidate in candidates))
        return Study(storage, name, layers, choosers)

    return shown
