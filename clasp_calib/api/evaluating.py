"""Measuring what an artifact is worth: calibrated beside unpruned, default and random pruning."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.studied import Studied, StudyOptions, studied
from clasp_calib.common.places import Places, hints_of
from clasp_calib.common.settings import one_of

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.artifacts.checkpoint_digest import Checkpoint
    from clasp_calib.calib.studies.evaluation import BudgetResult, Evaluation
    from clasp_calib.calib.studies.intervals import Interval
    from clasp_calib.crew.crew import Crew

TEST = "test"


@dataclass(frozen=True)
class EvaluationOptions(StudyOptions):
    """What to evaluate on, and how.

    Attributes:
        timed: answers to time for each setting; 0 times none.
        record: record the scores of a whole test split in the artifact, if the model has the calibration's weights.
    """

    timed: int = 5
    record: bool = True


@dataclass(frozen=True)
class EvaluationReport:
    """What every setting scored, by class and budget, with 95 % intervals by picture."""

    evaluation: "Evaluation" = field(repr=False)
    """Scores of every setting, by budget and class."""
    artifact: "Artifact"
    """With these scores recorded in it, if they are of a whole test split."""
    split: str
    """The split that was measured."""
    recorded: bool
    """Whether the artifact holds these scores."""
    as_recorded: bool | None
    """Whether they are those that the artifact held before, on the same samples; ``None`` if it held none."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """Table and plot, as they were written; no plot where matplotlib is missing."""

    @property
    def budgets(self) -> "tuple[BudgetResult, ...]":
        """The results of every budget."""
        return self.evaluation.budgets

    def at(self, budget: str | int) -> "BudgetResult":
        """The results of one budget.

        Raises:
            ArtifactError: it was not evaluated.
        """
        from clasp_calib.runtime.schedule import parse_budget

        return self.evaluation.at(parse_budget(budget).name)

    def macro(self, budget: str | int, setting: str = "calibrated") -> "Interval":
        """Mean score over the classes of one setting at one budget, in [0, 1].

        Raises:
            ArtifactError: the budget was not evaluated.
            InputError: the setting was not.
        """
        from clasp_calib.artifacts.manifest import MACRO

        return one_of("setting", setting, self.at(budget).scores)[MACRO]

    def table(self, budget: str | int | None = None) -> list[dict[str, Any]]:
        """One row a budget, setting and class (or ``macro``), ready for ``pandas.DataFrame``."""
        chosen = self.budgets if budget is None else [self.at(budget)]
        return [
            {"budget": result.budget, "setting": setting, "class": label, **vars(interval)}
            for result in chosen
            for setting, of in result.scores.items()
            for label, interval in of.items()
        ]

    def to_markdown(self) -> str:
        """One table a budget."""
        from clasp_calib.report.tables import markdown

        return markdown(self.evaluation)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {"as_recorded": self.as_recorded, **self.evaluation.as_dict()}

    def plot(self, path: str | Path) -> None:
        """Write a PNG with bars for every class and setting."""
        from clasp_calib.report.plots import plot_evaluation

        plot_evaluation(self.evaluation, Path(path))

    def _repr_html_(self) -> str:
        from clasp_calib.common.text_tables import html_table
        from clasp_calib.report.tables import rows

        tables = (html_table(*rows(result, tuple(result.scores)), result.title) for result in self.budgets)
        return "\n".join(tables)


def evaluate(
    model: Any,
    processor: Any,
    artifact: "Artifact | Path | str",
    samples: Any,
    *,
    budgets: Sequence[str | int] | str | int | None = None,
    run: str | Path | Places | None = None,
    options: EvaluationOptions | None = None,
    crew: "Crew | None" = None,
) -> EvaluationReport:
    """Compare the calibrated settings with no pruning, default pruning and random pruning.

    Default pruning is the model's own layer with rho = 1, random pruning the mean of three draws. The report also has
    the paper's rho, one setting for all classes, and exhaustive search where it was run. With a run directory an
    interrupted call goes on with the scores that it has. Model and random state are left as they were.

    Args:
        model: the model that the artifact was calibrated for.
        processor: the model's.
        artifact: an artifact, its directory, or ``org/name@version``. Scores of a whole test split are written into a
            directory; from an artifact in memory take ``report.artifact``.
        samples: labelled samples, as `load_samples` takes them.
        budgets: one or some of the artifact's; by default all.
        run: run directory. Features are cached there first, as far as they are not, and tables and plots go there.
            Without one the vision tower runs for every picture, and nothing is written.
        options: what to evaluate on, and how.
        crew: who scores; by default this process. Answers are always timed in this process, and when nobody scores.

    Returns:
        The report.

    Raises:
        ArtifactError: the artifact cannot be read, is of another model, or lacks a budget.
        InputError: the samples cannot be used, or the split has none.
        CacheError: a picture or a layer is not cached.
        ModelError: the processor is not the model's, or numbers are not finite.
        StudyError: workers died, or scores cannot be recorded.
    """
    from clasp_calib.api.featured import filled
    from clasp_calib.api.scored import scores_kept
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.artifacts.checkpoint_digest import checkpoint_of
    from clasp_calib.calib.studies.evaluation import evaluate_artifact, layers_used, shown_by, with_seconds
    from clasp_calib.crew.crew import Crew
    from clasp_calib.report.plots import plot_path

    options, crew = options or EvaluationOptions(), crew or Crew()
    crew.check_reaches(model)
    of = studied(model, processor, artifact, samples, budgets, options, hints_of(run))
    directory = Places.of(run).report
    picture = None if directory is None else plot_path(directory / f"evaluation-{options.split}.png")
    with undisturbed(model):
        shown = shown_by(model, processor, of.artifact, of.questions, of.budgets)
        places = filled(model, processor, shown, run, layers_used(model, of.artifact))
        asked = {"command": "evaluate", "split": options.split}
        with scores_kept(model, processor, of, shown, places, crew, **asked) as scoring:
            with scoring.scorer() as scorer:
                evaluation = evaluate_artifact(
                    scorer, scoring.evaluator, model, of.artifact, of.budgets, of.chosen, options.seed
                )
            if options.timed:
                evaluation = with_seconds(evaluation, model, processor, of.artifact, of.chosen, options.timed)
            report = _recorded(evaluation, of, options, checkpoint_of(model), artifact is of.artifact)
            places.record("evaluate", **vars(options), **of.summary, crew=vars(crew))
            return report if directory is None else _filed(report, directory, picture)


def _recorded(
    evaluation: "Evaluation", of: Studied, options: EvaluationOptions, checkpoint: "Checkpoint", in_memory: bool
) -> EvaluationReport:
    """The report, and the scores in the artifact and in its directory, where they belong there."""
    from clasp_calib.artifacts.files import write_artifact
    from clasp_calib.artifacts.manifest import Measured

    measured = Measured(samples=of.digest, split=options.split, seed=options.seed, checkpoint=checkpoint)
    known = [of.artifact.entry(name).measured for name in of.budgets]
    # Scores of other weights are not the artifact's.
    whole = options.split == TEST and options.per_class is None and of.weights in ("same", "unrecorded")
    again = whole and all(one is not None and measured.repeats(one) for one in known)
    as_recorded = evaluation.agrees_with(of.artifact) if again else None
    record = whole and options.record
    result = evaluation.recorded_in(of.artifact, measured) if record else of.artifact
    if record and of.home is not None:
        result = write_artifact(result, of.home)
    written = of.home is not None or in_memory
    return EvaluationReport(evaluation, result, options.split, record and written, as_recorded)


def _filed(report: EvaluationReport, directory: Path, picture: Path | None) -> EvaluationReport:
    table = directory / f"evaluation-{report.split}.md"
    table.write_text(report.to_markdown(), encoding="utf-8")
    if picture is None:
        return replace(report, files=(table,))
    report.plot(picture)
    return replace(report, files=(table, picture))
