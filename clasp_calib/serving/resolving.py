"""From an artifact and a model's configuration to what is served, or a refusal that says why not."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clasp_calib.artifacts.artifact import Artifact, read_artifact
from clasp_calib.artifacts.checkpoint_digest import files_digest
from clasp_calib.artifacts.fits import check_shape
from clasp_calib.artifacts.hub import locate_artifact
from clasp_calib.common.errors import ArtifactError, InputError, ModelError
from clasp_calib.common.pruning_options import COMPACT, INPUT, KEEP, NONE
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.checks import position_axes
from clasp_calib.runtime.routing import classes_of
from clasp_calib.runtime.schedule import Schedule, ShareSchedule, parse_budget
from clasp_calib.runtime.selectors import actions_at_input, recorded_selector
from clasp_calib.serving.served import ServedArtifact, ServedEntry

ARTIFACT, BUDGET, CLASS, STRICT = "CLASP_ARTIFACT", "CLASP_BUDGET", "CLASP_CLASS", "CLASP_STRICT"
NAMES = {"artifact": ARTIFACT, "budget": BUDGET, "class": CLASS, "strict": STRICT}
"""What can be set of a server -> the environment variable that sets it."""


def asked_for(given: Any = None) -> dict[str, Any]:
    """What a server was asked to serve: as ``clasp`` of ``--hf-overrides`` says, or else the environment.

    Raises:
        InputError: there is something that nobody reads, or no artifact.
    """
    if given is None:
        given = {name: value for name, variable in NAMES.items() if (value := os.environ.get(variable, "").strip())}
    if not isinstance(given, Mapping) or (unknown := [name for name in given if name not in NAMES]):
        told = f"holds {unknown[0]!r}" if isinstance(given, Mapping) else f"is {given!r:.100}"
        raise InputError(f"clasp of --hf-overrides {told}; expected {', '.join(NAMES)}")
    if given and not given.get("artifact"):
        raise InputError(
            f"{' and '.join(NAMES[name] for name in given)} set how an artifact is served, and none is given; "
            f"set {ARTIFACT}, or leave them out"
        )
    return dict(given)


def resolved(
    config: Any, given: Mapping[str, Any], model: str, revision: str | None = None
) -> tuple[ServedArtifact, Artifact, list[str]]:
    """What is served, of which artifact, and what its operator should be told.

    Args:
        config: the model's transformers configuration.
        given: as `asked_for` gives it.
        model: the directory of the model, or its name on the Hub.
        revision: on the Hub.

    Raises:
        ArtifactError: the artifact is missing, damaged, for another model, or calibrated for what no server of fixed
            numbers of tokens can do.
        InputError: it has several budgets and none was named; or there is no such budget or class.
        ModelError: the architecture is not known.
    """
    place = locate_artifact(given["artifact"])
    artifact = read_artifact(place)
    check_shape(artifact, config)
    for problem in _unserved(artifact, config):
        raise ArtifactError(f"the artifact {given['artifact']} {problem}")
    notes = _weights(artifact, model, revision, _switched(given.get("strict", False)))
    budget = given.get("budget")
    if budget is None and len(artifact.budgets) > 1:
        raise InputError(
            f"the artifact {given['artifact']} holds the budgets {', '.join(artifact.budgets)}; "
            f"name one: {BUDGET}, or budget in clasp"
        )
    served = ServedArtifact(
        artifact=str(given["artifact"]),
        place=str(place.absolute()),
        digest=str(artifact.manifest.id),
        budget=artifact.budgets[0] if budget is None else parse_budget(budget).name,
        label=given.get("class"),
        iterations=artifact.manifest.iterations,
        entries=tuple(_entry(artifact, config, name, label) for name in artifact.budgets for label in artifact.classes),
    )
    for entry in served.entries:
        _check_selector(entry, artifact, config)
    served.entry_index(served.classes[0] if served.label is None else served.label)
    if served.label is None:
        try:
            classes_of(["?"], artifact)
        except InputError:
            notes.append(
                f"nothing tells the artifact's classes apart, so that every request has to name its own; set {CLASS}, "
                "or give the artifact a router"
            )
    return served, artifact, notes


def _switched(given: Any) -> bool:
    """Whether something is on.

    Raises:
        InputError: that cannot be told.
    """
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if (value := known.get(str(given).strip().lower())) is None:
        raise InputError(f"{STRICT} (strict in clasp) is {given!r:.100}; expected one of {', '.join(known)}")
    return value


def _entry(artifact: Artifact, config: Any, budget: str, label: str) -> ServedEntry:
    schedule = schedule_for(config, budget, artifact=artifact)
    assert isinstance(schedule, Schedule | ShareSchedule)
    alpha, choice = artifact.alpha(budget, label), artifact.selector(budget, label)
    layers = tuple(layer for layer, weight in enumerate(alpha) if weight)
    return ServedEntry(
        budget=budget,
        label=label,
        layers=layers,
        weights=tuple(alpha[layer] for layer in layers),
        rho=artifact.rho(budget, label),
        seeding=artifact.seeding(budget, label),
        relevance=artifact.relevance(budget, label) or NONE,
        counts=(schedule.counts[0], schedule.tokens) if isinstance(schedule, Schedule) else None,
        share=1.0 if isinstance(schedule, Schedule) else schedule.shares[0],
        selector=None if choice is None else (choice.name, dict(choice.knobs)),
    )


def _check_selector(entry: ServedEntry, artifact: Artifact, config: Any) -> None:
    """Refuse a selector that cannot tell how many tokens stay before the tower has run.

    Raises:
        ArtifactError: it is such a one, or one with other knobs than the budget's.
        ClaspError: see `clasp_calib.runtime.selectors.recorded_selector`.
    """
    if (choice := artifact.selector(entry.budget, entry.label)) is None:
        return
    bare: Any = SimpleNamespace(config=config)
    recorded_selector(choice, bare, entry.budget)
    try:
        actions_at_input(entry.method, adapter_for(config))
    except ModelError as error:
        raise ArtifactError(
            f"the selector {choice.name} of the class {entry.label!r} at {entry.budget} cannot be served: {error}; "
            "calibrate with others (--method, or selectors in the space)"
        ) from error


def _unserved(artifact: Artifact, config: Any) -> Iterator[str]:
    """What of an artifact a server cannot do that fixes numbers of tokens before its decoder runs."""
    of = artifact.manifest
    if of.profile != INPUT:
        yield (
            f"is calibrated for stages between decoder layers (profile {of.profile}), where vLLM cannot drop tokens; "
            "calibrate it for one stage before them: clasp-calib search --profile input"
        )
    if of.positions != (wanted := KEEP if position_axes(config) else COMPACT):
        yield (
            f"is calibrated with positions {of.positions}, and vLLM numbers the tokens of this model as {wanted} does; "
            f"calibrate it with --positions {wanted}"
        )
    for budget in artifact.budgets:
        for label in artifact.classes:
            at = f"of the class {label!r} at {budget}"
            if artifact.downsample(budget, label):
                yield f"shows the pictures {at} smaller, which the plug-in does not do"


def _weights(artifact: Artifact, model: str, revision: str | None, strict: bool) -> list[str]:
    """Warnings of other weights than those of the calibration.

    Raises:
        ArtifactError: they are other ones, or cannot be compared, and ``strict``.
    """
    recorded, place = artifact.manifest.checkpoint, Path(model)
    if recorded is None:
        told = "names no checkpoint, so it cannot be told whether the model has its weights"
    else:
        try:
            given = files_digest(place if place.is_dir() else _snapshot(model, revision))
        except ModelError as error:
            told = f"was calibrated with the checkpoint {recorded}, and that of the model cannot be read ({error})"
        else:
            if given == recorded:
                return []
            told = f"was calibrated with the checkpoint {recorded}, and this model has {given}"
    if strict:
        raise ArtifactError(
            f"the artifact {told}; serve the model that it was made for (download it first, so that it can be "
            f"compared), or leave {STRICT} out"
        )
    return [f"the artifact {told}; its numbers may not hold here"]


def _snapshot(name: str, revision: str | None) -> Path:
    """The model's files in the Hub's cache.

    Raises:
        ModelError: there are none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError, OSError) as error:
        raise ModelError(f"{name} is not on this machine yet") from error
