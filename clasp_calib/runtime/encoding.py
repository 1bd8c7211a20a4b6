"""What a method sees of an image as it is encoded, and what of it goes on to the decoder.

N visual tokens of the image, D their width, U cells (see `Layout`), C width of a cell's state, T tokens that go on,
H heads of the tower, d width of a head.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.adapters.towers import recorded_states
from clasp_calib.runtime.attention import PRUNED_ALREADY, received_attention, watched_attention
from clasp_calib.runtime.finite import ADVICE, NonFiniteError, all_finite
from clasp_calib.runtime.tower_relevance import tile_relevance

DROPPED = -torch.inf
"""A token that is not to enter the decoder, see `clasp_calib.runtime.gates`. No projector gives it: see `marked`. The
mark is in the features themselves, so that it survives what ``generate`` does with them before the first forward:
repeating them for beams, and handing them over."""


@dataclass(frozen=True)
class TowerAttention:
    """Queries and keys of one block of the tower, float32 [R, H, t, d]: R tiles of t tokens, class tokens first.

    ``patches`` are the tokens of a cell, one after the other.
    """

    query_RHtd: Tensor
    key_RHtd: Tensor
    scaling: float
    class_tokens: int
    patches: int
    layout: Layout

    def received(self, *, from_all: bool = False) -> Tensor:
        """Softmax attention [H, U] that every cell receives from the class token of its tile.

        Where the tower has none: the mean of what all patches of the tile give, over the patches of a cell.

        Args:
            from_all: the mean of what all tokens of the tile give, its class token among them.
        """
        heads, by_class = 0 if from_all else self.class_tokens, self.class_tokens > 0 and not from_all
        attention_RHP = torch.stack(
            [
                received_attention(query_Htd, key_Htd, self.scaling, heads, by_class)[:, self.class_tokens - heads :]
                for query_Htd, key_Htd in zip(self.query_RHtd, self.key_RHtd, strict=True)
            ]
        )
        return self._cells(attention_RHP.movedim(1, 2)[..., None])[..., 0].mT

    def relevance(self, kind: str) -> Tensor:
        """What the input profile rates cells by, float32 [U], see `clasp_calib.runtime.tower_relevance`.

        Args:
            kind: ``class-token`` or ``mean-attention``.
        """
        by_tile_RP = torch.stack(
            [
                tile_relevance(query_Htd, key_Htd, self.scaling, self.class_tokens, kind)
                for query_Htd, key_Htd in zip(self.query_RHtd, self.key_RHtd, strict=True)
            ]
        )
        return self._cells(by_tile_RP[..., None])[..., 0]

    def keys(self) -> Tensor:
        """Keys of the cells, [U, H, d], the mean over their patches."""
        return self._cells(self.key_RHtd[:, :, self.class_tokens :].transpose(1, 2))

    def _cells(self, values_RtHd: Tensor) -> Tensor:
        flat = values_RtHd.reshape(-1, self.patches, *values_RtHd.shape[2:]).mean(1)
        return flat if self.layout.place_U is None else flat[self.layout.place_U.to(flat.device)]


@dataclass(frozen=True)
class Encoded:
    """One image: what its tokens would be, and what the tower made of it.

    ``features_ND`` are the projected tokens; ``layout`` tells their cells. ``states_UC`` are the cells as the projector
    gets them, and ``class_RC`` the class tokens of the tiles beside them, if there are; where a merger makes
    tokens of several patches the states are what it makes, as nothing comes after it. ``attention`` has what a
    method asked for, by block; ``project`` makes features of other states. ``number`` is the image's place among those
    that are encoded with it.
    """

    features_ND: Tensor
    layout: Layout
    states_UC: Tensor
    class_RC: Tensor | None
    attention: Mapping[int, TowerAttention]
    project: Callable[[Tensor], Tensor]
    number: int = 0

    def patches(self) -> list[Tensor]:
        """Of every tile that is shown the tokens that show a cell of it, in order; long. The others end lines."""
        cell_N = self.layout.cell_N
        tile_N = torch.where(cell_N < 0, -1, cell_N // (self.layout.cells // self.layout.tiles))
        found = [(tile_N == tile).nonzero().flatten() for tile in range(self.layout.tiles)]
        return [token_P.to(self.features_ND.device) for token_P in found if len(token_P)]

    def cells(self, token_P: Tensor) -> Tensor:
        """The cells of tokens that show one, long."""
        return self.layout.cell_N.to(token_P.device)[token_P]

    def shown(self, token_P: Tensor) -> tuple[int, int]:
        """Rows and columns that the tokens of one tile, as `patches` gives them, are laid in."""
        rows = len(torch.unique(self.cells(token_P) // self.layout.grid[1]))
        return rows, len(token_P) // rows


@dataclass(frozen=True)
class Kept:
    """What of an image goes on: tokens ``place_T`` (long, of N, each once), in this order.

    Something else may stand in their places: ``features_TD``, or what the projector makes of ``states_TC``.
    """

    place_T: Tensor
    states_TC: Tensor | None = None
    features_TD: Tensor | None = None


Choose = Callable[[Encoded], Kept]
Seen = tuple[Tensor, Tensor, float]
Watch = Callable[[Any, Mapping[str, Any], Mapping[int, Sequence[Seen]]], None]
"""Is shown what was encoded before anything is marked, the arguments of the call, and what the blocks attended with."""


@contextmanager
def chosen_tokens(
    model: Any, adapter: Adapter, blocks: Sequence[int], choose: Choose, in_place: bool, watch: Watch | None = None
) -> Iterator[None]:
    """Let ``choose`` say of every image that is encoded what goes on; the rest is marked `DROPPED`.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        blocks: of the tower, from 0, whose attention ``choose`` wants to see.
        choose: is given every image in turn.
        in_place: every token stands in its own place, which keeps its position, rather than in the order that
            ``choose`` has them in.
        watch: looks on.

    Raises:
        ModelError: it is not known where visual tokens of this architecture come from, or another method is at work
            on this model.
    """
    if not adapter.laid_out:
        raise ModelError(
            f"where the visual tokens of a {model.config.model_type} model come from is not known; methods that decide "
            "before the decoder run on LLaVA-1.5, LLaVA-NeXT, Qwen2-VL and Qwen2.5-VL"
        )
    multimodal: Any = adapter.multimodal_model(model)
    if "get_image_features" in vars(multimodal):
        raise ModelError(PRUNED_ALREADY)
    plain = multimodal.get_image_features
    tower_blocks, own = adapter.vision_blocks(model), adapter.own_layer
    modules = {block: adapter.tower_attention(tower_blocks[block]) for block in blocks}

    @wraps(plain)
    def encode(*args: Any, **kwargs: Any) -> Any:
        def note_own(_: nn.Module, __: Any, output: Any) -> None:
            # Where the projector reads it, a mixture of layers may stand in the place of what the block gave.
            if (hidden := getattr(output, "hidden_states", None)) is not None:
                states[own] = hidden[own]

        inputs = dict(zip(signature(plain).parameters, args, strict=False)) | kwargs
        states: dict[int, Tensor] = {}
        seen: dict[int, list[Seen]] = {block: [] for block in blocks}
        with ExitStack() as undo:
            undo.enter_context(recorded_states(tower_blocks, [own], states))
            undo.callback(adapter.vision_tower(model).register_forward_hook(note_own).remove)
            for block, module in modules.items():
                undo.enter_context(watched_attention(module, partial(_note, seen[block])))
            output = plain(*args, **kwargs)
        features = list(output.pooler_output)
        # Before anything is chosen by them, and before `DROPPED` may stand among them.
        if features and not bool(torch.stack([all_finite(features_ND) for features_ND in features]).all()):
            raise NonFiniteError(f"the features of a picture are not finite; {ADVICE}")
        if watch is not None:
            watch(output, inputs, seen)
        images = _images(model, adapter, inputs, features, states[own], seen)
        multimodal.get_image_features = plain  # what a method projects is no new image
        try:
            output.pooler_output = [marked(image, choose(image), in_place) for image in images]
        finally:
            multimodal.get_image_features = encode
        return output

    multimodal.get_image_features = encode
    try:
        yield
    finally:
        del multimodal.get_image_features


def marked(image: Encoded, kept: Kept, in_place: bool) -> Tensor:
    """The features of an image with all that does not go on `DROPPED`; see `chosen_tokens`.

    Raises:
        ModelError: places twice.
        NonFiniteError: what stands in the tokens' places is not finite.
    """
    place_T, features_TD = kept.place_T.sort().values, what_goes_on(image, kept)
    marked_ND = image.features_ND.new_full((len(image.layout.cell_N), image.features_ND.shape[1]), DROPPED)
    twice = (place_T.diff() == 0).any()
    repeated, finite = torch.stack([twice, all_finite(features_TD)]).tolist()
    if repeated:
        raise ModelError("a method gave one place to several tokens; expected different places")
    if not finite:
        raise NonFiniteError(f"a method made features that are not finite of those of a picture; {ADVICE}")
    marked_ND[kept.place_T if in_place else place_T] = features_TD.to(marked_ND.dtype)
    return marked_ND


def what_goes_on(image: Encoded, kept: Kept) -> Tensor:
    """The features [T, D] that enter the decoder, in the order of what is kept."""
    if kept.features_TD is not None:
        return kept.features_TD
    features_ND = image.features_ND
    if kept.states_TC is not None:
        states_UC = image.states_UC.clone()
        states_UC[image.cells(kept.place_T)] = kept.states_TC.to(states_UC.dtype)
        features_ND = image.project(states_UC)
    return features_ND[kept.place_T]


def _images(
    model: nn.Module,
    adapter: Adapter,
    inputs: Mapping[str, Any],
    features: Sequence[Tensor],
    state: Tensor,
    seen: Mapping[int, Sequence[Seen]],
) -> Iterator[Encoded]:
    first, row = adapter.class_tokens, 0
    for number, (layout, rows) in enumerate(zip(adapter.layouts(model, inputs), adapter.rows(inputs), strict=True)):
        mine = slice(row, row + rows)
        row += rows
        if state.ndim == 3:
            states_UC, class_RC = state[mine, first:].flatten(0, 1), state[mine, 0] if first else None
            image_sizes = inputs.get("image_sizes")
            sizes = {} if image_sizes is None else {"image_sizes": image_sizes[number : number + 1]}
            project: Callable[[Tensor], Tensor] = partial(_projected, adapter, model, sizes)
            patches, read = 1, _tiles
        else:
            # One sequence for the patches of all pictures.
            states_UC, class_RC, project = features[number], None, _as_they_are
            patches, read = rows // layout.cells, _frames
        attention = {}
        for block, calls in seen.items():
            query = read([query for query, _, _ in calls], mine, layout)
            key = read([key for _, key, _ in calls], mine, layout)
            attention[block] = TowerAttention(query, key, calls[0][2], first, patches, layout)
        yield Encoded(features[number], layout, states_UC, class_RC, attention, project, number)


def _note(seen: list[Seen], *call: Any) -> None:
    seen.append(call)


def _projected(adapter: Adapter, model: nn.Module, sizes: dict[str, Tensor], states_UC: Tensor) -> Tensor:
    return adapter.project(model, states_UC[None], "image", **sizes)[0]


def _as_they_are(states_UC: Tensor) -> Tensor:
    return states_UC


def _tiles(parts: Sequence[Tensor], mine: slice, layout: Layout) -> Tensor:
    """Of the one call of a block the tiles of an image, float32 [R, H, t, d]."""
    return parts[0][mine].float()


def _frames(parts: Sequence[Tensor], mine: slice, layout: Layout) -> Tensor:
    """The same where every call of a block has a part of the one sequence."""
    whole_HSd = torch.cat([part[0] for part in parts], dim=1)[:, mine]
    heads, _, width = whole_HSd.shape
    return whole_HSd.view(heads, layout.tiles, -1, width).transpose(0, 1).float()
