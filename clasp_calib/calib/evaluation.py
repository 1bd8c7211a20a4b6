"""An artifact against no pruning, default pruning and random pruning, at each of its budgets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.files import check_fits
from clasp_calib.artifacts.manifest import Score
from clasp_calib.baselines.random_pruning import RandomPruning
from clasp_calib.calib.candidate import Candidate
from clasp_calib.calib.compare import Comparison, Setting, compare
from clasp_calib.calib.evaluator import Evaluator, Pruning
from clasp_calib.calib.features import CachedFeatures, open_cache
from clasp_calib.calib.intervals import Interval
from clasp_calib.calib.prompting import Prompter
from clasp_calib.calib.timing import seconds_per_answer
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.selection import Selector

UNPRUNED, DEFAULT, RANDOM, CALIBRATED = "unpruned", "default", "random", "calibrated"
SETTINGS = (UNPRUNED, DEFAULT, RANDOM, CALIBRATED)


@dataclass(frozen=True)
class BudgetResult:
    """What was measured at one budget."""

    budget: str
    schedule: Schedule
    scores: Mapping[str, Mapping[str, Interval]]
    """Setting -> class or ``macro`` -> mean score."""
    gain: Mapping[str, Interval]
    """Class or ``macro`` -> calibrated minus default, paired."""
    seconds: Mapping[str, float]
    """Setting -> median seconds of one answer; empty if nothing was timed."""

    @property
    def title(self) -> str:
        """One line that says what the budget means."""
        counts, of = " / ".join(map(str, self.schedule.counts)), self.schedule.tokens
        return (
            f"budget {self.budget}: {counts} of {of} visual tokens, {self.schedule.mean_tokens:.1f} a layer on average"
        )

    def tokens(self, setting: str) -> float:
        """Mean visual tokens that a decoder layer works on."""
        return float(self.schedule.tokens) if setting == UNPRUNED else self.schedule.mean_tokens


@dataclass(frozen=True)
class Evaluation:
    """What was measured at all budgets."""

    budgets: tuple[BudgetResult, ...]

    def recorded_in(self, artifact: Artifact) -> Artifact:
        """The artifact with these results in its manifest (scores only: durations would change its bytes)."""
        measured = {result.budget: _scores(result) for result in self.budgets}
        entries = tuple(
            entry.model_copy(update={"results": measured.get(entry.name, entry.results)})
            for entry in artifact.manifest.budgets
        )
        return artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": entries}))

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "budgets": [
                {
                    "budget": result.budget,
                    "counts": result.schedule.counts,
                    "mean_tokens": result.schedule.mean_tokens,
                    "scores": {s: {c: vars(i) for c, i in of.items()} for s, of in result.scores.items()},
                    "gain": {c: vars(i) for c, i in result.gain.items()},
                    "seconds": dict(result.seconds),
                }
                for result in self.budgets
            ]
        }


def evaluate_artifact(
    model: Any,
    processor: Any,
    artifact: Artifact,
    budgets: Sequence[str],
    samples: Mapping[str, Sequence[Sample]],
    cache: Path,
    seed: int,
    timed: int,
) -> Evaluation:
    """Score and time all settings.

    Args:
        model: the model that the artifact was made for.
        processor: its processor.
        artifact: what to evaluate.
        budgets: which of its budgets.
        samples: by class.
        cache: feature cache that holds the samples' pictures.
        seed: of random pruning and of the bootstrap.
        timed: how many answers to time for each setting, of all classes in turn.

    Raises:
        ArtifactError: the artifact is of another model.
        CacheError: a picture or a layer is not cached.
    """
    check_fits(artifact, model.config)
    adapter = adapter_for(model)
    used = {layer for layer in range(adapter.vision_layers + 1) if artifact.alphas[..., layer].any()}
    store = open_cache(cache, model, processor)
    features = CachedFeatures(store, tuple(sorted({*used, adapter.own_layer})))
    flat = [sample for of in samples.values() for sample in of]
    features.check(flat)
    in_turns = [sample for row in zip_longest(*samples.values()) for sample in row if sample is not None]
    prompter = Prompter(processor, adapter.tokens_per_image, artifact.manifest.prompt)
    evaluator = Evaluator(model, prompter, features)
    own = tuple(float(layer == adapter.own_layer) for layer in range(adapter.vision_layers + 1))
    default = dict.fromkeys(artifact.classes, Candidate(DEFAULT, own, 1.0))
    unpruned = compare(evaluator, [Setting(UNPRUNED, Pruning(None), default)], samples, seed)
    results = []
    for name in budgets:
        schedule = Schedule(adapter.tokens_per_image, adapter.decoder_layers, artifact.starts, artifact.counts(name))
        pruning = Pruning(schedule, artifact.raters, artifact.positions, artifact.iterations)
        at_random = Pruning(schedule, artifact.raters, artifact.positions, selector_for=random_for(seed))
        calibrated = {
            label: Candidate(CALIBRATED, artifact.alpha(name, label), artifact.rho(name, label))
            for label in artifact.classes
        }
        settings = [
            Setting(DEFAULT, pruning, default),
            Setting(RANDOM, at_random, default),
            Setting(CALIBRATED, pruning, calibrated),
        ]
        compared = _beside(unpruned, compare(evaluator, settings, samples, seed))
        everything = [Setting(UNPRUNED, Pruning(None), default), *settings]
        seconds = seconds_per_answer(model, processor, prompter, everything, in_turns[:timed]) if timed else {}
        gain = compared.difference(CALIBRATED, DEFAULT)
        results.append(BudgetResult(name, schedule, compared.table(), gain, seconds))
    return Evaluation(tuple(results))


def random_for(seed: int) -> Callable[[Sample], Selector]:
    """Random pruning whose choice depends on the seed and the sample alone, not on what was scored before."""

    def selector(sample: Sample) -> Selector:
        return RandomPruning(int(sha256_json([seed, sample.id])[:15], 16))

    return selector


def _beside(first: Comparison, second: Comparison) -> Comparison:
    import numpy as np

    scores = np.concatenate([first.scores, second.scores])
    return Comparison(first.settings + second.settings, scores, first.labels, first.pictures, first.seed)


def _scores(result: BudgetResult) -> dict[str, dict[str, Score]]:
    return {setting: {label: Score(**vars(i)) for label, i in of.items()} for setting, of in result.scores.items()}
