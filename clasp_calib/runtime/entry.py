"""Pruning at the decoder's input: visual tokens that never enter it, as a `clasp_calib.runtime.gates.Gate` says.

All layers then hold the same, shorter sequence, which nothing outside of the decoder knows of; so every later call
is given its mask and positions here.

M rows as they come and B rows once candidates have fanned out, S tokens of a call, T keys, D width, V visual tokens of
all rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.attention import PRUNED_ALREADY, is_watched
from clasp_calib.runtime.checks import check_call, check_generate, position_axes
from clasp_calib.runtime.encoding import Choose, Encoded, Kept
from clasp_calib.runtime.gates import Gate, Marked
from clasp_calib.runtime.generation import check_modalities, modalities, watched_generate
from clasp_calib.runtime.scoring import gather_index, take
from clasp_calib.runtime.stages import check_left_padded
from clasp_calib.runtime.stats import PruningStats, Stopwatch


@dataclass(frozen=True)
class _Record:
    """What is known of a cache that holds fewer tokens than the prompt.

    Attributes:
        valid_BT: which of its keys are valid. All beams of a prompt have the same, so that reordering leaves them true.
        length: tokens that it held after the prompt.
        next_B: position id of the token behind them.
        kept: visual tokens of every row that it holds.
    """

    valid_BT: Tensor
    length: int
    next_B: Tensor
    kept: list[int]


class Entry:
    """A decoder that takes in only what a gate admits; ``stats`` describe the last forward that brought pictures.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        positions: ``compact`` numbers what is left 0, 1, 2...; ``keep`` leaves every token its position ids.
        gate: says what enters; by default what is not marked as dropped.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, positions: str, gate: Gate | None = None) -> None:
        self._model, self._adapter, self._compact = model, adapter, positions == "compact"
        self._gate = Marked(adapter) if gate is None else gate
        self._decoder: Any = adapter.language_model(model)
        self._visual_MS: Tensor | None = None
        self._inputs: Mapping[str, Any] = {}
        self._record: _Record | None = None
        self._index_BS: Tensor | None = None
        self._records: WeakKeyDictionary[Any, _Record] = WeakKeyDictionary()
        self._generating = False
        self._watch: Stopwatch | None = None
        self.stats: PruningStats | None = None
        self.shorter = 0
        """By how many positions the last forward that brought pictures became shorter, in every row of the batch."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the hooks on; on leaving nothing of them is left on the model.

        Raises:
            ModelError: the decoder is being pruned already.
        """
        attentions = [getattr(layer, "self_attn", None) for layer in self._decoder.layers]
        if has_entry(self._decoder) or any(attention is not None and is_watched(attention) for attention in attentions):
            raise ModelError(PRUNED_ALREADY)
        with ExitStack() as undo:
            undo.enter_context(watched_generate(self._model, self._see_generate, self._generated))
            multimodal = self._adapter.multimodal_model(self._model)
            for handle in (
                multimodal.register_forward_pre_hook(self._see_inputs, with_kwargs=True),
                self._decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
                self._decoder.register_forward_hook(self._leave, always_call=True),
            ):
                undo.callback(handle.remove)
            yield

    def entered(self, values_BS: Tensor) -> Tensor:
        """Of the sequence that was given, [B, S], what entered in the call that is on its way, [B, S']."""
        assert self._index_BS is not None
        return take(values_BS, self._index_BS)

    def timed(self, choose: Choose) -> Choose:
        """The same, what it takes counted as ``selection`` of the next forward that brings pictures."""

        def measured(image: Encoded) -> Kept:
            self._watch = self._watch or Stopwatch(image.features_ND.device)
            with self._watch.part("selection"):
                return choose(image)

        return measured

    def _see_generate(self, ids_BS: Tensor | None, kwargs: dict[str, Any]) -> None:
        check_generate(self._model, ids_BS, kwargs)
        check_modalities(self._adapter, kwargs)
        assert ids_BS is not None
        record = self._records.get(kwargs["past_key_values"]) if kwargs.get("past_key_values") is not None else None
        if record is not None and self._visual(ids_BS).sum(1).tolist() != record.kept:
            raise ModelError(
                "this cache holds fewer tokens than the prompt, so generate would misread where to go on; "
                "begin anew without past_key_values, or leave as many visual tokens out of input_ids"
            )
        self._gate.see(ids_BS, kwargs, generating=False)
        self._generating = True

    def _generated(self) -> None:
        self._generating = False

    def _see_inputs(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids_MS = args[0] if args else kwargs.get("input_ids")
        check_call(ids_MS, kwargs.get("past_key_values"))
        assert ids_MS is not None
        self._gate.see(ids_MS, kwargs, self._generating)
        self._inputs, brought = kwargs, modalities(self._adapter, kwargs)
        self._visual_MS = self._visual(ids_MS, *brought) if brought else None

    def _visual(self, ids_MS: Tensor, *kinds: str) -> Tensor:
        tokens = [self._adapter.visual_token_ids[kind] for kind in kinds or self._adapter.visual_token_ids]
        return torch.isin(ids_MS, torch.tensor(tokens, device=ids_MS.device))

    def _enter(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        visual_MS, self._visual_MS, self._record = self._visual_MS, None, None
        inputs, self._inputs = self._inputs, {}
        cache = kwargs.get("past_key_values")
        record = None if cache is None else self._records.get(cache)
        if visual_MS is None and record is None:
            return None
        mask_MT = _given_mask(inputs, kwargs.get("attention_mask"))
        embeddings_BSD, cached = kwargs["inputs_embeds"], 0 if cache is None else int(cache.get_seq_length())
        rows, width = embeddings_BSD.shape[:2]
        ones_BS = torch.ones(rows, width, dtype=torch.bool, device=embeddings_BSD.device)
        keep_BS = ones_BS if mask_MT is None else mask_MT[:, -width:].bool()
        before_BT = None if mask_MT is None else mask_MT[:, :-width].bool()
        before_BT = record.valid_BT if record is not None else before_BT
        before_BT = ones_BS[:, :1].expand(-1, cached) if before_BT is None else before_BT[:, :cached]
        changed: dict[str, Any] = {}
        visual_BS: Tensor | None = None
        if visual_MS is None:
            assert record is not None
            step_S = torch.arange(cached - record.length, cached - record.length + width, device=ones_BS.device)
            places = record.next_B[:, None] + step_S
            places = places.expand(3, -1, -1) if self._axes else places
            next_B, length, kept = record.next_B, record.length, record.kept
        else:
            if record is not None and not self._compact:
                raise ModelError(
                    "this cache holds fewer tokens than the prompt, so the positions of another picture are not known; "
                    "begin anew without past_key_values"
                )
            places = self._places(kwargs.get("position_ids"), keep_BS, cached)
            next_M = torch.where(keep_BS, places.reshape(-1, *places.shape[-2:]).amax(0), -1).amax(1) + 1
            source_B, kept = self._admit(embeddings_BSD, visual_MS & keep_BS, keep_BS)
            index_BS = self._index_BS
            assert index_BS is not None
            self.shorter = width - index_BS.shape[1]
            entered_BS = take(self._keep_BS, index_BS)
            changed = self._deepstack(kwargs, visual_MS, source_B)
            visual_BS = take(visual_MS[source_B], index_BS) & entered_BS
            # What is dropped may stand where a shorter row is padded, and nothing times infinity is NaN.
            embeddings_BSD = take(embeddings_BSD[source_B], index_BS).masked_fill(~entered_BS[:, :, None], 0)
            places, before_BT = places[..., source_B, :], before_BT[source_B]
            places = places.gather(-1, index_BS.expand(*places.shape[:-1], -1))
            keep_BS, next_B, length = entered_BS, next_M[source_B], cached + index_BS.shape[1]
            if record is not None:
                kept = [record.kept[row] + count for row, count in zip(source_B.tolist(), kept, strict=True)]
            if cache is not None and cached and source_B.tolist() != list(range(rows)):
                cache.batch_select_indices(source_B)
        valid_BT = torch.cat([before_BT, keep_BS], dim=1)
        if self._compact:
            places = (valid_BT.long().cumsum(1) - 1).clamp(min=0)[:, -embeddings_BSD.shape[1] :]
        self._record = _Record(valid_BT, length, next_B, kept)
        changed |= {"inputs_embeds": embeddings_BSD, "attention_mask": valid_BT.long(), "position_ids": places}
        if visual_BS is not None:
            visual_BT = torch.cat([torch.zeros_like(before_BT), visual_BS], dim=1)
            changed |= self._adapter.masks(self._model, inputs, visual_BT, {**kwargs, **changed})
        return args, {**kwargs, **changed}

    @property
    def _axes(self) -> int:
        return position_axes(self._model)

    def _places(self, given: Tensor | None, valid_MS: Tensor, cached: int) -> Tensor:
        """Position ids as they were given, for every row; the first of four axes, by which transformers finds packed
        sequences, is left out, since gaps would be taken for them."""
        rows, width = valid_MS.shape
        if given is None:
            if not self._compact and not bool(valid_MS.all()):
                raise ModelError("positions of padded rows are kept only where there are some; give position_ids")
            given = torch.arange(cached, cached + width, device=valid_MS.device).expand(self._axes or 1, 1, -1)
            given = given if self._axes else given[0]
        if self._axes and given.ndim == 2:  # plain numbers, which the decoder itself puts on all axes
            given = given.expand(self._axes, -1, -1)
        given = given[1:] if given.ndim == 3 and len(given) == 4 else given
        return given.expand(*given.shape[:-2], rows, -1)

    def _admit(self, embeddings_MSD: Tensor, visual_MS: Tensor, valid_MS: Tensor) -> tuple[Tensor, list[int]]:
        """Note which positions of which row enter, padded on the left; their rows and visual tokens."""
        watch, self._watch = self._watch or Stopwatch(visual_MS.device), None
        admitted = self._gate.admit(embeddings_MSD, visual_MS, watch)
        source_B = admitted.source_B
        self._keep_BS = (valid_MS & ~visual_MS)[source_B] | admitted.keep_BS
        lengths, filled = torch.stack([self._keep_BS.sum(1), valid_MS[source_B, -1].long()]).tolist()
        check_left_padded(filled)
        layers = len(self._decoder.layers)
        self.stats = PruningStats(tuple((count,) * layers for count in admitted.kept), (admitted.stage,), watch)
        self._index_BS = gather_index(self._keep_BS, max(lengths))
        return source_B, admitted.kept

    def _deepstack(self, kwargs: dict[str, Any], visual_MS: Tensor, source_B: Tensor) -> dict[str, Any]:
        """Features that the decoder adds after its first layers, of the tokens that entered."""
        features = kwargs.get("deepstack_visual_embeds")
        if features is None:
            return {}
        assert self._index_BS is not None
        mask_BS = visual_MS[source_B] & self._keep_BS
        number_MS = visual_MS.flatten().long().cumsum(0).view(visual_MS.shape) - 1
        kept_V = number_MS[source_B][mask_BS]
        return {
            "visual_pos_masks": take(mask_BS, self._index_BS),
            "deepstack_visual_embeds": [feature_VD[kept_V.to(feature_VD.device)] for feature_VD in features],
        }

    def _leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        record, self._record = self._record, None
        cache = getattr(output, "past_key_values", None)
        if record is not None and cache is not None:
            self._records[cache] = record


def has_entry(decoder: nn.Module) -> bool:
    """Whether an `Entry` is at work on this decoder."""
    return any(isinstance(getattr(hook, "__self__", None), Entry) for hook in decoder._forward_pre_hooks.values())


def _given_mask(inputs: Mapping[str, Any], given: Any) -> Tensor | None:
    """The valid tokens of the prompts [rows, tokens], of which some models make masks for each kind of layer.

    Args:
        inputs: arguments of the model's forward.
        given: the decoder's mask.

    Raises:
        ModelError: they are not to be had.
    """
    mask = inputs.get("attention_mask") if isinstance(given, dict) else given
    if mask is None or (isinstance(mask, Tensor) and mask.ndim == 2):
        return mask
    told = f"has {mask.ndim} dimensions" if isinstance(mask, Tensor) else "is made for each kind of layer"
    raise ModelError(f"attention_mask {told}; pruning needs [rows, tokens]")
