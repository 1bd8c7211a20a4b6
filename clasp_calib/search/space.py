"""The search space: layer prototypes times what chooses tokens; the model's own setting is always in it.

What chooses is the dual-stage selection with rhos, seedings and relevances, or another selector with its knobs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.pruning_options import NONE, REDUNDANCY, RELEVANCES, SEEDINGS
from clasp_calib.common.selector_choice import AUTO, CLASP, Knob, SelectorChoice
from clasp_calib.common.yaml_files import read_yaml
from clasp_calib.search.lattice import lattice

RHOS = (0.25, 0.5, 0.75, 1.0)
"""Our choice for a first look; the paper's grid is 0.1 to 1.0 in tenths, to be had by editing the space file."""
OWN = "own"


class Prototype(BaseModel):
    """A named mixture: weights of vision layers (``hidden_states`` indices), summing to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Unique within a space."""
    weights: dict[int, float] = Field(min_length=1)
    """Index into ``hidden_states`` -> its weight, positive."""
    downsample: float | None = Field(default=None, ge=0.01, lt=1)
    """Pictures are shown with at most this share of their tokens; ``None``: as they are."""

    @model_validator(mode="after")
    def _convex(self) -> "Prototype":
        # Said so that a weight that is not a number is refused too.
        if not (all(w > 0 for w in self.weights.values()) and abs(sum(self.weights.values()) - 1) <= 1e-6):
            raise ValueError(f"prototype {self.name!r}: weights must be positive and sum to 1, got {self.weights}")
        return self


class SpaceSelector(BaseModel):
    """A selector with its knobs, each of which may have several values to try; without any as its authors set it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """``clasp``, or that of a selector that an installed package brings."""
    knobs: dict[str, tuple[Knob, ...]] = {}
    """Knob -> values to try, every combination of them."""

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, given: Any) -> Any:
        """A name alone is one without knobs, and a value alone the only one to try."""
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, dict) and isinstance(knobs := given.get("knobs"), dict):
            return {
                **given,
                "knobs": {knob: of if isinstance(of, list | tuple) else [of] for knob, of in knobs.items()},
            }
        return given

    @model_validator(mode="after")
    def _sane(self) -> "SpaceSelector":
        if self.name == AUTO:
            raise ValueError(f"no selector is called {AUTO!r}; --method {AUTO} lets the search choose among selectors")
        if self.name == CLASP and self.knobs:
            raise ValueError(
                f"selector {CLASP!r} has no knobs; rhos, seedings and relevances stand beside the selectors"
            )
        if empty := [knob for knob, values in self.knobs.items() if not values]:
            raise ValueError(f"selector {self.name!r}: there are no values of the knob {empty[0]!r} to try")
        for knob, values in self.knobs.items():
            numbers = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
            if not all(isfinite(one) for one in numbers if isinstance(one, float)):
                raise ValueError(f"selector {self.name!r}: the values of the knob {knob!r} have to be finite numbers")
        return self

    @property
    def choices(self) -> list[SelectorChoice]:
        """One for every combination of knobs."""
        return [
            SelectorChoice.of(self.name, dict(zip(self.knobs, values, strict=True)))
            for values in product(*self.knobs.values())
        ]


class SearchSpace(BaseModel):
    """Prototypes, and what chooses their tokens: the rho grid, seedings, relevances and other selectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prototypes: tuple[Prototype, ...] = Field(min_length=1)
    """Mixtures to try."""
    rhos: tuple[float, ...] = Field(min_length=1)
    """Ratios to try with each of them, in [0, 1]."""
    seedings: tuple[str, ...] = Field(default=(REDUNDANCY,), min_length=1)
    """What k-means may start from, to try with each of these; see `PruningOptions`."""
    relevances: tuple[str, ...] = ()
    """In the profile ``input``: what may rate the tokens, to try with each of these; see `PruningOptions`. If there are
    none, only what the options say is tried."""
    selectors: tuple[SpaceSelector, ...] = Field(default=(SpaceSelector(name=CLASP),), min_length=1)
    """What may choose tokens: ``clasp``, with these ratios, seedings and relevances, and others in its place."""

    @model_validator(mode="after")
    def _sane(self) -> "SearchSpace":
        names = [p.name for p in self.prototypes]
        if len(set(names)) != len(names):
            raise ValueError(f"prototype names must be unique, got {', '.join(names)}")
        if not all(0 <= rho <= 1 for rho in self.rhos):
            raise ValueError(f"every rho must lie in [0, 1], got {self.rhos}")
        if not {*self.seedings} <= {*SEEDINGS} or len({*self.seedings}) != len(self.seedings):
            raise ValueError(
                f"seedings must be different ones of {', '.join(SEEDINGS)}, got {', '.join(self.seedings)}"
            )
        if not {*self.relevances} <= {*RELEVANCES} or len({*self.relevances}) != len(self.relevances):
            raise ValueError(
                f"relevances must be different ones of {', '.join(RELEVANCES)}, got {', '.join(self.relevances)}"
            )
        selectors = [selector.name for selector in self.selectors]
        if len(set(selectors)) != len(selectors):
            raise ValueError(f"each selector may stand once, with all its knobs; got {', '.join(selectors)}")
        return self

    @property
    def digest(self) -> str:
        """Hex sha256 of the content."""
        return sha256_json(self.model_dump(mode="json", exclude_defaults=True))

    @property
    def downsamples(self) -> tuple[float, ...]:
        """All shares of their tokens that some candidate shows pictures with."""
        return tuple(sorted({p.downsample for p in self.tried if p.downsample is not None}))

    @property
    def tried(self) -> tuple[Prototype, ...]:
        """Prototypes that candidates have: those that show smaller pictures only with ``clasp`` among the selectors."""
        return tuple(p for p in self.prototypes if self._has_clasp or p.downsample is None)

    @property
    def untried(self) -> tuple[str, ...]:
        """The names of the others."""
        return tuple(p.name for p in self.prototypes if p not in self.tried)

    @property
    def _has_clasp(self) -> bool:
        return any(selector.name == CLASP for selector in self.selectors)

    @property
    def others(self) -> list[SelectorChoice]:
        """The selectors that are not CLASP's, with all combinations of their knobs."""
        return [choice for selector in self.selectors if selector.name != CLASP for choice in selector.choices]

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that some candidate's prototype mixes."""
        return tuple(sorted({layer for p in self.tried for layer in p.weights}))

    def with_lattice(self, steps: int) -> "SearchSpace":
        """The space with all mixtures of its prototypes' layers in steps of ``1 / steps``; known ones keep their names.

        Raises:
            InputError: there are too many.
        """
        known = {tuple(sorted(p.weights.items())) for p in self.prototypes if p.downsample is None}
        more = [
            Prototype(name="lattice " + "+".join(f"{w:g}*{layer}" for layer, w in weights.items()), weights=weights)
            for weights in lattice(sorted({layer for p in self.prototypes for layer in p.weights}), steps)
            if tuple(sorted(weights.items())) not in known
        ]
        return self.model_copy(update={"prototypes": (*self.prototypes, *more)})

    def of_method(self, name: str) -> "SearchSpace":
        """The space with one selector, with the knobs that it has here."""
        known = tuple(selector for selector in self.selectors if selector.name == name)
        return self.model_copy(update={"selectors": known or (SpaceSelector(name=name),)})

    def beside_clasp(self, selectors: Iterable[SpaceSelector]) -> "SearchSpace":
        """The space with ``clasp`` and these selectors."""
        return self.model_copy(update={"selectors": (SpaceSelector(name=CLASP), *selectors)})

    def candidates(self, vision_layers: int, own_layer: int, relevance: str | None = None) -> list[Candidate]:
        """All candidates; the first is the model's own layer with rho = 1, so that doing nothing can win.

        Without ``clasp`` among the selectors, the first is the model's own layer with the first selector. Prototypes
        that show smaller pictures are combined with ``clasp`` alone.

        Args:
            vision_layers: L_v; mixtures are over ``hidden_states`` 0..L_v.
            own_layer: the layer that the model's projector was trained on.
            relevance: what rates the tokens of candidates that say nothing else; if ``none``, rho is 0 in all.

        Raises:
            InputError: a prototype names a layer that the tower does not have, or two candidates have one name.
        """
        unknown = [layer for layer in self.layers if not 0 <= layer <= vision_layers]
        if unknown:
            raise InputError(
                f"the space names vision layers {unknown}; this tower has hidden states 0 to {vision_layers}: "
                "give some of these"
            )
        made = [Candidate(OWN, _dense({own_layer: 1.0}, vision_layers), float(relevance != NONE))]
        further = list(
            dict.fromkeys(ways for kind in self.relevances or (relevance,) for ways in self._ways(kind, relevance))
        )
        further = further if self._has_clasp else []
        if not further:
            made = [replace(made[0], selector=self.others[0])]
        for prototype in self.tried:
            alpha = _dense(prototype.weights, vision_layers)
            made += [Candidate(prototype.name, alpha, *ways, downsample=prototype.downsample) for ways in further]
            if prototype.downsample is None:
                made += [Candidate(prototype.name, alpha, 1.0, selector=choice) for choice in self.others]
        found = list(dict.fromkeys(made))
        # A search records scores by name.
        for name, times in Counter(candidate.name for candidate in found).items():
            if times > 1:
                raise InputError(
                    f"the space holds {times} different candidates called {name!r}; rename a prototype "
                    f"({OWN!r} stands for the model's own layer, {own_layer}), or take rhos that differ more"
                )
        return found

    def _ways(self, kind: str | None, relevance: str | None) -> list[tuple[float, str, str | None]]:
        """Ratios, seedings and what candidates say of relevance, where it is of a kind."""
        if kind == NONE:
            return [(0.0, REDUNDANCY, None)]
        return list(product(self.rhos, self.seedings, [None if kind == relevance else kind]))


def default_space(layers: Sequence[int], own_layer: int, seeding: str = REDUNDANCY) -> SearchSpace:
    """Prototypes over the cached layers: own, deep, middle, hybrids of shallow and deep, uniform.

    Args:
        layers: cached vision layers.
        own_layer: the model's own; must be among them.
        seeding: what k-means starts from in all of them.

    Raises:
        InputError: it is not.
    """
    if own_layer not in layers:
        raise InputError(
            f"the cache holds the layers {tuple(layers)}, without the model's own layer {own_layer}; "
            f"cache it too: clasp-calib cache-features --layers {','.join(map(str, [*layers, own_layer]))}"
        )
    ordered = sorted(layers)
    below = [layer for layer in ordered if layer < own_layer]
    mixtures: dict[str, dict[int, float]] = {OWN: {own_layer: 1.0}}
    if below:
        shallow, deep, middle = below[0], below[-1], below[len(below) // 2]
        mixtures["deep"] = {own_layer: 0.5, deep: 0.5}
        mixtures["middle"] = {own_layer: 0.5, middle: 0.5}
        mixtures["hybrid-light"] = {own_layer: 0.75, shallow: 0.25}
        mixtures["hybrid"] = {own_layer: 0.5, shallow: 0.5}
        mixtures["uniform"] = {layer: 1 / len(ordered) for layer in ordered}
    prototypes = [Prototype(name=name, weights=weights) for name, weights in mixtures.items()]
    return SearchSpace(prototypes=tuple(prototypes), rhos=RHOS, seedings=(seeding,))


def write_space(space: SearchSpace, path: Path) -> None:
    """Write a space as YAML for a user to edit.

    Raises:
        InputError: the place cannot be written to.
    """
    content: dict[str, Any] = {
        "rhos": list(space.rhos),
        "seedings": list(space.seedings),
        **({"relevances": list(space.relevances)} if space.relevances else {}),
        "selectors": [selector.name if not selector.knobs else _told(selector) for selector in space.selectors],
        "prototypes": [p.model_dump(exclude_defaults=True) for p in space.prototypes],
    }
    header = (
        "# Layer prototypes (vision hidden_states index: weight, summing to 1), the rho grid, and what k-means starts\n"
        f"# from: {', '.join(SEEDINGS)}. With --profile input also relevances: {', '.join(RELEVANCES)}.\n"
        "# Other selectors to try in the place of clasp, such as fastv and divprune, are listed among the selectors.\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); give another place with --run") from error


def read_space(path: Path) -> SearchSpace:
    """Read a space from YAML.

    Raises:
        InputError: the file is missing or is not a search space.
    """
    if not path.exists():
        raise InputError(f"no search space at {path}; make one to start from with `clasp-calib search --plan`")
    try:
        return SearchSpace.model_validate(read_yaml(path, "search space"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path} is not a search space: {where}: {first['msg']}; mend it") from error


def _told(selector: SpaceSelector) -> dict[str, Any]:
    return {"name": selector.name, "knobs": {knob: list(values) for knob, values in selector.knobs.items()}}


def _dense(weights: dict[int, float], vision_layers: int) -> tuple[float, ...]:
    return tuple(weights.get(layer, 0.0) for layer in range(vision_layers + 1))
