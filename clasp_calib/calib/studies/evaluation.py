"""An artifact against no pruning, default and random pruning, and other ways to choose, at each of its budgets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.evidence import SampleScore, with_scores
from clasp_calib.artifacts.fits import check_shape
from clasp_calib.artifacts.manifest import CALIBRATED, Measured, Score
from clasp_calib.baselines.random_pruning import NAME as RANDOM
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import Source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.sizes import in_sizes_of
from clasp_calib.calib.studies.comparison import Comparison, Setting, compare
from clasp_calib.calib.studies.corpus import corpus_intervals
from clasp_calib.calib.studies.intervals import Interval
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.calib.studies.timing import seconds_per_answer
from clasp_calib.common.errors import ArtifactError
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.common.token_range import TokenRange
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import picture_tokens, schedule_for
from clasp_calib.runtime.layer_tokens import tokens_a_layer
from clasp_calib.runtime.schedule import AnySchedule, Budget, Schedule, parse_budget
from clasp_calib.runtime.selectors import as_recorded

UNPRUNED, DEFAULT, PAPER = "unpruned", "default", "paper rho"
SETTINGS = (UNPRUNED, DEFAULT, RANDOM, CALIBRATED)
"""Compared and timed always."""
DRAWS = 3
"""Of random pruning for each sample; its score is their mean."""
DRAWN = tuple(f"{RANDOM} {draw}" for draw in range(DRAWS))
PAPER_RHO = dict(zip(CLASSES, (0.8, 0.4, 0.7, 0.7, 0.7, 0.6, 0.8, 0.2, 0.9), strict=True))
"""The paper's ratios, its Table 6; the mixtures that go with them are not known, so the model's own layer stands in."""


@dataclass(frozen=True)
class BudgetResult:
    """What was measured at one budget."""

    budget: str
    schedule: AnySchedule
    pictures: TokenRange
    """Visual tokens of a question, of all its pictures."""
    a_layer: TokenRange
    """Those that a decoder layer works on, with pruning."""
    calibrated: TokenRange
    """The same of the calibrated setting, which may show smaller pictures and stay below the budget with them."""
    scores: Mapping[str, Mapping[str, Interval]]
    """Setting -> class or ``macro`` -> mean score."""
    gain: Mapping[str, Interval]
    """Class or ``macro`` -> calibrated minus default, paired."""
    seconds: Mapping[str, float]
    """Setting -> median seconds of one answer; empty if nothing was timed."""
    answers: Sequence[SampleScore] = ()
    """What every setting scored on every sample."""
    corpus: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """Setting -> corpus metric -> value, of the samples whose metric has such."""

    @property
    def title(self) -> str:
        """One line that says what the budget means."""
        if not isinstance(self.schedule, Schedule):
            return f"budget {self.budget}: shares of {self.pictures} visual tokens, {self.a_layer} a layer on average"
        kept, each = " / ".join(map(str, self.schedule.counts)), self.schedule.tokens
        if self.pictures.most == each:
            return f"budget {self.budget}: {kept} of {each} visual tokens, {self.a_layer} a layer on average"
        number = TokenRange(*(tokens / each for tokens in vars(self.pictures).values()))
        return (
            f"budget {self.budget}: {kept} of {each} visual tokens a picture, {self.schedule.mean_tokens:.1f} a layer "
            f"on average; {number} pictures a question"
        )

    @property
    def counts(self) -> tuple[int, ...] | None:
        """Tokens kept at the stages; ``None`` where pictures differ in their number, and each has its own."""
        return self.schedule.counts if isinstance(self.schedule, Schedule) else None

    def tokens(self, setting: str) -> TokenRange:
        """Visual tokens that a decoder layer works on."""
        return {UNPRUNED: self.pictures, CALIBRATED: self.calibrated}.get(setting, self.a_layer)


@dataclass(frozen=True)
class Evaluation:
    """What was measured at all budgets."""

    budgets: tuple[BudgetResult, ...]

    def at(self, budget: str) -> BudgetResult:
        """The results of one budget.

        Raises:
            ArtifactError: it was not evaluated.
        """
        for result in self.budgets:
            if result.budget == budget:
                return result
        raise ArtifactError(
            f"budget {budget!r} was not evaluated (there are {', '.join(r.budget for r in self.budgets)}); "
            "choose one of these"
        )

    def recorded_in(self, artifact: Artifact, measured: Measured) -> Artifact:
        """The artifact with these results (scores only: durations would change its bytes), and what they are of."""
        results = {result.budget: {"results": _scores(result), "measured": measured} for result in self.budgets}
        entries = tuple(e.model_copy(update=results.get(e.name, {})) for e in artifact.manifest.budgets)
        artifact = artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": entries}))
        return with_scores(artifact, [row for result in self.budgets for row in result.answers])

    def agrees_with(self, artifact: Artifact) -> bool:
        """Whether the artifact records the very same results for these budgets."""
        return all(artifact.entry(r.budget).results == _scores(r) for r in self.budgets)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "budgets": [
                {
                    "budget": result.budget,
                    "counts": result.counts,
                    "mean_tokens": result.a_layer.mean,
                    "tokens": vars(result.a_layer),
                    "calibrated_tokens": vars(result.calibrated),
                    "scores": {s: {c: vars(i) for c, i in of.items()} for s, of in result.scores.items()},
                    "gain": {c: vars(i) for c, i in result.gain.items()},
                    "seconds": dict(result.seconds),
                    "corpus": {s: {name: vars(i) for name, i in of.items()} for s, of in result.corpus.items()},
                }
                for result in self.budgets
            ]
        }


def evaluate_artifact(
    scorer: Scorer,
    evaluator: Evaluator,
    model: Any,
    artifact: Artifact,
    budgets: Sequence[str],
    samples: Mapping[str, Sequence[Sample]],
    seed: int,
) -> Evaluation:
    """Score all settings; `with_seconds` times them.

    Args:
        scorer: of evaluators as of `evaluator_for`.
        evaluator: counts tokens in this process.
        model: the model that the artifact was made for.
        artifact: what to evaluate.
        budgets: which of its budgets.
        samples: by class.
        seed: of random pruning, `DRAWS` times, and of the bootstrap.

    Raises:
        ArtifactError: the artifact is of another model.
        StudyError: workers died too often.
    """
    check_shape(artifact, model.config)
    settings = {name: _settings(model, artifact, name, seed) for name in budgets}
    every = compare(scorer, [one for of in settings.values() for one in of], samples, seed)
    flat = [sample for of in samples.values() for sample in of]
    tokens = [evaluator.tokens(sample) for sample in flat]
    results, first = [], 0
    for name, of in settings.items():
        found = every.part(range(first, first + len(of)), [setting.name for setting in of])
        first += len(of)
        compared = found.averaged(RANDOM, DRAWN)
        runs = {s: found.rows(DRAWN if s == RANDOM else [s]) for s in compared.settings}
        corpus = {s: corpus_intervals(rows, flat, seed) for s, rows in runs.items()}
        gain, answers = compared.difference(CALIBRATED, DEFAULT), tuple(_answers(name, compared))
        schedule = of[-1].pruning.schedule
        assert schedule is not None
        (calibrated,) = [setting for setting in of if setting.name == CALIBRATED]
        each = picture_tokens(adapter_for(model))
        ours = TokenRange.of([_a_layer(calibrated, evaluator, sample, parse_budget(name), each) for sample in flat])
        sizes = TokenRange.of(tokens), tokens_a_layer(schedule, tokens), ours
        results.append(BudgetResult(name, schedule, *sizes, compared.table(), gain, {}, answers, corpus))
    return Evaluation(tuple(results))


def _a_layer(setting: Setting, evaluator: Evaluator, sample: Sample, budget: Budget, each: int | None) -> float:
    """Visual tokens of a sample that a decoder layer works on, in the size that it is shown in.

    The knobs of other selectors are solved for as many as the ``budget`` says of pictures that have ``each`` tokens, or
    ``None``: any number.
    """
    candidate = setting.candidates[str(sample.label)]
    share = candidate.downsample
    if candidate.selector is not None:
        tokens = evaluator.tokens(sample, share)
        return budget.of(each or tokens) * tokens / (each or tokens)
    schedule = setting.pruning.of_smaller(share).schedule
    assert schedule is not None
    return tokens_a_layer(schedule, [evaluator.tokens(sample, share)]).mean


def with_seconds(
    evaluation: Evaluation,
    model: Any,
    processor: Any,
    artifact: Artifact,
    samples: Mapping[str, Sequence[Sample]],
    timed: int,
) -> Evaluation:
    """An evaluation with the seconds of an answer under each of `SETTINGS`, measured in this process and one by one.

    Args:
        evaluation: of the artifact.
        model: the model that the artifact was made for.
        processor: its processor.
        artifact: what was evaluated.
        samples: by class.
        timed: how many answers to time for each setting, of all classes in turn.
    """
    in_turns = [sample for row in zip_longest(*samples.values()) for sample in row if sample is not None]
    prompter = Prompter(processor, model, artifact.manifest.prompt)
    results = []
    for result in evaluation.budgets:
        # Whatever is drawn takes as long.
        of = {setting.name: setting for setting in _settings(model, artifact, result.budget, seed=0)}
        ones = [of[UNPRUNED], of[DEFAULT], replace(of[DRAWN[0]], name=RANDOM), of[CALIBRATED]]
        seconds = seconds_per_answer(model, processor, prompter, ones, in_turns[:timed])
        results.append(replace(result, seconds=seconds))
    return Evaluation(tuple(results))


def _settings(model: Any, artifact: Artifact, budget: str, seed: int) -> list[Setting]:
    """All that are compared at a budget: no pruning, default, random pruning from several seeds, ours, and others."""
    adapter = adapter_for(model)
    own = tuple(float(layer == adapter.own_layer) for layer in range(adapter.vision_layers + 1))
    default = dict.fromkeys(artifact.classes, Candidate(DEFAULT, own, 1.0))
    calibrated = calibrated_setting(model, artifact, budget)
    pruning = calibrated.pruning
    drawn = [
        Setting(name, pruning, {c: replace(one, drawn=seed * DRAWS + draw) for c, one in default.items()})
        for draw, name in enumerate(DRAWN)
    ]
    others = [Setting(name, pruning, of) for name, of in _others(model, artifact, budget, own).items()]
    unpruned = Setting(UNPRUNED, Pruning(None), default)
    return [unpruned, Setting(DEFAULT, pruning, default), *drawn, calibrated, *others]


def _others(model: Any, artifact: Artifact, budget: str, own: tuple[float, ...]) -> dict[str, dict[str, Candidate]]:
    """Settings that nobody serves, to judge the calibrated one by: name -> class -> candidate."""
    found = {}
    if set(artifact.classes) <= PAPER_RHO.keys():
        found[PAPER] = {label: Candidate(PAPER, own, PAPER_RHO[label]) for label in artifact.classes}
    for name, of in artifact.entry(budget).alternatives.items():
        found[name] = {}
        for label, one in of.items():
            weights = dict(zip(one.layers, one.weights, strict=True))
            alpha = tuple(weights.get(layer, 0.0) for layer in range(len(own)))
            seeding = one.seeding or artifact.manifest.seeding
            choice = as_recorded(one.selector.choice if one.selector else None, model, budget)
            found[name][label] = Candidate(name, alpha, one.rho, seeding, one.relevance, one.downsample, choice)
    return found


def evaluator_for(model: Any, processor: Any, artifact: Artifact, shown: Sequence[Sample], source: Source) -> Evaluator:
    """An evaluator with everything that the artifact's settings need for samples as of `shown_by`.

    Raises:
        CacheError: a picture or a layer is not cached.
    """
    features = source.at(layers_used(model, artifact))
    features.check(shown)
    prompter = Prompter(processor, model, artifact.manifest.prompt)
    return Evaluator(model, prompter, features, artifact.manifest.decoding.max_new_tokens)


def shown_by(
    model: Any,
    processor: Any,
    artifact: Artifact,
    samples: Sequence[Sample],
    budgets: Sequence[str],
    *,
    routed: bool = False,
) -> list[Sample]:
    """Samples as they are, and in every size in which an artifact's settings at some budgets show their class.

    Args:
        model: the model that the artifact was made for.
        processor: its processor.
        artifact: whose settings are used.
        samples: of its classes.
        budgets: some of its budgets.
        routed: samples may be taken for those of other classes.

    Raises:
        BudgetError: a picture cannot be made small enough.
        InputError: a picture cannot be read, or is a video.
    """
    shares: dict[str, set[float | None]] = {label: set() for label in artifact.classes}
    for entry in map(artifact.entry, budgets):
        for label, choice in entry.choices.items():
            shares[label].add(choice.downsample)
        for of in entry.alternatives.values():
            for label, one in of.items():
                shares[label].add(one.downsample)
    if routed:
        shares = dict.fromkeys(shares, set().union(*shares.values()))
    return in_sizes_of(model, processor, samples, lambda sample: filter(None, shares[str(sample.label)]))


def layers_used(model: Any, artifact: Artifact) -> tuple[int, ...]:
    """The vision layers that the artifact's settings mix, and the model's own, ascending."""
    adapter = adapter_for(model)
    used = {layer for layer in range(adapter.vision_layers + 1) if artifact.alphas[..., layer].any()}
    for entry in artifact.manifest.budgets:
        used |= {layer for of in entry.alternatives.values() for one in of.values() for layer in one.layers}
    return tuple(sorted({*used, adapter.own_layer}))


def calibrated_setting(model: Any, artifact: Artifact, budget: str) -> Setting:
    """What the artifact prescribes at one of its budgets; a selector with other knobs than solved is refused."""
    candidates = {
        label: Candidate(
            CALIBRATED,
            artifact.alpha(budget, label),
            artifact.rho(budget, label),
            artifact.seeding(budget, label),
            artifact.entry(budget).choices[label].relevance,
            artifact.downsample(budget, label),
            as_recorded(artifact.selector(budget, label), model, budget),
        )
        for label in artifact.classes
    }
    pruning = Pruning(schedule_for(model, budget, artifact=artifact), artifact.pruning)
    return Setting(CALIBRATED, pruning, candidates)


def _scores(result: BudgetResult) -> dict[str, dict[str, Score]]:
    return {setting: {label: Score(**vars(i)) for label, i in of.items()} for setting, of in result.scores.items()}


def _answers(budget: str, compared: Comparison) -> Iterator[SampleScore]:
    numbers = {picture: number for number, picture in enumerate(dict.fromkeys(compared.pictures))}
    rows = zip(compared.labels, compared.samples, compared.pictures, compared.scores.T, strict=True)
    for label, sample, picture, scores in rows:
        for setting, score in zip(compared.settings, scores, strict=True):
            yield SampleScore(budget, setting, label, sample, numbers[picture], float(score))
