"""Which way of pruning the options of a harness ask for."""

from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.baselines.registry import NAMES
from clasp_calib.common.errors import InputError
from clasp_calib.harness.harness_options import AUTO, HarnessOptions
from clasp_calib.harness.peer_way import ByPeer
from clasp_calib.harness.pruning_ways import OWN, AtDefaultStages, ByArtifact, PruningWay, WholePictures
from clasp_calib.runtime.budgeting import largest_budget
from clasp_calib.runtime.schedule import parse_budget


def check_way(options: HarnessOptions) -> None:
    """Refuse names that there are not, before a large model is loaded for nothing.

    Raises:
        ArtifactError: the artifact cannot be read, or lacks the budget or the class.
        BudgetError: the budget is none.
        InputError: there is no such method.
    """
    budget = None if options.budget is None else parse_budget(options.budget).name
    if options.artifact is not None:
        artifact = Artifact.load(options.artifact)
        budget = budget or largest_budget(artifact)
        artifact.rho(budget, artifact.classes[0] if options.classes == AUTO else options.classes)
    if options.method not in (None, *OWN, *NAMES):
        every = ", ".join(dict.fromkeys((*OWN, *NAMES)))
        raise InputError(f"there is no method {options.method!r}; choose from {every}")


def pruning_way(model: Any, processor: Any, options: HarnessOptions) -> PruningWay:
    """What options say.

    Raises:
        ArtifactError: see `ByArtifact`.
        BudgetError: a budget that cannot be met.
        InputError: there is no such method; see also `ByArtifact` and `ByPeer`.
        ModelError: the method cannot run on the model.
    """
    check_way(options)
    if options.artifact is not None:
        return ByArtifact(model, processor, options)
    if options.method is None:
        return WholePictures()
    return AtDefaultStages(model, options) if options.method in OWN else ByPeer(model, processor, options)
