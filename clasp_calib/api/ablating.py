"""What one part of a calibration is worth, by changing it alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.studied import StudyOptions, studied
from clasp_calib.common.places import Places, hints_of

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.studies.comparison import Comparison
    from clasp_calib.calib.studies.confusion import Confusion
    from clasp_calib.crew.crew import Crew


@dataclass(frozen=True)
class AblationReport:
    """The scores of every variant at every budget."""

    name: str
    """Of the ablation."""
    found: "dict[str, tuple[Comparison, str]]" = field(repr=False)
    """Budget -> scores, and the setting that the others are compared with."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """Tables and JSON, as they were written."""
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """Budget -> classes that the ablation cannot change, because another selector chooses their tokens."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What is to be known of its rows."""

    @property
    def samples(self) -> dict[str, int]:
        """Budget -> questions that every variant answered: those of the classes that are not left out."""
        return {budget: len(compared.samples) for budget, (compared, _) in self.found.items()}

    def title(self, budget: str) -> str:
        """What a budget's table is of."""
        without = ", ".join(self.left_out.get(budget, ()))
        return f"{self.name} at budget {budget}" + (f", without {without} (other selectors)" if without else "")

    def rows(self, budget: str, digits: int = 1) -> tuple[list[str], list[list[str]]]:
        """Header and rows of a budget: a row a variant, with its difference to the calibration."""
        from clasp_calib.report.ablation import ablation_rows

        return ablation_rows(*self.found[budget], digits=digits)

    def to_markdown(self) -> str:
        """One table a budget."""
        from clasp_calib.common.text_tables import markdown_table

        tables = [f"### {self.title(b)}\n\n{markdown_table(*self.rows(b))}\n" for b in self.found]
        return "\n".join([*tables, *(f"{note}.\n" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: of each budget scores and differences, how many questions were asked, and the classes left out."""
        from clasp_calib.report.ablation import ablation_json

        return {
            "samples": self.samples,
            "left_out": {budget: list(self.left_out.get(budget, ())) for budget in self.found},
            "notes": list(self.notes),
            "budgets": {budget: ablation_json(*pair) for budget, pair in self.found.items()},
        }

    def _repr_html_(self) -> str:
        from clasp_calib.common.text_tables import html_table

        return "\n".join(html_table(*self.rows(b), self.title(b)) for b in self.found)


def ablate(  # noqa: PLR0913 - named as in the other studies
    name: str,
    model: Any,
    processor: Any,
    artifact: "Artifact | Path | str",
    samples: Any,
    *,
    budgets: Sequence[str | int] | str | int | None = None,
    run: str | Path | Places | None = None,
    options: StudyOptions | None = None,
    crew: "Crew | None" = None,
    confusions: Mapping[str, Any] | Sequence[Any] | None = None,
) -> AblationReport:
    """Measure what one part of a calibration is worth.

    With a run directory an interrupted call goes on with the scores that it has.

    Args:
        name: one of `clasp_calib.calib.studies.ablations.ABLATIONS`, such as ``parts``, ``rho`` or ``layers``.
        model: the model that the artifact was calibrated for.
        processor: the model's.
        artifact: an artifact, its directory, or ``org/name@version``.
        samples: labelled samples, as `load_samples` takes them.
        budgets: one or some of the artifact's; by default all that have a class with the option.
        run: run directory. Features are cached there first, as far as they are not, and tables go there.
        options: what to measure on.
        crew: who scores; by default this process.
        confusions: for ``routing``: how routers were seen to err, as a list or by name. Each gives a row with the
            expected score. They are tables with columns ``class`` and ``gold_class``, as `load_samples` takes them;
            mappings with ``classes`` and ``counts``, [true class, given class]; or JSON files of these. How much such
            counts vary by chance is not in the intervals. Those of the package's own labelers come by themselves, where
            they were measured and the classes are the packaged ones.

    Raises:
        ArtifactError: the artifact cannot be read, is of another model, or lacks a budget.
        InputError: the samples cannot be used, there is no such ablation, or it varies an option that no class
            reads; a confusion is none, or not of these classes.
        CacheError: a picture or a layer is not cached.
        ModelError: the processor is not the model's, or numbers are not finite.
        StudyError: workers died, or scores cannot be recorded.
    """
    from clasp_calib.api.confusions import check_routed, packaged_confusions, read_confusions
    from clasp_calib.api.featured import filled
    from clasp_calib.api.scored import scores_kept
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.calib.studies.ablations import ROUTING, changed_at, check_ablation, measure_ablation
    from clasp_calib.calib.studies.evaluation import layers_used, shown_by
    from clasp_calib.calib.studies.subject import Subject
    from clasp_calib.crew.crew import Crew

    check_ablation(name)
    check_routed(name, confusions)
    given = read_confusions(confusions)
    options, crew = options or StudyOptions(), crew or Crew()
    crew.check_reaches(model)
    of = studied(model, processor, artifact, samples, budgets, options, hints_of(run))
    changed = changed_at(name, of.artifact, of.budgets, of.chosen, asked=budgets is not None)
    known = packaged_confusions(of.artifact.classes) if name == ROUTING else []
    routers = [*(one for one in known if one.name not in {other.name for other in given}), *given]
    notes = tuple(_told(one, of.artifact.classes, tuple(of.chosen)) for one in routers)
    left_out = {budget: tuple(label for label in of.chosen if label not in own) for budget, own in changed.items()}
    with undisturbed(model):
        shown = shown_by(model, processor, of.artifact, of.questions, of.budgets, routed=name == ROUTING)
        places = filled(model, processor, shown, run, layers_used(model, of.artifact))
        asked = {"command": f"ablate {name}", "split": options.split}
        with scores_kept(model, processor, of, shown, places, crew, **asked) as scoring:
            with scoring.scorer() as scorer:
                found = {
                    budget: measure_ablation(
                        name, scorer, Subject(model, of.artifact, budget), own, options.seed, routers
                    )
                    for budget, own in changed.items()
                }
            report = AblationReport(name, found, left_out=left_out, notes=notes)
            told = {"confusions": [one.name for one in routers], "crew": vars(crew)}
            places.record("ablate", name=name, **vars(options), **of.summary, **told)
            if places.report is None:
                return report
            return _filed(report, places.report / f"ablation-{name}-{options.split}.md")


def _told(confusion: "Confusion", classes: Sequence[str], needed: Sequence[str]) -> str:
    """What a row is worth; refuses before hours of work a confusion that does not fit."""
    confusion.shares(classes, needed)
    questions = confusion.questions(needed)
    fewest = min(questions, key=questions.__getitem__)
    return (
        f"routed by {confusion.name}: expected from its classes for {sum(questions.values())} questions (fewest of "
        f"{fewest}, {questions[fewest]}); how these vary by chance is not in the intervals"
    )


def _filed(report: AblationReport, place: Path) -> AblationReport:
    place.write_text(report.to_markdown(), encoding="utf-8")
    numbers = place.with_suffix(".json")
    numbers.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    return replace(report, files=(place, numbers))
