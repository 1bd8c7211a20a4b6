"""A whole calibration at one budget: all classes searched, the result assembled into an artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.files import MANIFEST, check_fits, check_place, read_artifact
from clasp_calib.artifacts.manifest import BudgetEntry, ClassChoice, Decoding, Manifest, Provenance
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.artifacts.study import Trial, joined, with_trials
from clasp_calib.calib.dataset import by_class, of_split
from clasp_calib.calib.evaluator import MAX_NEW_TOKENS, Evaluator, Pruning
from clasp_calib.calib.metrics import EXACT
from clasp_calib.calib.prompting import Prompter
from clasp_calib.calib.sources import open_source
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.progress import progress
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.schedule import Budget, Schedule, decoder_flops, solve_schedule
from clasp_calib.search.engine import FINALISTS, Choice, search_class
from clasp_calib.search.identity import text_settings, weights_digest
from clasp_calib.search.ledger import Ledger, open_storage
from clasp_calib.search.space import OWN, default_space, read_space, write_space
from clasp_calib.search.strategies.base import Strategy
from clasp_calib.search.strategies.registry import describe

SCORING = 1
"""Raised when the same candidate scores otherwise than before, so that old journals are not taken up."""
TAU = 1.0
"""Our choice: mixtures are stored, scores are derived from them, and with tau = 1 these are plain log weights."""


@dataclass(frozen=True)
class SearchRequest:
    """Everything that a calibration is asked for, but the budget."""

    model: str
    prompt: str
    samples: tuple[Sample, ...]
    samples_hash: str
    classes: tuple[str, ...]
    taxonomy: Mapping[str, str]
    """Intent -> class."""
    taxonomy_hash: str
    cache: Path | None
    """None runs the vision tower whenever a picture is looked at."""
    study: Path
    artifact: Path
    space: Path | None
    per_class: int
    starts: tuple[int, ...]
    strategy: Strategy
    seed: int


class Calibration:
    """Searches budgets for one model on one set of samples.

    Raises:
        CacheError: the cache is missing, of another encoder, or lacks layers or pictures.
        InputError: no calibration samples, or a space that does not fit the tower.
        ArtifactError: there is an artifact of another model where the result would go.
    """

    def __init__(self, model: Any, processor: Any, request: SearchRequest):
        self._request, self._model = request, model
        self._adapter = adapter_for(model)
        own = self._adapter.own_layer
        self._source = source = open_source(request.cache, model, processor)
        self._space = read_space(request.space) if request.space else default_space(source.layers, own)
        self._candidates = self._space.candidates(self._adapter.vision_layers, own)
        self._features = source.at(tuple(sorted({*self._space.layers, own})))
        self._calibration = self._split("calibration", required=True)
        self._selection = self._split("selection", required=False)
        self._features.check([s for split in (self._calibration, self._selection) for of in split.values() for s in of])
        self._prompter = Prompter(processor, self._adapter.tokens_per_image, request.prompt)
        self._evaluator = Evaluator(model, self._prompter, self._features)
        self._weights = weights_digest(model)
        check_place(request.artifact)
        self._previous = read_artifact(request.artifact) if (request.artifact / MANIFEST).exists() else None
        if self._previous:
            check_fits(self._previous, model.config)

    def schedule(self, budget: Budget) -> Schedule:
        """The stages of a budget for this model.

        Raises:
            BudgetError: it cannot be met.
        """
        return solve_schedule(
            budget, self._adapter.tokens_per_image, self._adapter.decoder_layers, self._request.starts
        )

    def plan(self, budget: Budget) -> dict[str, object]:
        """What a search of this budget will do and at most cost."""
        schedule = self.schedule(budget)
        text = self._model.config.get_text_config()
        evaluations = sum(map(self._most, self._calibration))
        flops = decoder_flops(schedule, text.hidden_size, text.intermediate_size)
        return {
            "budget": budget.name,
            "stage counts": list(schedule.counts),
            "mean tokens": round(schedule.mean_tokens, 2),
            "candidates a class": len(self._candidates),
            "classes": len(self._calibration),
            "calibration samples": sum(map(len, self._calibration.values())),
            "selection samples": sum(map(len, self._selection.values())),
            "evaluations at most": evaluations,
            "TFLOP of the decoder at most": round(evaluations * flops / 1e12, 3),
        }

    def write_space(self, path: Path) -> None:
        """Write the search space for a user to edit."""
        write_space(self._space, path)

    def run(self, budget: Budget) -> Artifact:
        """Search all classes, and give the artifact with this budget added or replaced.

        Raises:
            ArtifactError: the artifact that is there was made with other settings.
            StudyError: so were the scores in the study.
        """
        schedule = self.schedule(budget)
        pruning = Pruning(schedule)
        # Refuses now what it would have to refuse after hours.
        self._assemble(budget, schedule, pruning, {}).joined(self._previous)
        storage = open_storage(self._request.study)
        ledgers = {
            label: Ledger(storage, f"{budget.name}/{label}", self._candidates, self._setup(schedule, pruning, label))
            for label in self._calibration
        }
        choices: dict[str, Choice] = {}
        with progress() as bar:
            for label, ledger in ledgers.items():
                note = f" (resuming after {ledger.recorded} scores)" if ledger.recorded else ""
                task = bar.add_task(f"{budget.name} {label}{note}", total=self._most(label))
                choices[label] = search_class(
                    self._evaluator,
                    pruning,
                    self._candidates,
                    self._calibration[label],
                    self._selection.get(label, []),
                    ledger,
                    self._request.strategy,
                    self._request.seed,
                    lambda count, task=task: bar.advance(task, count),  # type: ignore[misc]
                )
        found = self._assemble(budget, schedule, pruning, choices)
        found = with_trials(found, [t for label, choice in choices.items() for t in _trials(budget, label, choice)])
        self._previous = joined(found.joined(self._previous), self._previous)
        return self._previous

    def _most(self, label: str) -> int:
        """The most evaluations that the search of a class takes: its strategy, and the final."""
        search = self._request.strategy.most(len(self._candidates), len(self._calibration[label]))
        return search + len(self._selection.get(label, ())) * (FINALISTS + 1)

    def _split(self, split: str, required: bool) -> dict[str, list[Sample]]:
        if not required and not any(s.split == split for s in self._request.samples):
            return {}
        samples = of_split(self._request.samples, split)
        return by_class(samples, self._request.classes, self._request.per_class, self._request.seed)

    def _setup(self, schedule: Schedule, pruning: Pruning, label: str) -> dict[str, Any]:
        """Everything that a recorded score depends on."""
        samples = [
            [
                *(s.split, s.id, self._features.key(s), s.metric, list(s.answers)),
                self._prompter.prompt(s.question),
                [self._prompter.answer(s.question, answer) for answer in s.answers],
            ]
            for split in (self._calibration, self._selection)
            for s in split.get(label, [])
        ]
        return {
            "scoring": SCORING,
            "fingerprint": model_shape(self._model.config).fingerprint,
            "text": text_settings(self._model.config),
            "encoder": self._source.encoder,
            "precision": self._source.precision,
            "weights": self._weights,
            "pruning": [pruning.raters, pruning.positions, pruning.features, pruning.iterations],
            "schedule": [schedule.tokens, schedule.layers, list(schedule.starts), list(schedule.counts)],
            "space": self._space.digest,
            "samples": sha256_json(samples),
            "strategy": describe(self._request.strategy),
            "seed": self._request.seed,
        }

    def _assemble(
        self, budget: Budget, schedule: Schedule, pruning: Pruning, choices: Mapping[str, Choice]
    ) -> Artifact:
        request, default = self._request, self._candidates[0]
        unsearched = ClassChoice(
            prototype=OWN,
            candidates=1,
            evaluations=0,
            calibration=None,
            selection=None,
            selection_default=None,
        )
        entry = BudgetEntry(
            name=budget.name,
            counts=schedule.counts,
            mean_tokens=schedule.mean_tokens,
            choices={
                label: _recorded(choices[label], len(self._candidates)) if label in choices else unsearched
                for label in request.classes
            },
        )
        found = [choices[label].candidate if label in choices else default for label in request.classes]
        provenance = Provenance(
            samples=request.samples_hash,
            labels=sha256_json([[sample.id, sample.label] for sample in request.samples]),
            cache_encoder=self._source.encoder,
            space=self._space.digest,
            taxonomy=request.taxonomy_hash,
            strategy=describe(request.strategy),
            metric=", ".join(sorted({s.metric or EXACT for of in self._calibration.values() for s in of})),
            seed=request.seed,
            versions={name: version(name) for name in ("clasp-calib", "torch", "transformers")},
        )
        shape = model_shape(self._model.config)
        manifest = Manifest(
            name=f"{Path(request.model).name}-clasp",
            model=request.model,
            revision=getattr(self._model.config, "_commit_hash", None),
            shape=shape,
            fingerprint=shape.fingerprint,
            classes=request.classes,
            taxonomy=dict(request.taxonomy),
            starts=schedule.starts,
            tau=TAU,
            raters=pruning.raters,
            positions=pruning.positions,
            features=pruning.features,
            iterations=pruning.iterations,
            prompt=request.prompt,
            decoding=Decoding(do_sample=False, max_new_tokens=MAX_NEW_TOKENS),
            budgets=(entry,),
            provenance={budget.name: provenance},
            files={},
        )
        alphas = np.array([[c.alpha for c in found]], dtype=np.float32)
        rhos = np.array([[c.rho for c in found]], dtype=np.float32)
        return Artifact(manifest, alphas, rhos)


def _recorded(choice: Choice, candidates: int) -> ClassChoice:
    return ClassChoice(
        prototype=choice.candidate.prototype,
        candidates=candidates,
        evaluations=choice.evaluations,
        calibration=choice.calibration,
        selection=choice.selection,
        selection_default=choice.selection_default,
    )


def _trials(budget: Budget, label: str, choice: Choice) -> list[Trial]:
    return [
        Trial(
            budget.name,
            label,
            course.candidate.name,
            course.candidate.prototype,
            course.candidate.rho,
            "chosen" if number == choice.winner else "finalist" if course.selection else "rejected",
            len(course.calibration),
            sum(course.calibration) / len(course.calibration),
            sum(course.selection) / len(course.selection) if course.selection else None,
        )
        for number, course in enumerate(choice.courses)
        if course.calibration
    ]
