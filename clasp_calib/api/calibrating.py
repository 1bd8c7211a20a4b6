"""The calibration: samples in, artifact out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.places import Places, hints_of

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.crew.crew import Crew
    from clasp_calib.runtime.schedule import Budget
    from clasp_calib.search.calibrate import Calibration
    from clasp_calib.search.calibration_options import CalibrationOptions
    from clasp_calib.search.space import SearchSpace
    from clasp_calib.search.watchers import Watcher


@dataclass(frozen=True)
class CalibrationPlan:
    """What a calibration would do, and cost at most."""

    budgets: list[dict[str, Any]]
    """One mapping a budget: stage counts, candidates, samples, evaluations, FLOPs, minutes."""
    space: "SearchSpace"
    """What would be searched, without the lattice."""

    def write_space(self, path: str | Path) -> None:
        """Write the search space as YAML, to edit and to give back.

        Raises:
            InputError: the place cannot be written to.
        """
        from clasp_calib.search.space import write_space

        write_space(self.space, Path(path))


def calibrate(
    model: Any,
    processor: Any,
    samples: Any,
    budgets: Sequence[str | int] | str | int = (192,),
    *,
    run: str | Path | Places | None = None,
    options: "CalibrationOptions | None" = None,
    crew: "Crew | None" = None,
    watcher: "Watcher | None" = None,
) -> "Artifact":
    """Find, for each class, the layer mixture and the rho that keep most answers right under a token budget.

    The space of the options may name other selectors, which choose tokens in the place of the dual-stage selection.

    Interrupted or killed, the same call with the same ``run`` goes on where it stopped. Model and random state are left
    as they were.

    Args:
        model: a transformers model of a known architecture, on the device and in the dtype that it is to be served in.
        processor: the model's.
        samples: labelled samples, as `load_samples` takes them; `label` labels them.
        budgets: one or several: mean visual tokens that a decoder layer works on (``192``), or a share of them
            (``"33%"``).
        run: run directory, where scores, trials and the artifact are kept. Features are cached there first, as far as
            they are not. Without one everything is kept in memory, and the vision tower runs for every look at a
            picture. `Places` names other places; features that it names must be there.
        options: how to search; by default ``CalibrationOptions()``.
        crew: who scores; by default this process. Other processes need a model that was loaded from a directory or the
            Hub.
        watcher: is told of progress; by default a table in a terminal and in a notebook, and a line a minute elsewhere.

    Returns:
        The artifact of these budgets, and of those that the one in the run directory had. Recorded test scores of a
        budget that is searched again are dropped.

    Raises:
        ArtifactError: the artifact that is there is of another model, or was made with other settings.
        BudgetError: a budget cannot be met.
        CacheError: features are missing, or of another encoder.
        InputError: samples or options cannot be used.
        ModelError: the processor is not the model's, or numbers are not finite.
        StudyError: the recorded scores are of other settings, or workers died.
    """
    from clasp_calib.runtime.schedule import parse_budgets
    from clasp_calib.search.watchers import LiveTable

    wanted = parse_budgets(budgets)
    if not wanted:
        raise InputError("there are no budgets; give some, such as [192, '33%']")
    with _prepared(model, processor, samples, wanted, run, options, crew) as calibration:
        if watcher is not None:
            return _calibrated(calibration, wanted, watcher)
        table = LiveTable()
        with table.shown():
            return _calibrated(calibration, wanted, table)


def plan_calibration(
    model: Any,
    processor: Any,
    samples: Any,
    budgets: Sequence[str | int] | str | int = (192,),
    *,
    run: str | Path | Places | None = None,
    options: "CalibrationOptions | None" = None,
    crew: "Crew | None" = None,
) -> CalibrationPlan:
    """What `calibrate` would do with the same arguments, and what it would cost at most.

    A few evaluations are made to tell the time. Features are cached as `calibrate` would; nothing else is kept.
    """
    from clasp_calib.runtime.schedule import parse_budgets

    wanted = parse_budgets(budgets)
    with _prepared(model, processor, samples, wanted, run, options, crew) as calibration:
        return CalibrationPlan(calibration.plans(wanted), calibration.base_space)


@contextmanager
def _prepared(
    model: Any,
    processor: Any,
    samples: Any,
    budgets: "Sequence[Budget]",
    run: str | Path | Places | None,
    options: "CalibrationOptions | None",
    crew: "Crew | None",
) -> "Iterator[Calibration]":
    """A calibration whose features are there, on a model that is put back afterwards."""
    from clasp_calib.api.featured import filled
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.calib.dataset import calibration_samples
    from clasp_calib.calib.percentages import check_percentages
    from clasp_calib.calib.scoring.metrics import generated
    from clasp_calib.calib.scoring.objective import KL, check_likeness
    from clasp_calib.calib.scoring.sizes import in_every_size
    from clasp_calib.calib.scoring.templates import say_odd_template
    from clasp_calib.common.progress import note
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.crew.crew import Crew
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.budgeting import default_options
    from clasp_calib.runtime.decoding import Greedy
    from clasp_calib.runtime.processor_check import check_processor
    from clasp_calib.search.calibrate import Calibration
    from clasp_calib.search.calibration_options import CalibrationOptions
    from clasp_calib.search.space import SearchSpace

    options, crew = options or CalibrationOptions(), crew or Crew()
    check_processor(model, processor)
    Greedy(model).say()
    if options.prompt is not None:
        say_odd_template(processor, options.prompt)
    crew.check_reaches(model)
    table = load_samples(samples)
    labelled = options.class_source.labelled(table)
    classes = options.class_source.classes(sample.label for sample in labelled).names
    chosen = calibration_samples(labelled, classes, options.objective != KL, hints_of(run))
    if options.objective == KL:
        check_likeness(chosen, options.anyway)
    if slow := generated(chosen):
        told = ", ".join(f"{name}: {count}" for name, count in slow.items())
        note(f"these metrics need generated answers, which take longer than the one forward of exact: {told} samples")
    pruning = options.pruning or default_options(adapter_for(model))
    if isinstance(options.space, SearchSpace) and not pruning.rated:
        note("tokens have no relevance here (--relevance none), so the space's ratios and seedings are not tried")
    if isinstance(options.space, SearchSpace) and options.space.untried:
        note(
            "prototypes that show smaller pictures are tried with the selector clasp alone, which is not searched; "
            f"left out: {', '.join(options.space.untried)}"
        )
    check_percentages(model, processor, chosen, budgets, pruning.starts)
    filmed = any(sample.modality == "video" for sample in chosen)
    _check_selectors(options, model, budgets, filmed)
    with undisturbed(model):
        space = options.space if isinstance(options.space, SearchSpace) else None
        shown = in_every_size(model, processor, chosen, space.downsamples if space else ())
        places = filled(model, processor, shown, run, space.layers if space else ())
        calibration = Calibration(model, processor, chosen, table.digest, options, places, crew)
        _say_router(options, places)
        yield calibration


def _say_router(options: "CalibrationOptions", places: Places) -> None:
    """Which router the artifact will have, and how good it is."""
    from clasp_calib.artifacts.artifact import artifact_at
    from clasp_calib.common.progress import note
    from clasp_calib.router_labeling.router import Router

    before = artifact_at(places.artifact)
    there = None if before is None else before.router
    if isinstance(options.router, Router):
        note(f"{options.router.name} goes into the artifact (--router none leaves it out): {options.router}")
    elif options.router is None and there is not None:
        note(f"the artifact that is there keeps its router (--router none takes it out): {there}")
    elif options.router is not None:
        note("the artifact gets no router" if there is None else "the artifact that is there loses its router")


def _check_selectors(options: "CalibrationOptions", model: Any, budgets: "Sequence[Budget]", filmed: bool) -> None:
    """Refuse selectors of a space that cannot be searched; where the search chooses, it leaves out what cannot run."""
    from clasp_calib.common.selector_choice import AUTO
    from clasp_calib.runtime.selectors import selector_of
    from clasp_calib.search.solved_selectors import solved_choice

    for choice in options.selectors:
        if options.method == AUTO:
            selector_of(choice)
            continue
        for budget in budgets:
            solved_choice(choice, model, budget, filmed)


def _calibrated(calibration: "Calibration", budgets: "Sequence[Budget]", watcher: "Watcher") -> "Artifact":
    """Search all budgets; what is found is written after each of them."""
    from clasp_calib.artifacts.files import write_artifact
    from clasp_calib.report.plots import plot_path, plot_search

    places = calibration.places
    picture = None if places.report is None else plot_path(places.report / "search.png")
    places.record("search", budgets=[budget.name for budget in budgets], **calibration.summary())
    for found in calibration.run(budgets, watcher):
        artifact = found if places.artifact is None else write_artifact(found, places.artifact)
    if picture is not None:
        plot_search(artifact, picture)
    return artifact
