"""Relevance from the vision tower: how much attention its class token, or all of its patches, give to every token.

Attention is shared among the patches of a tile, so that each gets less where there are more. Relevance is its multiple
of an equal share, so that tokens of pictures of different sizes compare.

R tiles of a picture (or its frames), H heads of t tokens, class tokens first, d width of a head, P patches of a tile, N
visual tokens of a picture, T of all pictures together, M rows of a batch, S tokens of a row, K kinds of relevance.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import CLASS_TOKEN
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.attention import PRUNED_ALREADY, is_watched, received_attention, watched_attention

_Seen = list[tuple[Tensor, Tensor, float]]


class TowerRelevance:
    """What the tower said of the pictures that it encoded last; see `noted_relevance`."""

    def __init__(self, model: nn.Module, adapter: Adapter, kinds: Sequence[str]) -> None:
        self._model, self._adapter, self._kinds = model, adapter, kinds
        self._ids_MS: Tensor | None = None
        self._known: dict[str, Sequence[Tensor]] = {}
        """Modality -> [N, K] of every picture."""

    def see(self, ids_MS: Tensor, inputs: Mapping[str, Any]) -> None:
        """Note where the pictures of a forward stand, and what is known of those that come as features."""
        self._ids_MS, given = ids_MS, inputs.get("mm_encoder_outputs") or {}
        self._known = {modality: output.relevance for modality, output in given.items() if hasattr(output, "relevance")}

    def placed(self, visual_MS: Tensor) -> Tensor:
        """Relevance of every visual token by every kind, float32 [M, S, K]; 0 elsewhere.

        Raises:
            ModelError: pictures came as features without their relevance.
        """
        assert self._ids_MS is not None
        relevance_MSK = torch.zeros(*visual_MS.shape, len(self._kinds), device=visual_MS.device)
        for modality, token in self._adapter.visual_token_ids.items():
            mine_MS = visual_MS & (self._ids_MS == token)
            wanted = int(mine_MS.sum())
            if not wanted:
                continue
            none = relevance_MSK.new_zeros(0, len(self._kinds))
            known_TK = torch.cat(
                [known.expand(-1, len(self._kinds)) for known in self._known.get(modality, ())] or [none]
            )
            # generate repeats every row for its beams, and the features with them.
            beams = wanted // max(len(known_TK), 1)
            if len(known_TK) * beams != wanted or int(mine_MS[::beams].sum()) != len(known_TK):
                raise ModelError(
                    f"the prompts hold {wanted} visual tokens of a kind ({modality}) of which the tower's attention is "
                    f"known for {len(known_TK)}; give pixels rather than features, features with their relevance "
                    "(with_relevance), or relevance='none'"
                )
            rows_MSK = torch.zeros_like(relevance_MSK[::beams]).masked_scatter(mine_MS[::beams, :, None], known_TK)
            relevance_MSK = relevance_MSK + rows_MSK.repeat_interleave(beams, dim=0)
        return relevance_MSK

    def encoded(self, modality: str, output: Any, inputs: Mapping[str, Any], seen: _Seen) -> None:
        """Note what the tower attended to, and let the features that it gave carry it."""
        queries = self._adapter.by_picture([query for query, _, _ in seen], inputs, modality)
        keys = self._adapter.by_picture([key for _, key, _ in seen], inputs, modality)
        by_kind = [
            self._adapter.token_values(self._model, self._given(queries, keys, seen[0][2], kind), inputs, modality)
            for kind in self._kinds
        ]
        self._known[modality] = [torch.stack(one, dim=-1) for one in zip(*by_kind, strict=True)]
        output.relevance = self._known[modality]

    def _given(self, queries: Sequence[Tensor], keys: Sequence[Tensor], scaling: float, kind: str) -> list[Tensor]:
        """The attention that every patch is given [R, P] in each picture, whose queries and keys are [R, H, t, d]."""
        leading = self._adapter.class_tokens
        return [
            torch.stack(
                [
                    tile_relevance(query_Htd, key_Htd, scaling, leading, kind)
                    for query_Htd, key_Htd in zip(query_RHtd, key_RHtd, strict=True)
                ]
            )
            for query_RHtd, key_RHtd in zip(queries, keys, strict=True)
        ]


def with_relevance(outputs: dict[str, Any], relevance: Sequence[Tensor]) -> dict[str, Any]:
    """``mm_encoder_outputs`` of one modality whose features carry the relevance of their tokens.

    Args:
        outputs: as `clasp_calib.runtime.adapters.adapter.Adapter.encoder_outputs` gives them.
        relevance: [N] of every picture, float32, as `relevances_of` gives it; of whatever kind is wanted in its row.
    """
    (output,) = outputs.values()
    output.relevance = [of_N[:, None] for of_N in relevance]
    return outputs


@contextmanager
def noted_relevance(model: Any, adapter: Adapter, kinds: Sequence[str]) -> Iterator[TowerRelevance]:
    """Watch the tower's attention whenever pictures are encoded.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        kinds: ``class-token`` and ``mean-attention``, or one of them; those that the adapter can give.

    Raises:
        ModelError: another method is at work on this model.
    """
    noted, multimodal = TowerRelevance(model, adapter, kinds), adapter.multimodal_model(model)
    with ExitStack() as undo:
        for modality in adapter.towers:
            name = f"get_{modality}_features"
            if name in vars(multimodal):
                raise ModelError(PRUNED_ALREADY)
            encode = _watched(getattr(multimodal, name), model, adapter, noted, modality)
            setattr(multimodal, name, encode)
            undo.callback(delattr, multimodal, name)
        yield noted


def relevances_of(
    model: Any, adapter: Adapter, kinds: Sequence[str], pixels: Tensor, modality: str, **sizes: Tensor
) -> dict[str, list[Tensor]]:
    """Relevance [N] of every kind, float32, of the tokens of every picture, as `noted_relevance` would see it.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        kinds: see `noted_relevance`; the tower runs once for all.
        pixels: as the processor makes them.
        modality: ``image`` or ``video``.
        sizes: as `clasp_calib.runtime.adapters.adapter.Adapter.capture` takes them.
    """
    with noted_relevance(model, adapter, kinds):
        by_picture = adapter.features(model, pixels, modality, sizes).relevance
    return {kind: [of_NK[:, column] for of_NK in by_picture] for column, kind in enumerate(kinds)}


def _watched(plain: Any, model: Any, adapter: Adapter, noted: TowerRelevance, modality: str) -> Any:
    block = adapter.vision_blocks(model, modality)[adapter.attention_block]
    attention = adapter.tower_attention(block)

    @wraps(plain)
    def encode(*args: Any, **kwargs: Any) -> Any:
        if is_watched(attention):  # videos are encoded as images by some models
            return plain(*args, **kwargs)
        inputs = dict(zip(signature(plain).parameters, args, strict=False)) | kwargs
        seen: _Seen = []
        with watched_attention(attention, partial(_note, seen)):
            output = plain(*args, **kwargs)
        if seen:  # What `Adapter.project` makes of given states, no tower has seen.
            noted.encoded(modality, output, inputs, seen)
        return output

    return encode


def tile_relevance(query_Htd: Tensor, key_Htd: Tensor, scaling: float, class_tokens: int, kind: str) -> Tensor:
    """Relevance [P] of the patches of a tile, float32: the mean over the heads, as a multiple of an equal share.

    Args:
        query_Htd: queries of the block that rates.
        key_Htd: its keys.
        scaling: factor of the logits.
        class_tokens: tokens before the patches.
        kind: ``class-token`` or ``mean-attention``.
    """
    given_HP = received_attention(query_Htd.float(), key_Htd.float(), scaling, class_tokens, kind == CLASS_TOKEN)
    return given_HP.mean(0) * given_HP.shape[1]


def _note(seen: _Seen, query: Tensor, key: Tensor, scaling: float) -> None:
    seen.append((query, key, scaling))
