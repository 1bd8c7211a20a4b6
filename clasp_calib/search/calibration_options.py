"""What a calibration may be told besides its model, samples and budgets."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.calib.scoring.metrics import MAX_NEW_TOKENS
from clasp_calib.calib.scoring.objective import METRIC, check_objective
from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import note
from clasp_calib.common.pruning_options import INPUT, NONE, REDUNDANCY, PruningOptions
from clasp_calib.common.selector_choice import AUTO, CLASP, SelectorChoice
from clasp_calib.common.settings import check_count, check_kind, check_number
from clasp_calib.router_labeling.class_source import ClassSource
from clasp_calib.router_labeling.router import Router
from clasp_calib.router_labeling.taxonomy import Taxonomy
from clasp_calib.search.space import SearchSpace, read_space
from clasp_calib.search.strategies.registry import STRATEGIES, describe
from clasp_calib.search.strategies.strategy import Strategy

NO_ROUTER = "none"


@dataclass(frozen=True)
class CalibrationOptions:
    """How settings are searched. The defaults are right for most calibrations.

    Attributes:
        strategy: which candidates are measured on which samples; see `clasp_calib.search.strategies`. By default
            ``Pooled()`` up to 2,000 samples a class on average, and ``Race()`` for more.
        cautious: keep the default candidate, which is the model's own layer with ``clasp`` and rho = 1, or without
            ``clasp`` with the first selector, unless the best one is worse with a probability below this; by default
            the candidate of the highest posterior mean is chosen, however sure.
        objective: what is maximised: ``metric``, ``nll`` or ``kl`` (to the unpruned model; needs no answers).
        per_class: samples of a class, at most: calibration and selection samples together.
        space: prototypes and rho grid, or a YAML file of them; by default made from the cached layers.
        method: of the space's selectors this one alone, whether it names it or not; with ``"auto"``, ``clasp`` and the
            three that a first round leaves of those that it names, or, where it names none, of all that are installed.
        lattice: also search all mixtures of the space's layers in steps of ``1 / lattice``.
        refine: tune the leader's weights and rho further, by coordinate search.
        prompt: template with ``<image>`` and ``{question}``; by default the model's own chat template.
        max_new_tokens: longest answer where a metric generates one, unless an accepted answer is longer; goes into the
            artifact. By default as long as in the artifact that is there, or 16.
        pruning: what is pruned where, and by what; goes into the artifact. By default those of
            `clasp_calib.runtime.budgeting.default_options`.
        router: what names the class of a question later; goes into the artifact. ``"none"``: the artifact gets none,
            even if the one that is there has one, which otherwise stays.
        taxonomy: of the samples' classes, or a YAML file of it; by default the packaged one.
        class_from: a column of the samples' table whose values are the classes, in place of a taxonomy.
        default_class: the class of samples without a value in that column, which otherwise are refused.
        one_class: calibrate one setting for all samples, whose classes are not read.
        model_name: what the artifact calls the model; by default where it was loaded from.
        anyway: search even where the unpruned model answers none of the first questions of a class right, or by ``kl``
            in spite of answers.
        seed: of everything random.

    Raises:
        InputError: a value that cannot be used.
    """

    strategy: Strategy | None = None
    cautious: float | None = None
    objective: str = METRIC
    per_class: int = 2000
    space: SearchSpace | str | Path | None = None
    method: str | None = None
    lattice: int | None = None
    refine: bool = False
    prompt: str | None = None
    max_new_tokens: int | None = None
    pruning: PruningOptions | None = None
    router: Router | Literal["none"] | None = None
    taxonomy: Taxonomy | str | Path | None = None
    class_from: str | None = None
    default_class: str | None = None
    one_class: bool = False
    model_name: str | None = None
    anyway: bool = False
    seed: int = 0
    class_source: ClassSource = field(init=False, repr=False, compare=False)
    """What says the class of a sample."""

    def __post_init__(self) -> None:
        check_objective(self.objective)
        for name, kind, expected in (
            ("pruning", PruningOptions, "PruningOptions(...)"),
            ("method", str, "the name of a selector, such as 'fastv', or 'auto'"),
            ("refine", bool, "True or False"),
            ("anyway", bool, "True or False"),
        ):
            check_kind(name, getattr(self, name), kind, expected)
        if self.router != NO_ROUTER:
            check_kind("router", self.router, Router, "a Router, as load_router reads it, or 'none'")
        for name, value, least in (
            ("per_class", self.per_class, 2),
            ("lattice", self.lattice, 1),
            ("max_new_tokens", self.max_new_tokens, 1),
            ("seed", self.seed, 0),
        ):
            if value is not None or name not in ("lattice", "max_new_tokens"):
                check_count(name, value, least)
        if self.cautious is not None:
            expected = "a probability above 0 and up to 1, such as 0.3"
            check_number("cautious", self.cautious, lambda worse: 0 < worse <= 1, expected)
        if self.strategy is not None and type(self.strategy) not in STRATEGIES.values():
            kinds = ", ".join(f"{kind.__name__}()" for kind in STRATEGIES.values())
            raise InputError(f"strategy is {self.strategy!r}; expected one of {kinds}")
        if isinstance(self.space, str | Path):
            object.__setattr__(self, "space", read_space(Path(self.space)))
        elif not (self.space is None or isinstance(self.space, SearchSpace)):
            raise InputError(f"space is a {type(self.space).__name__}; expected a SearchSpace, or a YAML file of one")
        if isinstance(self.space, SearchSpace) and self.method is not None:
            space = self.space
            named = [selector for selector in space.selectors if selector.name != CLASP]
            only = space.beside_clasp(named) if self.method == AUTO else space.of_method(self.method)
            object.__setattr__(self, "space", only)
        self._check_sizes()
        seeding = self.pruning.seeding if self.pruning else REDUNDANCY
        if isinstance(self.space, SearchSpace) and seeding not in (REDUNDANCY, *self.space.seedings):
            raise InputError(
                f"the options seed k-means by {seeding!r}, which the space does not try (it tries "
                f"{', '.join(self.space.seedings)}); add it to the space's seedings, or leave it out of the options"
            )
        self._check_relevances()
        class_source = ClassSource(self.taxonomy, self.class_from, self.default_class, self.one_class)
        object.__setattr__(self, "class_source", class_source)

    def _check_sizes(self) -> None:
        if not isinstance(self.space, SearchSpace) or self.lattice:
            return
        if self.method == AUTO and all(prototype.downsample for prototype in self.space.prototypes):
            raise InputError(
                f"all prototypes of the space show smaller pictures, which only {CLASP!r} is tried with, and "
                f"method is {AUTO!r}; add a prototype without downsample, or leave method out (--method)"
            )
        if len(self.space.untried) == len(self.space.prototypes):
            raise InputError(
                f"all prototypes of the space show smaller pictures ({', '.join(self.space.untried)}), which only "
                f"{CLASP!r} is tried with, and it is not among the selectors; add it, or a prototype without downsample"
            )

    def _check_relevances(self) -> None:
        tried, pruning = self.space.relevances if isinstance(self.space, SearchSpace) else (), self.pruning
        if tried and (pruning is None or pruning.profile != INPUT):
            raise InputError(
                f"the space tries the relevances {', '.join(tried)}, which rate tokens before the decoder; give "
                "profile='input' (--profile input), or take them out of the space"
            )
        if pruning is None:
            return
        if tried and pruning.relevance not in (None, *tried):
            raise InputError(
                f"the options rate tokens by relevance {pruning.relevance!r}, which the space does not try (it "
                f"tries {', '.join(tried)}); add it to the space's relevances, or leave it out of the options"
            )
        if pruning.relevance == NONE and len(tried) > 1:
            raise InputError(
                f"the options rate no tokens (relevance 'none'), and the space tries {', '.join(tried)}; leave it out "
                "of the options"
            )

    def routed(self, artifact: Artifact) -> Artifact:
        """An artifact with the router that it is to have; its own, if nothing is said.

        Raises:
            ArtifactError: the router was trained for other classes or another taxonomy.
        """
        if self.router is None:
            return artifact
        return artifact.with_router(self.router if isinstance(self.router, Router) else None)

    @property
    def selectors(self) -> list[SelectorChoice]:
        """Those to try in the place of the dual-stage selection, with all combinations of their knobs."""
        if isinstance(self.space, SearchSpace):
            return self.space.others
        return [] if self.method in (None, CLASP, AUTO) else [SelectorChoice(str(self.method))]

    @property
    def longest(self) -> int:
        """``max_new_tokens``, or its default."""
        return self.max_new_tokens or MAX_NEW_TOKENS

    def as_before(self, before: int, needed: int) -> Self:
        """With the longest answer of an artifact that is there, where none is named and the samples do not explain it.

        Args:
            before: the artifact's.
            needed: by these samples.
        """
        if self.max_new_tokens or before <= needed:
            return self
        note(f"answers of up to {before} new tokens, as in the artifact that is there")
        return replace(self, max_new_tokens=before)

    @property
    def recorded(self) -> dict[str, int]:
        """``max_new_tokens`` for a journal: not the default, of which journals were begun before there was another."""
        return {} if self.longest == MAX_NEW_TOKENS else {"max_new_tokens": self.longest}

    def summary(self) -> dict[str, Any]:
        """The options for a log, each as a short text or number."""
        others = ("router", "taxonomy", "space", "class_source")
        told = {name: value for name, value in vars(self).items() if name not in others}
        told |= {
            "pruning": vars(self.pruning) if self.pruning else None,
            "strategy": "auto" if self.strategy is None else describe(self.strategy),
        }
        space = self.space.digest if isinstance(self.space, SearchSpace) else None
        return {**told, "space": space, "router": isinstance(self.router, Router)}
