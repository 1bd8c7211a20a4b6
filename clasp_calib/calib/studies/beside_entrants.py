"""Other calibrations beside the first: what they may be called, and how they take part in a contest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.manifest import CALIBRATED
from clasp_calib.baselines.registry import NAMES
from clasp_calib.calib.studies.contest import MIXED, SELECTION, UNPRUNED, Entrant
from clasp_calib.calib.studies.entrants import EMBEDDED, Refusal
from clasp_calib.calib.studies.evaluation import DEFAULT, calibrated_setting, shown_by
from clasp_calib.calib.studies.own_entrants import set_by
from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.fields import Name, describe
from clasp_calib.common.samples import Sample

_NAME: TypeAdapter[str] = TypeAdapter(Name)
_TAKEN = {name.casefold() for name in (UNPRUNED, CALIBRATED, SELECTION, DEFAULT, EMBEDDED, *NAMES)}


def check_name(name: object) -> None:
    """Refuse what an artifact cannot be called beside others.

    Raises:
        InputError: it is no name, or is that of a method or a setting.
    """
    try:
        known = _NAME.validate_python(name).casefold()
    except ValidationError as error:
        raise InputError(f"an artifact beside is called {name!r:.120}: {describe(error)}") from error
    if known in _TAKEN or known.endswith(MIXED):
        raise InputError(
            f"an artifact beside is called {name!r}, as a method or a setting of a comparison is; give it another name"
        )
    if known.startswith("_"):  # matplotlib leaves such names out of a legend
        raise InputError(f"an artifact beside is called {name!r}; give it a name that does not begin with '_'")


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Errors within are told of the artifact of this name."""
    try:
        yield
    except ClaspError as error:
        error.args = (f"the artifact {name!r}: {error}",)
        raise


def check_shown(
    model: Any, processor: Any, artifacts: Mapping[str, Artifact], samples: Sequence[Sample], budgets: Sequence[str]
) -> None:
    """Refuse samples that an artifact would show smaller than they can be; arguments as of `entrants_beside`.

    Raises:
        ClaspError: see `clasp_calib.calib.studies.evaluation.shown_by`.
    """
    for name, artifact in artifacts.items():
        with told_of(name):
            shown_by(model, processor, artifact, samples, [one for one in budgets if one in artifact.budgets])


def entrants_beside(
    model: Any, artifacts: Mapping[str, Artifact], budgets: Sequence[str]
) -> tuple[list[Entrant], list[Refusal]]:
    """Each artifact under its name, with its own settings, at those of the budgets that it holds.

    Args:
        model: the model that all were made for.
        artifacts: by names as of `check_name`.
        budgets: of the contest.

    Raises:
        ClaspError: a selector of an artifact cannot run on the model, or is not here.
    """
    entrants, refusals = [], []
    for budget in budgets:
        for name, artifact in artifacts.items():
            if budget not in artifact.budgets:
                reason = (
                    f"the artifact was calibrated for {', '.join(artifact.budgets)}; compare at one of these, or "
                    f"calibrate it with `clasp-calib search --budget {budget}`"
                )
                refusals.append(Refusal(name, budget, reason))
                continue
            with told_of(name):
                setting = calibrated_setting(model, artifact, budget)
            entrants.append(set_by(replace(setting, name=name), budget))
    return entrants, refusals
