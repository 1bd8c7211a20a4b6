"""An artifact beside published pruning methods and other artifacts, all at equal cost."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.beside import artifacts_beside
from clasp_calib.api.studied import Studied, StudyOptions, studied
from clasp_calib.common.places import Places, hints_of
from clasp_calib.common.settings import one_of

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.studies.contest import Contest
    from clasp_calib.calib.studies.entrants import Refusal
    from clasp_calib.calib.studies.intervals import Interval
    from clasp_calib.crew.crew import Crew
    from clasp_calib.report.contest_tables import Costs


@dataclass(frozen=True)
class ComparisonOptions(StudyOptions):
    """What to compare on, and how.

    Attributes:
        solve_on: calibration samples of a class that knobs are solved on whose tokens depend on the picture.
        timed: prefills to time for each method; 0 times none.
        clip: directory of the CLIP model whose vision tower the model has: with its text tower `cdpruner` rates patches
            by the question. Without one the decoder's embeddings of the question do, as `cdpruner-embeddings`.
        mixture: let every method also answer with the calibration's mixtures of vision layers.
    """

    solve_on: int = 24
    timed: int = 5
    clip: str | None = None
    mixture: bool = True


@dataclass(frozen=True)
class ComparisonReport:
    """What every method scored and cost at every budget."""

    contest: "Contest" = field(repr=False)
    """Every method's scores, with paired differences from the calibration."""
    costs: "Costs" = field(repr=False)
    """What every method costs: FLOPs, times and memory."""
    refusals: "tuple[Refusal, ...]"
    """Methods that a budget cannot be met with, or that do not know the model."""
    resumed: int
    """Answers that were there from an earlier call."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """Tables, JSON and plot, as they were written; no plot where matplotlib is missing."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """The budgets that were compared at."""
        return self.contest.budgets

    def macro(self, budget: str | int, method: str = "calibrated") -> "Interval":
        """Mean score over the classes of one method at one budget, in [0, 1].

        Raises:
            InputError: the budget or the method was not compared.
        """
        from clasp_calib.artifacts.manifest import MACRO

        return one_of("method", method, self.contest.comparison(self._named(budget)).table())[MACRO]

    def _named(self, budget: str | int) -> str:
        from clasp_calib.runtime.schedule import parse_budget

        name = parse_budget(budget).name
        return one_of("budget", name, dict(zip(self.budgets, self.budgets, strict=True)))

    def table(self, budget: str | int | None = None) -> list[dict[str, Any]]:
        """One row a budget and method, the best first, then those with mixtures, ready for ``pandas.DataFrame``."""
        from clasp_calib.calib.studies.contest import MIXED
        from clasp_calib.report.contest_tables import contest_rows

        names = self.budgets if budget is None else [self._named(budget)]
        found = []
        for name in names:
            header, body = contest_rows(self.contest, name, self.costs)
            found += [{"budget": name, **dict(zip(header, row, strict=True))} for row in body]
            header, body = contest_rows(self.contest, name, {}, mixed=True)
            # The calibration, which stands in both blocks, once.
            found += [{"budget": name, **dict(zip(header, row, strict=True))} for row in body if MIXED in row[0]]
        return found

    def to_markdown(self) -> str:
        """Tables of scores, costs and settings, for each budget."""
        from clasp_calib.report.contest_tables import contest_markdown

        return contest_markdown(self.contest, self.costs, self.refusals)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        from clasp_calib.report.contest_tables import contest_json

        return contest_json(self.contest, self.costs, self.refusals)

    def plot(self, path: str | Path) -> None:
        """Write a PNG of score against cost."""
        from clasp_calib.report.plots import plot_contest

        plot_contest(self.contest, Path(path))

    def _repr_html_(self) -> str:
        from clasp_calib.common.text_tables import html_table
        from clasp_calib.report.contest_tables import contest_rows

        tables = (html_table(*contest_rows(self.contest, b, self.costs), f"budget {b}") for b in self.budgets)
        return "\n".join(tables)


def compare(  # noqa: PLR0913 - named as in the other studies
    model: Any,
    processor: Any,
    artifact: "Artifact | Path | str",
    samples: Any,
    methods: str | Sequence[str] | None = None,
    *,
    budgets: Sequence[str | int] | str | int | None = None,
    run: str | Path | Places | None = None,
    beside: "Mapping[str, Artifact | Path | str] | None" = None,
    options: ComparisonOptions | None = None,
    crew: "Crew | None" = None,
) -> ComparisonReport:
    """Compare an artifact with published pruning methods, and with other artifacts, all at equal cost.

    All methods answer the same questions by greedy decoding. Each has its knobs solved so that a decoder layer works on
    as many visual tokens in the mean as the budget says. Each answers twice: as released, and with the calibration's
    mixtures of vision layers, so that how tokens are chosen is compared alone. With a run directory an interrupted call
    goes on with the answers that it has. Model and random state are left as they were.

    Args:
        model: the model that the artifact was calibrated for.
        processor: the model's.
        artifact: an artifact, its directory, or ``org/name@version``.
        samples: labelled samples, as `load_samples` takes them.
        methods: one or several names of `clasp_calib.baselines.registry.NAMES`; by default all, and none if empty.
        budgets: one or some of the artifact's; by default all.
        run: run directory, where answers, tables and plots are kept; without one nothing is written.
        beside: more artifacts of the model, by the names of their rows. Each takes part with its own settings at those
            of the budgets that it holds. Classes, prompt and decoding must be those of the first.
        options: what to compare on, and how.
        crew: who answers; by default this process. Knobs are always solved and prefills timed in this process, and
            when nobody answers.

    Raises:
        ArtifactError: an artifact cannot be read, is of another model, or cannot stand beside the first; or the first
            lacks a budget.
        InputError: the samples cannot be used, there is no such method, or a name is taken.
        ModelError: the processor is not the model's, or makes other tokens of several pictures than of each alone; or
            numbers are not finite.
        StudyError: workers died.
    """
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.crew.crew import Crew
    from clasp_calib.report.plots import plot_path
    from clasp_calib.runtime.processor_check import check_together

    options, crew = options or ComparisonOptions(), crew or Crew()
    crew.check_reaches(model)
    places = Places.of(run)
    of = studied(model, processor, artifact, samples, budgets, options, hints_of(run))
    others = artifacts_beside(beside, of, model, options)
    if any(len(sample.alone) > 1 for sample in of.samples):
        check_together(processor)
    table = None if places.report is None else places.report / f"comparison-{options.split}.md"
    picture = None if table is None else plot_path(table.with_suffix(".png"))
    with undisturbed(model):
        methods = [methods] if isinstance(methods, str) else methods
        report = _compared(model, processor, of, others, methods, places, options, crew)
    ids = {name: one.manifest.id for name, one in others.items()}
    places.record("compare", **vars(options), **of.summary, methods=methods, beside=ids, crew=vars(crew))
    return report if table is None else _filed(report, table, picture)


def _compared(
    model: Any,
    processor: Any,
    of: Studied,
    beside: "Mapping[str, Artifact]",
    methods: Sequence[str] | None,
    places: Places,
    options: ComparisonOptions,
    crew: "Crew",
) -> ComparisonReport:
    from clasp_calib.baselines.registry import NAMES
    from clasp_calib.cache.picture_files import check_headers
    from clasp_calib.calib.dataset import by_class
    from clasp_calib.calib.scoring.prompting import Prompter
    from clasp_calib.calib.scoring.score_tasks import ModelRecipe
    from clasp_calib.calib.studies.answers import AnswerJournal, SolvedKnobs, content_of
    from clasp_calib.calib.studies.beside_entrants import check_shown, entrants_beside
    from clasp_calib.calib.studies.contest import Answerer, AnswererRecipe, Prompts, hold_contest
    from clasp_calib.calib.studies.costs import prefill_costs
    from clasp_calib.calib.studies.entrants import Solving, entrants_for
    from clasp_calib.calib.studies.evaluation import shown_by
    from clasp_calib.calib.studies.mixed_entrants import with_mixture
    from clasp_calib.common.progress import note
    from clasp_calib.crew.crew import crew_for

    manifest, questions, seed = of.artifact.manifest, of.questions, options.seed
    prompter = Prompter(processor, model, manifest.prompt)
    others = [sample for sample in of.samples if sample.split == "calibration"]
    solving = by_class(others, of.artifact.classes, options.solve_on, seed)
    # Samples are known one by one, so that a table may grow.
    identity = of.identity(model, processor, crew.threads)
    del identity["samples"]
    contents = {sample.id: content_of(sample) for sample in questions}
    # Solved in this process, with all of its threads.
    solving_by = {name: value for name, value in identity.items() if name != "threads"}
    solving_on = [[sample.id, content_of(sample)] for group in solving.values() for sample in group]
    solved = SolvedKnobs(places.comparison, {**solving_by, "solved on": solving_on})
    check_headers((one.picture for sample in questions for one in sample.alone), processor)
    shown_by(model, processor, of.artifact, questions, of.budgets)
    check_shown(model, processor, beside, questions, of.budgets)
    names = list(NAMES if methods is None else methods)
    images = Prompts(model, processor, prompter, tuple(sample for group in solving.values() for sample in group))
    solving_with = Solving(images, solved)
    given = (model, processor, of.artifact, of.budgets, names, solving_with, questions, options.clip)
    named, lacking = entrants_beside(model, beside, of.budgets)
    compared, refusals = entrants_for(*given)
    released = [*compared, *named]
    entrants = [*released, *(with_mixture(compared) if options.mixture else ())]
    longest = manifest.decoding.max_new_tokens
    answerer = Answerer(model, processor, prompter, longest)

    def recipe() -> AnswererRecipe:
        return AnswererRecipe(ModelRecipe.of(model, processor, crew.threads), manifest.prompt, longest)

    with AnswerJournal(places.comparison, identity, contents) as journal:
        if resumed := len(journal):
            note(f"going on with {resumed} answers in {journal.path}")
        with closing(crew_for(crew, answerer, recipe)) as workers:
            contest = hold_contest(workers, entrants, questions, journal, seed)
    timed = questions[: options.timed]
    measured = prefill_costs(model, processor, prompter, released, timed) if timed else []
    costs = {(e.method, e.budget): cost for e, cost in zip(released, measured, strict=False)}
    return ComparisonReport(contest, costs, (*refusals, *lacking), resumed)


def _filed(report: ComparisonReport, table: Path, picture: Path | None) -> ComparisonReport:
    table.write_text(report.to_markdown(), encoding="utf-8")
    numbers = table.with_suffix(".json")
    numbers.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    if picture is None:
        return replace(report, files=(table, numbers))
    report.plot(picture)
    return replace(report, files=(table, numbers, picture))
