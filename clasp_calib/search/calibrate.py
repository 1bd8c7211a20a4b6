"""A whole calibration: all classes searched at all budgets, the results assembled into an artifact."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from clasp_calib.artifacts.artifact import Artifact, artifact_at
from clasp_calib.artifacts.checkpoint_digest import checkpoint_of, revision_of
from clasp_calib.artifacts.consistency import check_router
from clasp_calib.artifacts.evidence import joined
from clasp_calib.artifacts.fits import check_shape
from clasp_calib.artifacts.manifest import Decoding, Provenance, hashed
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.metrics import EXACT
from clasp_calib.calib.scoring.objective import METRIC
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.score_tasks import EvaluatorRecipe, ModelRecipe
from clasp_calib.calib.scoring.sizes import in_every_size
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.places import Places
from clasp_calib.common.progress import note
from clasp_calib.common.samples import Sample
from clasp_calib.common.selector_choice import AUTO, CLASP
from clasp_calib.crew.crew import Crew, crew_for
from clasp_calib.crew.tasks import Workers
from clasp_calib.router_labeling.router import Router
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.checks import check_relevances, settled
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.schedule import Budget, parse_budget
from clasp_calib.search.allotment import Allotment, allotted
from clasp_calib.search.assemble import assembled, versions
from clasp_calib.search.calibration_options import CalibrationOptions
from clasp_calib.search.engine import Found
from clasp_calib.search.first_look import look_first
from clasp_calib.search.identity import Identity, common_setting, contents_of
from clasp_calib.search.measuring import Desk, Fed
from clasp_calib.search.parts import counts, pools_of, undecided
from clasp_calib.search.refine import most
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.search_plan import contents, seconds_of
from clasp_calib.search.served_alike import check_served_as_scored
from clasp_calib.search.session import Session
from clasp_calib.search.shortlist import KEPT, FirstRound, able, contenders, first_asks, first_space
from clasp_calib.search.solved_selectors import solved_for, solved_where_met
from clasp_calib.search.space import SearchSpace, SpaceSelector, default_space
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.registry import describe, fitting
from clasp_calib.search.trials import trials_in
from clasp_calib.search.watchers import Watcher

TAU = 1.0
"""Our choice: mixtures are stored, scores are derived from them, and with tau = 1 these are plain log weights."""
Solve = Callable[[Sequence[Candidate], Any, Budget, bool], list[Candidate]]
GLOBAL, EXHAUSTIVE = "global", "exhaustive"


class Calibration:
    """Searches budgets for one model on one set of samples.

    Args:
        model: in evaluation mode.
        processor: the model's.
        samples: of all splits, checked by `clasp_calib.calib.dataset`.
        samples_digest: what the artifact says they are.
        options: how to search.
        places: where features are and results go.
        crew: who scores.

    Attributes:
        places: where features are and results go.
        base_space: the search space without the lattice.

    Raises:
        CacheError: the cache is missing, of another encoder, or lacks layers or pictures.
        InputError: no calibration samples, a space that does not fit the tower, or workers that cannot load the model.
        ArtifactError: there is an artifact of another model where the result would go.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        samples: Sequence[Sample],
        samples_digest: str,
        options: CalibrationOptions,
        places: Places,
        crew: Crew,
    ):
        self._adapter = adapter_for(model)
        self._pruning = pruning = settled(model, self._adapter, options.pruning)
        self._model, self._processor, self._samples, self._samples_digest = model, processor, samples, samples_digest
        self._options, self.places, self._crew = options, places, crew
        self._shortlist: list[str] | None = None
        crew.check_reaches(model)
        own = self._adapter.own_layer
        self._source = source = open_source(places.features, model, processor)
        given = options.space if isinstance(options.space, SearchSpace) else None
        base = given or default_space(source.layers, own, pruning.seeding)
        self.base_space = base = base if options.method in (None, AUTO) else base.of_method(options.method)
        wide = base.with_lattice(options.lattice) if options.lattice else base
        self._search_in(wide.of_method(CLASP) if options.method == AUTO else wide)
        check_relevances(model, self._adapter, self._space.relevances)
        self._features = source.at(tuple(sorted({*self._space.layers, own})))
        self._classes = options.class_source.classes(sample.label for sample in samples)
        self._pools = pools_of(samples, self._classes.names, options.per_class, options.seed)
        self._searched_on = [sample for pool in self._pools.values() for sample in pool]
        self._strategy = options.strategy or fitting([len(pool) for pool in self._pools.values()])
        self._features.check(in_every_size(model, processor, self._searched_on, self._space.downsamples))
        self._prompter = Prompter(processor, model, options.prompt)
        self._previous = artifact_at(places.artifact)
        if self._previous:
            check_shape(self._previous, model.config)
            before = self._previous.manifest.decoding.max_new_tokens
            self._options = options = options.as_before(before, self._longest(options))
        self._evaluator = Evaluator(model, self._prompter, self._features, options.longest, options.objective)
        self._check_served = partial(check_served_as_scored, model, self._prompter, self._evaluator)
        self._generation = Greedy(model).settings
        self._setting = options.recorded | common_setting(model, source, self._prompter.template, pruning, crew.threads)
        if isinstance(options.router, Router):
            check_router(options.router, self._classes.names, [self._classes.digest])

    def _longest(self, options: CalibrationOptions) -> int:
        """New tokens that the longest accepted answer needs, at least as many as the options say."""
        return max(self._prompter.limit(sample, options.longest) for sample in self._searched_on)

    def summary(self) -> dict[str, Any]:
        """Options, model and samples for a log."""
        told: dict[str, Any] = {"model": self._name, "device": str(self._model.device)}
        told |= {"dtype": str(self._model.dtype), "generation": self._generation}
        told |= {"samples": self._samples_digest, **self._options.summary(), "pruning": vars(self._pruning)}
        return {**told, "crew": vars(self._crew)}

    @property
    def _name(self) -> str:
        """What the artifact calls the model."""
        return self._options.model_name or self._model.config._name_or_path or type(self._model).__name__

    def allotment(self, budget: Budget) -> Allotment:
        """What a budget comes to on this model and these samples.

        Raises:
            BudgetError: it cannot be met.
        """
        schedule = schedule_for(self._model, budget, self._pruning)
        return allotted(budget, schedule, self._searched_on, self._evaluator.tokens, self._space.downsamples)

    def plans(self, budgets: Sequence[Budget]) -> list[dict[str, object]]:
        """What a search of each budget will do and at most cost; a few evaluations are made to tell the time."""
        allotments, first = [self.allotment(budget) for budget in budgets], None
        if self._options.method == AUTO:
            found, first = self._entered(allotments)
            self._search_in(self._space.beside_clasp(sorted(found, key=lambda one: -len(one.choices))[:KEPT]))
        return [self._plan(allotment, first) for allotment in allotments]

    def _plan(self, allotment: Allotment, first: SearchSpace | None) -> dict[str, object]:
        evaluations = sum(self._most(len(pool)) for pool in self._pools.values())
        timed = self._solved(allotment, space=first)
        before = sum(len(ask.live) for ask in first_asks(first, timed, self._pools)) if first else 0
        flops = allotment.flops(self._model.config.get_text_config())
        each = seconds_of(self._evaluator, self._searched_on, timed, Pruning(allotment.schedule, self._pruning))
        seconds = (before + evaluations) * each / self._crew.workers
        return {
            "budget": allotment.budget.name,
            **allotment.told,
            **contents(self._space, self._pruning.rated, first),
            "candidates a class": len(self._candidates),
            "classes": len(self._pools),
            "samples": counts(self._pools, self._samples),
            "cannot be decided": undecided(self._pools, self._classes.names, self._samples),
            "strategy": describe(self._strategy),
            **({"evaluations of the first round": before} if first else {}),
            "evaluations at most": evaluations,
            "of exhaustive": f"{evaluations / (len(self._candidates) * len(self._searched_on)):.0%}",
            "TFLOP of the decoder at most": round((before + evaluations) * flops / 1e12, 3),
            "minutes at most": round(seconds / 60, 1),
        }

    def run(self, budgets: Sequence[Budget], watcher: Watcher | None = None) -> Iterator[Artifact]:
        """Search all classes at one budget after the other; give the artifact with each added or replaced.

        Raises:
            ArtifactError: the artifact that is there was made with other settings.
            BudgetError: a budget cannot be met.
            InputError: the unpruned model answers nothing right, see `clasp_calib.search.first_look`.
            StudyError: the scores in the study are of other settings, or the storage or all workers fail.
        """
        allotments = {budget.name: self.allotment(budget) for budget in budgets}
        # Refuses now what it would have to refuse after hours.
        solved = {name: self._solved(allotment) for name, allotment in allotments.items()}
        for name, allotment in allotments.items():
            self._assemble(allotment, Found({}, solved[name][0], {}, "pooled", ()), {}).joined(self._previous)
            self._check_served(solved[name], Pruning(allotment.schedule, self._pruning), self._searched_on[0])
        options, watcher = self._options, watcher or Watcher()
        show = trials_in(self.places, self._features.layers)
        with closing(ScoreJournal(self.places.study)) as journal:
            desks = {name: self._desk(allotment, journal) for name, allotment in allotments.items()}
            for name, desk in desks.items():
                journal.settle(name, desk.identity.setting, record=False)
            begun = [label for label in self._pools if any(desk.has_begun(label) for desk in desks.values())]
            new = {label: pool for label, pool in self._pools.items() if label not in begun}
            look_first(self._evaluator, self._candidates[0], new, options.anyway)
            for name, desk in desks.items():
                journal.settle(name, desk.identity.setting)
            with closing(crew_for(self._crew, self._evaluator, self._recipe)) as workers:
                first = self._shortened(allotments, desks, workers, watcher) if options.method == AUTO else None
                desks = {name: self._desk(allotment, journal) for name, allotment in allotments.items()}
                shown = partial(show, self._candidates)
                # What is known of fewer tokens tells of more; the other way tells less.
                for name in sorted(desks, key=lambda name: allotments[name].a_layer.mean):
                    session = Session(
                        desks[name], self._strategy, options.seed, options.cautious, options.refine, shown, watcher
                    )
                    fed, asked = self._fed(allotments[name], journal), first.told(desks[name]) if first else ()
                    yield self._joined(allotments[name], session.search(workers, fed, asked))

    def _search_in(self, space: SearchSpace) -> None:
        """Search this space."""
        self._space, self._candidates = space, self._of(space)

    def _of(self, space: SearchSpace) -> list[Candidate]:
        return space.candidates(self._adapter.vision_layers, self._adapter.own_layer, self._pruning.relevance)

    def _entered(self, allotments: Collection[Allotment]) -> tuple[tuple[SpaceSelector, ...], SearchSpace | None]:
        """The selectors that can be searched at these budgets, and their first round, unless there are few anyway."""

        def attempt(selector: SpaceSelector) -> None:
            space = self._space.model_copy(update={"selectors": (selector,)})
            for allotment in allotments:
                candidates = self._solved(allotment, space=space)
                smallest = self._searched_on[allotment.tokens.index(min(allotment.tokens))]
                self._evaluator.scores(smallest, candidates[:1], Pruning(allotment.schedule, self._pruning))
                self._check_served(candidates, Pruning(allotment.schedule, self._pruning), smallest)

        attempt(SpaceSelector(name=CLASP))  # What fails here is not for want of a selector.
        found = able(contenders(self.base_space, self._pruning.profile, self._adapter), attempt)
        wide = self._space.beside_clasp(found)
        return found, first_space(wide, self._adapter.own_layer) if len(found) > KEPT else None

    def _shortened(
        self, allotments: Mapping[str, Allotment], desks: Mapping[str, Desk], workers: Workers, watcher: Watcher
    ) -> FirstRound | None:
        """Search ``clasp`` and the selectors that a first round leaves; the round, if there was one."""
        (found, space), first = self._entered(allotments.values()), None
        if space:
            solved = {name: self._solved(allotment, space=space) for name, allotment in allotments.items()}
            first = FirstRound(space, [replace(desk, candidates=solved[name]) for name, desk in desks.items()])
            best = first.best(workers, watcher)
            found = tuple(selector for selector in found if selector.name in best)
        self._search_in(self._space.beside_clasp(found))
        self._shortlist = [selector.name for selector in found]
        note(f"the search tries clasp{''.join(f', {name}' for name in self._shortlist) or ' alone'}")
        watcher.shortlisted(self._shortlist)
        return first

    @cached_property
    def _contents(self) -> tuple[dict[str, str], dict[str, str]]:
        return contents_of(self._pools, self._prompter, self._features, self._evaluator.prompt)

    def _desk(self, allotment: Allotment, journal: ScoreJournal, solve: Solve = solved_for) -> Desk:
        setting = {**self._setting, "schedule": allotment.setting}
        identity = Identity(setting, *self._contents, self._space.digest, self._options.objective)
        pruning = Pruning(allotment.schedule, self._pruning)
        return Desk(allotment.budget.name, pruning, self._solved(allotment, solve), self._pools, identity, journal)

    def _solved(
        self, allotment: Allotment, solve: Solve = solved_for, space: SearchSpace | None = None
    ) -> list[Candidate]:
        """The candidates at a budget, of another space or the search's: the knobs of other selectors are solved."""
        filmed = any(sample.modality == "video" for sample in self._searched_on)
        return solve(self._of(space) if space else self._candidates, self._model, allotment.budget, filmed)

    def _fed(self, allotment: Allotment, journal: ScoreJournal) -> list[Fed]:
        """What the journal knows of the artifact's budgets of fewer tokens, the nearest first."""
        known = self._previous.budgets if self._previous else ()
        others = [self.allotment(parse_budget(name)) for name in known]
        smaller = [one for one in others if one.a_layer.mean < allotment.a_layer.mean]
        smaller.sort(key=lambda one: one.a_layer.mean, reverse=True)
        fed = [self._desk(one, journal, solved_where_met).evidence() for one in smaller]
        return [one for one in fed if one.tables]

    def _joined(self, allotment: Allotment, found: Found) -> Artifact:
        """The artifact with what was found for a budget."""
        classes = self._classes.names
        alternatives = {GLOBAL: dict.fromkeys(classes, found.everywhere)} if len(classes) > 1 else {}
        if found.exhaustive and not isinstance(self._strategy, Grid):
            alternatives[EXHAUSTIVE] = dict.fromkeys(classes, self._solved(allotment)[0]) | found.exhaustive
        new = self._assemble(allotment, found, alternatives)
        self._previous = self._options.routed(joined(new.joined(self._previous), self._previous))
        return self._previous

    def _most(self, samples: int) -> int:
        """The most evaluations of a class with so many samples."""
        refining = most(len(self._features.layers), self._pruning.rated) if self._options.refine else 0
        return self._strategy.most(len(self._candidates), samples) + refining * samples

    def _recipe(self) -> EvaluatorRecipe:
        return EvaluatorRecipe(
            model=ModelRecipe.of(self._model, self._processor, self._crew.threads),
            prompt=self._prompter.template,
            cache=self.places.features,
            layers=self._features.layers,
            objective=self._options.objective,
            max_new_tokens=self._options.longest,
        )

    def _assemble(
        self,
        allotment: Allotment,
        found: Found,
        alternatives: Mapping[str, Mapping[str, Candidate]],
    ) -> Artifact:
        options, pruning = self._options, self._pruning
        metrics = {sample.metric or EXACT for sample in self._searched_on}
        provenance = Provenance(
            samples=self._samples_digest,
            labels=sha256_json([[sample.id, sample.label] for sample in self._samples]),
            cache_encoder=self._source.encoder,
            space=self._space.digest,
            taxonomy=self._classes.digest,
            strategy=describe(self._strategy),
            metric=", ".join([*([] if options.objective == METRIC else [options.objective]), *sorted(metrics)]),
            seed=options.seed,
            versions=versions(),
        )
        shape = model_shape(self._model.config)
        frame = {
            "name": f"{Path(self._name).name}-clasp",
            "model": self._name,
            "revision": revision_of(self._model),
            "checkpoint": checkpoint_of(self._model),
            "shape": shape,
            "fingerprint": shape.fingerprint,
            **self._classes.recorded,
            "tau": TAU,
            **{name: value for name, value in vars(pruning).items() if name != "starts"},
            "prompt": self._prompter.template,
            "prompt_hash": hashed(self._prompter.template),
            "decoding": Decoding(do_sample=False, max_new_tokens=self._longest(options), generation=self._generation),
        }
        default = self._solved(allotment)[0]
        return assembled(frame, allotment, provenance, default, found, options.cautious, alternatives, self._shortlist)
