"""Routing: the class of a question by a router, and training one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.calib.dataset import UNLABELLED, check_classes
from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import progress
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.abstention import WRONG_COST
from clasp_calib.router_labeling.class_source import ClassSource
from clasp_calib.router_labeling.classes import Classes
from clasp_calib.router_labeling.fallback import fallback_applies, packaged_router
from clasp_calib.router_labeling.router import Reason, Router
from clasp_calib.router_labeling.router_file import load_router
from clasp_calib.router_labeling.table import gold_classes
from clasp_calib.router_labeling.taxonomy import Taxonomy
from clasp_calib.router_labeling.training import FOLDS, LabelledQuestion, Trained, train_router as train
from clasp_calib.router_labeling.worth import check_worth
from clasp_calib.runtime.routing import router_of


@dataclass(frozen=True)
class Routed:
    """The class of a question, and why."""

    label: str
    """Slug of the class."""
    by: str
    """Which router says so: its file, or ``the packaged router``."""
    confidence: float
    """Calibrated probability of the likeliest class."""
    threshold: float
    """Below this confidence the router abstains, and the question gets the default class."""
    abstained: bool
    likeliest: str
    probabilities: Mapping[str, float]
    reasons: tuple[Reason, ...]
    """What spoke most for the likeliest class."""


def route(
    question: str,
    *,
    router: Router | str | Path | None = None,
    artifact: str | Path | None = None,
    run: str | Path | None = None,
) -> Routed:
    """Say which class a question gets, how sure that is, and why.

    Args:
        question: what is asked.
        router: a router or its file.
        artifact: take the router of this artifact instead: a directory, or ``org/name@version`` on the Hub.
        run: take the router of this run directory, if it has one.

    Without any of them the packaged router decides. An artifact without a router has that one too, if it has the
    packaged classes.

    Raises:
        ArtifactError: the artifact cannot be read.
        InputError: the router cannot be read; or the artifact has none, and one class or classes of its own.
    """
    known = router
    if artifact is not None:
        loaded = Artifact.load(artifact)
        if loaded.router is None and not fallback_applies(loaded.classes):
            why = "one class, which needs no router" if len(loaded.classes) == 1 else "classes of its own and no router"
            raise InputError(
                f"the artifact {artifact} has {why}; give one with --router, or train one with train-router"
            )
        known = router_of(loaded)
    elif known is None and run is not None and RunDirectory(Path(run)).router.is_file():
        known = RunDirectory(Path(run)).router
    known = packaged_router() if known is None else known
    known = known if isinstance(known, Router) else load_router(Path(known))
    decision = known.route(question)
    return Routed(
        decision.label,
        known.name,
        decision.confidence,
        known.threshold,
        decision.abstained,
        decision.likeliest,
        dict(zip(known.classes, known.probabilities(question).tolist(), strict=True)),
        tuple(known.reasons(question, decision.likeliest)),
    )


def train_router(
    samples: Any,
    *,
    gold: Any = None,
    taxonomy: "Taxonomy | str | Path | None" = None,
    class_from: str | None = None,
    default_class: str | None = None,
    wrong_cost: float = WRONG_COST,
    seed: int = 0,
    force: bool = False,
) -> Trained:
    """Distil labels into a router: a small linear model that names a question's class without a language model.

    It is compared with what answers without one: the packaged router, where that leads to these classes, and one class
    for all questions. What counts is the mean over classes of the share of questions that get theirs: by classes given
    by hand if there are any, else by the labels, without those that keyword rules gave.

    Args:
        samples: labelled, as `load_samples` takes them; those without a class are passed over. A column ``gold_class``
            is judged by, not trained on.
        gold: samples with a class given by hand, to judge by and not to train on.
        taxonomy: the one that they were labelled with.
        class_from: instead, a column whose values are the classes.
        default_class: the class of samples without a value there, which the router abstains to; without one it names
            the likeliest class, however unsure.
        wrong_cost: what a wrong class costs, where the default class instead of another costs 1.
        seed: of the division into folds.
        force: also return a router that is worth nothing.

    Returns:
        The router, and how it does on questions that it was not trained on.

    Raises:
        InputError: scikit-learn is missing; samples have no class or one of another taxonomy; there are too few; the
            packaged router does better than this one, or one class for all questions as well; or all labels are the
            keyword rules' own and there are no classes given by hand to judge by.
    """
    source, given = ClassSource(taxonomy, class_from, default_class), load_samples(samples)
    labelled = source.labelled(given)
    known = source.classes(sample.label for sample in labelled)
    rows = _rows(labelled, known, source)
    judge_by = [] if gold is None else _rows(source.labelled(load_samples(gold)), known, source)
    with progress() as bar:
        task = bar.add_task("fitting", total=FOLDS + 1)
        trained = train(
            rows,
            known,
            given.digest,
            judge_by=judge_by,
            wrong_cost=wrong_cost,
            seed=seed,
            step=lambda: bar.advance(task),
        )
    if not force:
        check_worth(trained.worth)
    return trained


def _rows(samples: Any, classes: Classes, source: ClassSource) -> list[LabelledQuestion]:
    if "class" not in samples.table.column_names:
        raise InputError(f"{samples.name} has no column 'class'; {UNLABELLED}")
    check_classes(samples, classes.names)
    if isinstance(source.taxonomy, Taxonomy):
        gold_classes(samples.table, source.taxonomy)
    rows = samples.table.to_pylist()
    told = ("source", "labeler", "gold_class") if classes.intents else ()
    return [
        LabelledQuestion(row["question"], row["class"], *(row.get(name) for name in told))
        for row in rows
        if row["class"] is not None
    ]
