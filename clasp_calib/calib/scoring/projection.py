"""A sample's pictures as the decoder is given them: projected in every mixture, and marked where a selector chooses.

Shapes: M mixtures, l layers that may be mixed, T patches, C width of the tower, N visual tokens of a picture, U cells
(see `clasp_calib.runtime.adapters.layout.Layout`), D width of the decoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from clasp_calib.baselines.input_method import ChoosesAtInput
from clasp_calib.cache.origin import Origin
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.features import Features
from clasp_calib.calib.scoring.prompted import Picture
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.pruning_options import CLASS_TOKEN, MEAN_ATTENTION
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.encoding import Encoded
from clasp_calib.runtime.finite import ADVICE, NonFiniteError, all_finite
from clasp_calib.runtime.selectors import Selected, TokenSelector, selected

STANDING_IN = ("attached", "marked", "on_marked")
"""Of a method that chooses before the decoder: the first is called where it is served, the others where it is scored.
"""


@dataclass(frozen=True)
class ReceivedAttention:
    """What cells receive of a block's attention, [U] float32; for a `clasp_calib.runtime.encoding.TowerAttention`.

    The tower's queries and keys are not kept with its layers.
    """

    attention_U: Tensor

    def received(self, *, from_all: bool = False) -> Tensor:
        """[1, U]: the mean over the heads, as if there were one."""
        if from_all:
            raise ModelError(_unknown("attention from all patches"))
        return self.attention_U[None]

    def __getattr__(self, name: str) -> NoReturn:
        raise ModelError(_unknown(name))


def check_scored_as_served(selector: TokenSelector, name: str) -> None:
    """Refuse one that would choose other tokens of features than of pictures.

    Raises:
        InputError: it chooses before the decoder, where `ChoosesAtInput.marked` and `ChoosesAtInput.on_marked` stand in
            for `ChoosesAtInput.attached`, and has one of them of its own.
    """
    if not isinstance(selector, ChoosesAtInput):
        return
    if own := [of for of in STANDING_IN if getattr(type(selector), of) is not getattr(ChoosesAtInput, of)]:
        raise InputError(
            f"the selector {name!r} chooses before the decoder, and has its own {own[0]}(). Features are scored "
            "without the vision tower, so that it would be served in another way than it is scored; leave "
            f"{', '.join(STANDING_IN)} as they are, and choose in kept()"
        )


def _unknown(what: str) -> str:
    return (
        f"of features it is known what tokens receive of the tower's attention, and not its {what}; a selector that "
        "needs it cannot be searched"
    )


@dataclass(frozen=True)
class Projection:
    """How the pictures of candidates that share a forward come to the decoder.

    Attributes:
        model: whose projector is used.
        adapter: of the model.
        features: vision layers.
        selector: what chooses their tokens in the place of the dual-stage selection.
    """

    model: Any
    adapter: Adapter
    features: Features
    selector: TokenSelector | None

    def picture(
        self, sample: Sample, candidates: Sequence[Candidate], kinds: Sequence[str | None]
    ) -> tuple[Picture, list[int]]:
        """The sample's pictures in each different mixture and rating, and which of them each candidate uses.

        Args:
            sample: has pictures.
            candidates: which use them.
            kinds: of each candidate, what of the tower's attention rates its tokens; ``None`` if nothing does.
        """
        mixtures = list(dict.fromkeys(c.alpha for c in candidates))
        alpha_Ml = torch.tensor(mixtures)[:, list(self.features.layers)]
        made, origins = [], [self.features.origin(one) for one in sample.alone]
        deepstack: list[list[Tensor]] = [[] for _ in self.adapter.taps]
        for one, origin in zip(sample.alone, origins, strict=True):
            made.append(self._visual(one, origin, alpha_Ml))
            if deepstack:
                parts = origin.deepstack(self.adapter, self.model, self.features.tapped(one))
                deepstack = [[*before, *more] for before, more in zip(deepstack, parts, strict=True)]
        mixed = [[part for parts in files for part in parts] for files in zip(*made, strict=True)]
        ways = list(dict.fromkeys((c.alpha, kind) for c, kind in zip(candidates, kinds, strict=True)))
        visual = [mixed[mixtures.index(alpha)] for alpha, _ in ways]
        rated = [
            [part for one in sample.alone for part in self.features.relevance(one, kind)] for _, kind in ways if kind
        ]
        each = [origin.forward_arguments() for origin in origins]
        sizes = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        picture = Picture(visual, [len(parts[0]) for parts in made], origins[0].modality, sizes, deepstack, rated)
        return picture, [ways.index((c.alpha, kind)) for c, kind in zip(candidates, kinds, strict=True)]

    @contextmanager
    def pruned(self, prompt_length: int) -> Iterator[Selected]:
        """Let the selector prune prompts of a length, followed by answers, whose pictures are those of `picture`."""
        assert self.selector is not None
        if isinstance(self.selector, ChoosesAtInput):
            with self.selector.on_marked(self.model, self.selector.adapter_for(self.model)) as read:
                yield Selected(read)
            return
        with selected(self.model, self.selector, None, prompt_length) as pruned:
            yield pruned

    def _visual(self, sample: Sample, origin: Origin, alpha_Ml: Tensor) -> list[list[Tensor]]:
        """Of each mixture the visual tokens [N, D] of every picture that the sample's one file is."""
        fused_MTC = self.features.fused(sample, alpha_Ml)
        place = next(self.adapter.vision_tower(self.model, origin.modality).parameters())
        fused_MTC = fused_MTC.to(place.device, place.dtype)
        visual = origin.project(self.adapter, self.model, fused_MTC)
        if not isinstance(self.selector, ChoosesAtInput):
            return visual
        inputs = {self.adapter.pixel_names["image"]: (None,), **origin.forward_arguments()}
        (layout,) = self.adapter.layouts(self.model, inputs)
        blocks = self.selector.tower_blocks(self.adapter)
        if others := {*blocks} - {self.adapter.attention_block}:
            raise ModelError(_unknown(f"attention in block {min(others)}"))
        attention = {block: self._attention(sample, layout, fused_MTC) for block in blocks}
        return [
            [self.selector.marked(self.model, self._encoded(origin, layout, attention, states_TC, features_ND))]
            for states_TC, (features_ND,) in zip(fused_MTC, visual, strict=True)
        ]

    def _attention(self, sample: Sample, layout: Layout, fused_MTC: Tensor) -> ReceivedAttention:
        """Of the block that makes the projected state; the others' is not known."""
        kind = CLASS_TOKEN if self.adapter.class_tokens else MEAN_ATTENTION
        (relevance_N,) = self.features.relevance(sample, kind)
        # Relevance is a multiple of an equal share of a tile's attention.
        patches = fused_MTC.shape[1] // layout.tiles
        shown_N = layout.cell_N >= 0
        attention_U = torch.zeros(layout.cells)
        attention_U[layout.cell_N[shown_N]] = relevance_N.cpu()[shown_N] / patches
        return ReceivedAttention(attention_U.to(fused_MTC.device))

    def _encoded(
        self,
        origin: Origin,
        layout: Layout,
        attention: Mapping[int, Any],
        states_TC: Tensor,
        features_ND: Tensor,
    ) -> Encoded:
        """One image as a live tower would show it to a selector."""
        if not bool(all_finite(features_ND)):
            raise NonFiniteError(f"the features of a picture are not finite; {ADVICE}")
        # Where a merger makes tokens of several patches, nothing comes after it.
        merged = len(states_TC) != layout.cells
        states_UC = features_ND if merged else states_TC
        project = _as_they_are if merged else partial(self._projected, origin)
        return Encoded(features_ND, layout, states_UC, None, attention, project)

    def _projected(self, origin: Origin, states_UC: Tensor) -> Tensor:
        ((features_ND,),) = origin.project(self.adapter, self.model, states_UC[None])
        return features_ND


def _as_they_are(states_UC: Tensor) -> Tensor:
    return states_UC
