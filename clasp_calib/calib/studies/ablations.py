"""What each part of a calibration is worth: the same questions with one thing changed at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.calib.studies.comparison import Comparison, Setting, compare
from clasp_calib.calib.studies.confusion import Confusion
from clasp_calib.calib.studies.misrouting import misrouted
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.calib.studies.subject import FULL, Subject
from clasp_calib.common.errors import BudgetError, InputError, ModelError
from clasp_calib.common.progress import note
from clasp_calib.common.pruning_options import FEATURES, POSITIONS, RATERS
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.schedule import Schedule

ITERATIONS = (3, 5, 7, 9, 11)
"""The paper's Table 18."""
RHOS = (0.0, 0.25, 0.5, 0.75, 1.0)
STARTS = ((1, 4, 10), (2, 6, 15), (3, 7, 16), (4, 8, 16))
"""For 32 layers; (3, 7, 16) is where SparseVLM's code prunes."""


Settings = Callable[[Subject], list[Setting]]


def _parts(subject: Subject) -> list[Setting]:
    """What rates tokens and how large pictures are shown is the model's own, but in the calibrated setting.

    What a class has in place of a ratio, another selector, counts as its ratio.
    """
    relevance = dict.fromkeys(subject.artifact.classes, 1.0)
    parts = {
        "default": subject.candidates(subject.own, relevance),
        "fusion only": subject.candidates(rho=relevance),
        "ratio only": subject.candidates(subject.own),
    }
    plain = {
        name: {label: replace(one, relevance=None, downsample=None) for label, one in of.items()}
        for name, of in parts.items()
    }
    made = {**plain, FULL: subject.candidates()}
    return [Setting(name, subject.pruning, of) for name, of in made.items()]


def _rhos(subject: Subject) -> list[Setting]:
    if not subject.artifact.pruning.rated:
        raise InputError(
            "the artifact was calibrated without a relevance (relevance none), so rho means nothing; choose another "
            "ablation"
        )
    classes = subject.artifact.classes
    made = [
        Setting(f"rho {rho:g} for all", subject.pruning, subject.candidates(rho=dict.fromkeys(classes, rho)))
        for rho in RHOS
    ]
    return [Setting(FULL, subject.pruning, subject.candidates()), *made]


def _layers(subject: Subject) -> list[Setting]:
    layers = subject.layers
    mixtures = {f"layer {layer} for all": subject.one_layer(layer) for layer in layers}
    even = tuple(float(i in layers) / len(layers) for i in range(subject.adapter.vision_layers + 1))
    mixtures["even mixture for all"] = even
    return [
        Setting(FULL, subject.pruning, subject.candidates()),
        *(
            Setting(name, subject.pruning, subject.candidates(dict.fromkeys(subject.artifact.classes, alpha)))
            for name, alpha in mixtures.items()
        ),
    ]


def _iterations(subject: Subject) -> list[Setting]:
    return _varied(subject, "iterations", ITERATIONS)


def _raters(subject: Subject) -> list[Setting]:
    return _varied(subject, "raters", RATERS)


def _positions(subject: Subject) -> list[Setting]:
    return _varied(subject, "positions", POSITIONS)


def _features(subject: Subject) -> list[Setting]:
    return _varied(subject, "features", FEATURES)


def _varied(subject: Subject, name: str, values: Sequence[int | str]) -> list[Setting]:
    pruning, candidates = subject.pruning, subject.candidates()
    own = getattr(pruning.options, name)
    found = [Setting(f"{FULL} ({name} {own})", pruning, candidates)]
    for value in values:
        if value != own:
            change: dict[str, Any] = {name: value}
            try:
                options = replace(pruning.options, **change)
            except ModelError:
                continue  # An option of the other profile.
            found.append(Setting(f"{name} {value}", replace(pruning, options=options), candidates))
    return found


def _starts(subject: Subject) -> list[Setting]:
    pruning, candidates = subject.pruning, subject.candidates()
    assert pruning.schedule is not None
    found = [Setting(f"{FULL} (starts {_joined(pruning.schedule.starts)})", pruning, candidates)]
    for starts in STARTS:
        try:
            options = replace(pruning.options, starts=starts)
            schedule = schedule_for(subject.model, subject.budget, options)
        except BudgetError:
            continue  # These layers cannot meet the budget, or are not there, or the one stage is before them.
        if starts != pruning.schedule.starts:
            counts = f": {_joined(schedule.counts)}" if isinstance(schedule, Schedule) else ""
            name = f"starts {_joined(starts)}{counts}"
            found.append(Setting(name, replace(pruning, schedule=schedule, options=options), candidates))
    return found


def _joined(numbers: Sequence[int]) -> str:
    return "/".join(map(str, numbers))


VARIANTS: Mapping[str, Settings] = {
    "parts": _parts,
    "rho": _rhos,
    "layers": _layers,
    "iterations": _iterations,
    "raters": _raters,
    "positions": _positions,
    "features": _features,
    "starts": _starts,
}
OPTIONS = ("iterations", "raters", "positions", "features", "starts")
"""Those that vary an option of the dual-stage selection."""
ROUTING = "routing"
ABLATIONS = (*VARIANTS, ROUTING)


def check_ablation(name: str) -> None:
    """Refuse a name that is none of `ABLATIONS`, before hours of work.

    Raises:
        InputError: it is none.
    """
    if name not in ABLATIONS:
        raise InputError(f"there is no ablation {name!r}; choose from {', '.join(ABLATIONS)}")


def changed_by(
    name: str, artifact: Artifact, budget: str, samples: Mapping[str, Sequence[Sample]]
) -> dict[str, Sequence[Sample]]:
    """The classes whose selector reads what an ablation varies: others than clasp read no option of its selection.

    A class of clasp may be the same at all values, as with rho = 1 at all numbers of iterations; it stays.

    Args:
        name: one of `ABLATIONS`.
        artifact: what is taken apart.
        budget: one of its budgets.
        samples: by class, of those that have any.

    Raises:
        InputError: there is none.
    """
    if name not in OPTIONS:
        return dict(samples)
    own = {label: of for label, of in samples.items() if artifact.selector(budget, label) is None}
    if own:
        return own
    others = ", ".join(ablation for ablation in ABLATIONS if ablation not in OPTIONS)
    unasked = [c for c in artifact.classes if c not in samples and artifact.selector(budget, c) is None]
    which = f"all classes but {', '.join(unasked)}, which have no samples," if unasked else "all classes"
    raise InputError(
        f"the ablation {name!r} varies an option of clasp's own selection, and at budget {budget} {which} have other "
        f"selectors; choose another budget{', take samples of those' if unasked else ''}, or from {others}"
    )


def changed_at(
    name: str, artifact: Artifact, budgets: Sequence[str], samples: Mapping[str, Sequence[Sample]], *, asked: bool
) -> dict[str, dict[str, Sequence[Sample]]]:
    """Of each budget what `changed_by` gives; one that has none is left out with a note, unless it was asked for.

    Args:
        name: one of `ABLATIONS`.
        artifact: what is taken apart.
        budgets: some of its budgets.
        samples: by class, of those that have any.
        asked: the budgets were named, and are not simply all.

    Raises:
        InputError: a budget that was asked for has none, or all have none.
    """
    found, refusals = dict[str, dict[str, Sequence[Sample]]](), list[InputError]()
    for budget in budgets:
        try:
            found[budget] = changed_by(name, artifact, budget, samples)
        except InputError as error:
            refusals.append(error)
    if refusals and (asked or not found):
        raise refusals[0]
    if left_out := [budget for budget in budgets if budget not in found]:
        note(f"budget {', '.join(left_out)} is left out: no class with samples has clasp's own selection there")
    return found


def measure_ablation(
    name: str,
    scorer: Scorer,
    subject: Subject,
    samples: Mapping[str, Sequence[Sample]],
    seed: int,
    confusions: Sequence[Confusion] = (),
) -> tuple[Comparison, str]:
    """Score what the ablation of a name compares; returns that and the setting to subtract.

    Args:
        name: one of `ABLATIONS`.
        scorer: of a model's evaluator with all of the subject's layers.
        subject: what is taken apart.
        samples: by class, as `changed_by` gives them.
        seed: of the bootstrap.
        confusions: of routers, for the ablation of that name.

    Raises:
        InputError: there is no such ablation, nothing to be ablated, or a confusion that does not fit.
    """
    check_ablation(name)
    if name == ROUTING:
        if len(subject.artifact.classes) == 1:
            raise InputError("the artifact has one class, so no router can err; choose another ablation")
        return misrouted(scorer, subject, samples, seed, confusions)
    settings = VARIANTS[name](subject)
    base = next(s.name for s in settings if s.name.startswith(FULL))
    return compare(scorer, settings, samples, seed), base
