"""The rehearsal of a recipe: all of its steps on the embedded model and benchmark, its tables under a watermark."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.api.ablating import ablate
from clasp_calib.api.caching import cache_features
from clasp_calib.api.calibrating import calibrate
from clasp_calib.api.comparing import ComparisonOptions, compare
from clasp_calib.api.labelling import label
from clasp_calib.api.model_loading import REFERENCE, load_model
from clasp_calib.common.places import Places
from clasp_calib.common.progress import note
from clasp_calib.crew.crew import Crew
from clasp_calib.recipes.recipe_schema import CALIBRATED, FUSION, RATIO, UNPRUNED, RecipeCalibration
from clasp_calib.recipes.registry import PaperTable
from clasp_calib.recipes.reproduced import NOTHING, WATERMARK, ReproductionReport

if TYPE_CHECKING:
    from clasp_calib.api.comparing import ComparisonReport
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.search.calibration_options import CalibrationOptions
    from clasp_calib.search.space import SearchSpace

PICTURES = (8, 8)
"""To calibrate and to test on: few, since it is the steps that are tried."""
BIASED = 0.8
"""Weight of the model's own layer where a refinement begins with a mixture that is biased to it. Our choice."""
_ENTRANTS = {UNPRUNED: "unpruned", CALIBRATED[0]: "calibrated", RATIO: "selection alone"}
"""Who stands for a row in a comparison."""


def recipe_space(
    layers: tuple[int, ...], own_layer: int, calibration: RecipeCalibration, only: str = ""
) -> "SearchSpace":
    """What a recipe searches: the default mixtures with the paper's ratios, or one mixture to refine.

    Args:
        layers: vision layers that are cached.
        own_layer: the model's own, one of them.
        calibration: of the recipe.
        only: ``own-refined`` or ``uniform-refined``, where one mixture is refined.
    """
    from clasp_calib.search.space import Prototype, default_space

    space = default_space(layers, own_layer).model_copy(update={"rhos": calibration.rhos})
    rest = [layer for layer in layers if layer != own_layer]
    biased = {own_layer: BIASED, **dict.fromkeys(rest, (1 - BIASED) / len(rest))}
    begin = {
        "own-refined": Prototype(name="biased", weights=biased),
        "uniform-refined": Prototype(name="uniform", weights=dict.fromkeys(layers, 1 / len(layers))),
    }
    return space.model_copy(update={"prototypes": (begin[only],)}) if only in begin else space


@dataclass(frozen=True)
class Rehearsal:
    """One recipe on the embedded model.

    Attributes:
        table: the recipe.
        root: a directory for all that is made.
        pictures: to calibrate and to test on.
        seed: other seeds draw other pictures.
        crew: who scores.
    """

    table: PaperTable
    root: Path
    pictures: tuple[int, int]
    seed: int
    crew: Crew

    @property
    def budgets(self) -> tuple[str, ...]:
        """Those of the recipe, as they are on the embedded model."""
        return tuple(dict.fromkeys(self.table.recipe.rehearsal[name] for name in self.table.recipe.budgets))

    def report(self) -> ReproductionReport:
        """Run all steps; a killed rehearsal goes on with what it has.

        Raises:
            InputError: the directory cannot be written to.
        """
        from clasp_calib.reference.benchmark import write_benchmark

        recipe, steps = self.table.recipe, _Steps(4 + len(self._calibrations))
        with steps.step("drawing pictures with questions"):
            splits = dict(zip(("calibration", "test"), self.pictures, strict=True))
            drawn = write_benchmark(self.root / "benchmark", splits, first=self.seed * max(self.pictures))
        with steps.step("labelling the questions (keyword rules stand in for a language model)"):
            samples = label(drawn, out=self.root / "labels.parquet")
        model, processor = load_model(REFERENCE)
        with steps.step("caching vision layers"):
            cache_features(model, processor, samples, run=Places(features=self.root / "cache"))
        found: dict[str, Artifact] = {}
        for name in self._calibrations:
            with steps.step(f"searching at {', '.join(self.budgets)} tokens: {name}"):
                options = self._options(model, name)
                places = self._places(name)
                what = (model, processor, samples, self.budgets)
                found[name] = calibrate(*what, run=places, options=options, crew=self.crew)
        given = (model, processor, found[CALIBRATED[0]], samples)
        if recipe.kind != "benchmarks":
            with steps.step(f"answering the test questions: ablation of {recipe.kind}"):
                return self._ablated(*given)
        with steps.step("answering the test questions"):
            report = compare(
                *given,
                self.table.methods,
                run=Places(comparison=self.root / "comparison"),
                beside=self._beside(found),
                options=ComparisonOptions(seed=self.seed, timed=5 if self.table.costs else 0, mixture=False),
                crew=self.crew,
            )
            return self._compared(report)

    @property
    def _calibrations(self) -> tuple[str, ...]:
        """Names of the calibrations that the rows need; the search's own is always made."""
        named = {row.by for row in self.table.recipe.rows}
        return tuple(name for name in CALIBRATED if name in named or name == CALIBRATED[0])

    def _places(self, name: str) -> Places:
        """Without a report, whose tables would have no watermark."""
        home = self.root / name
        return Places(features=self.root / "cache", study=home / "study", artifact=home / "artifact")

    def _options(self, model: Any, name: str) -> "CalibrationOptions":
        from clasp_calib.cache.feature_options import FeatureOptions
        from clasp_calib.runtime.adapters import adapter_for
        from clasp_calib.search.calibration_options import CalibrationOptions
        from clasp_calib.search.strategies.registry import strategy_of

        adapter = adapter_for(model)
        layers = FeatureOptions().layers_of(adapter.vision_layers, adapter.own_layer, adapter.taps)
        return CalibrationOptions(
            strategy=strategy_of(self.table.calibration.strategy),
            space=recipe_space(layers, adapter.own_layer, self.table.calibration, name),
            refine=name != CALIBRATED[0],
            model_name=f"{REFERENCE} ({WATERMARK})",
            seed=self.seed,
            anyway=True,
        )

    def _beside(self, found: "Mapping[str, Artifact]") -> "dict[str, Artifact]":
        from clasp_calib.artifacts.one_part import one_part

        others = {name: artifact for name, artifact in found.items() if name != CALIBRATED[0]}
        return {**others, **({FUSION: one_part(found[CALIBRATED[0]], FUSION)} if self.table.has_fusion else {})}

    def _ablated(self, model: Any, processor: Any, artifact: "Artifact", samples: Any) -> ReproductionReport:
        """The ablation that the paper's table is one of, on the test split."""
        from clasp_calib.api.studied import StudyOptions

        places = Places(features=self.root / "cache", evaluation=self.root / "evaluation")
        options = StudyOptions(seed=self.seed)
        name = self.table.recipe.kind
        given = (name, model, processor, artifact, samples)
        done = ablate(*given, budgets=self.budgets, run=places, options=options, crew=self.crew)
        (budget,) = self.budgets
        header, rows = done.rows(budget)
        values = [dict(zip(header, row, strict=True)) for row in rows]
        return self._reported(header, rows, values, [f"Budget {budget}: {note}." for note in done.notes])

    def _compared(self, report: "ComparisonReport") -> ReproductionReport:
        """A row for each of the recipe's, as it was compared."""
        from clasp_calib.artifacts.manifest import MACRO

        recipe, contest = self.table.recipe, report.contest
        refused = {(one.method, one.budget): one.reason for one in report.refusals}
        rows: list[list[str]] = []
        values: list[dict[str, Any]] = []
        notes = []
        timed = bool(report.costs)
        for row in recipe.rows:
            budget = recipe.rehearsal[row.budget] if row.budget else self.budgets[0]
            method = _ENTRANTS.get(row.by, row.by)
            name = f"{row.group}: {row.name}" if row.group else row.name
            told = {"row": row.name, "group": row.group, "by": row.by, "budget": row.budget and budget}
            entrant = next((one for one in contest.at(budget) if one.method == method), None)
            if entrant is None:
                notes.append(f"{name}: {refused.get((method, budget), 'did not take part')}")
                rows.append([name, (row.budget and budget) or "", *[NOTHING] * (4 if timed else 3)])
                values.append(told)
                continue
            score = contest.comparison(budget).table()[method][MACRO]
            tokens, flops = contest.tokens(entrant), contest.flops(entrant)
            cost = report.costs.get((entrant.method, entrant.budget))
            rows.append(
                [
                    name,
                    (row.budget and budget) or "",
                    f"{100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]",
                    str(tokens),
                    f"{flops / 1e9:.2f}",
                    *([f"{1000 * cost.seconds:.1f}" if cost else NOTHING] if timed else []),
                ]
            )
            measured = {"score": vars(score), "tokens": vars(tokens), "decoder_flops": flops}
            values.append({**told, **measured, **({"prefill_seconds": cost.seconds} if cost else {})})
        header = ["row", "budget", "score %", "tokens a layer", "decoder GFLOP", *(["prefill ms"] if timed else [])]
        return self._reported(header, rows, values, notes)

    def _reported(self, header: Any, rows: Any, values: Any, notes: Any) -> ReproductionReport:
        calibrating, testing = self.pictures
        told = (
            f"Calibrated on the questions of {calibrating} drawn pictures and tested on those of {testing}; scores are "
            "means over the classes, with 95 % intervals by picture."
        )
        recipe = self.table.recipe
        return ReproductionReport(recipe.table, recipe.title, True, header, rows, values, [told, *notes])


class _Steps:
    """Says which step of how many begins."""

    def __init__(self, total: int):
        self._total, self._begun = total, 0

    @contextmanager
    def step(self, told: str) -> Iterator[None]:
        self._begun += 1
        note(f"[{self._begun}/{self._total}] {told}")
        yield
