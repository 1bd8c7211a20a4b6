"""Pruning at the decoder's input: visual tokens that never enter it, marked by what encodes the pictures.

A token that is not to enter is marked `DROPPED` by `chosen_tokens`. The mark is in the features themselves, so that it
survives what ``generate`` does with them before the first forward: repeating them for beams, and handing them over.
All layers then hold the same, shorter sequence, which nothing outside of the decoder knows of; so every later call
is given its mask and positions here.

B rows, S tokens of a call, T keys, N visual tokens of a row, D width.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.attention import PRUNED_ALREADY, is_watched
from clasp_calib.runtime.checks import check_call, check_generate
from clasp_calib.runtime.encoding import DROPPED, Choose, Encoded, Kept
from clasp_calib.runtime.generation import modalities, watched_generate
from clasp_calib.runtime.scoring import gather_index, take
from clasp_calib.runtime.stages import check_left_padded
from clasp_calib.runtime.stats import PruningStats, StageStats, Stopwatch


class Entry:
    """A decoder that takes in only what is not `DROPPED`; ``stats`` describe the last forward that brought pictures.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        positions: ``compact`` numbers what is left 0, 1, 2...; ``keep`` leaves every token its position ids.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, positions: str) -> None:
        self._model, self._adapter, self._compact = model, adapter, positions == "compact"
        self._decoder: Any = adapter.language_model(model)
        self._visual_BS: Tensor | None = None
        self._valid_BT: Tensor | None = None
        self._index_BS: Tensor | None = None
        # Which keys of a cache are valid. All beams of a prompt have the same, so that reordering leaves them true.
        self._records: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()
        self._generating = False
        self._watch: Stopwatch | None = None
        self.stats: PruningStats | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the hooks on; on leaving nothing of them is left on the model.

        Raises:
            ModelError: the decoder adds visual features on its way, or is being pruned already.
        """
        if "deepstack_visual_embeds" in signature(self._decoder.forward).parameters:
            raise ModelError(
                "a decoder with deepstack adds visual features after its first layers too, where tokens that never "
                "entered are missing; prune this model inside its decoder (prune or clasp)"
            )
        if any(is_watched(layer.self_attn) for layer in self._decoder.layers):
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
        cache = kwargs.get("past_key_values")
        if cache is not None and cache in self._records:
            raise ModelError(
                "this cache holds fewer tokens than the prompt, so generate would misread where to go on; "
                "begin anew without past_key_values"
            )
        self._refuse_features(kwargs)
        self._generating = True

    def _generated(self) -> None:
        self._generating = False

    def _refuse_features(self, kwargs: dict[str, Any]) -> None:
        if kwargs.get("mm_encoder_outputs"):
            raise ModelError(
                "this method chooses tokens while the picture is encoded, and was given features instead; "
                "give pixel_values"
            )

    def _see_inputs(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids_BS = args[0] if args else kwargs.get("input_ids")
        check_call(ids_BS, kwargs.get("past_key_values"))
        assert ids_BS is not None
        if not self._generating:
            self._refuse_features(kwargs)
        brought = modalities(self._adapter, kwargs)
        if "video" in brought:
            raise ModelError("this method is defined for images, and was given a video; give images")
        self._visual_BS = ids_BS == self._adapter.visual_token_ids["image"] if brought else None

    def _enter(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        visual_BS, self._visual_BS, self._valid_BT = self._visual_BS, None, None
        cache, mask_BT = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        record_BT = None if cache is None else self._records.get(cache)
        if visual_BS is None and record_BT is None:
            return None
        if mask_BT is not None and mask_BT.ndim != 2:
            raise ModelError(f"attention_mask has {mask_BT.ndim} dimensions; pruning needs [rows, tokens]")
        embeddings_BSD, cached = kwargs["inputs_embeds"], 0 if cache is None else int(cache.get_seq_length())
        rows, width = embeddings_BSD.shape[:2]
        ones_BS = torch.ones(rows, width, dtype=torch.bool, device=embeddings_BSD.device)
        keep_BS = ones_BS if mask_BT is None else mask_BT[:, -width:].bool()
        places = kwargs.get("position_ids")
        if visual_BS is not None:
            index_BS, keep_BS = self._survivors(embeddings_BSD, visual_BS & keep_BS, keep_BS)
            self._index_BS = index_BS
            # What is dropped may stand where a shorter row is padded, and nothing times infinity is NaN.
            embeddings_BSD = take(embeddings_BSD, index_BS).masked_fill(~keep_BS[:, :, None], 0)
            if places is not None:
                places = places.expand(*places.shape[:-2], rows, -1)
                places = places.gather(-1, index_BS.expand(*places.shape[:-1], -1))
            elif not self._compact:
                raise ModelError("positions are kept only where there are some; call this model with position_ids")
        before_BT = record_BT if record_BT is not None or mask_BT is None else mask_BT[:, :-width].bool()
        before_BT = ones_BS[:, :1].expand(-1, cached) if before_BT is None else before_BT[:, :cached]
        self._valid_BT = valid_BT = torch.cat([before_BT, keep_BS], dim=1)
        if self._compact:
            places = (valid_BT.long().cumsum(1) - 1).clamp(min=0)[:, -embeddings_BSD.shape[1] :]
        elif places is not None and len(places) == 4:
            places = places[1:]  # the first axis is there to find packed sequences, for which gaps would be taken
        changed = {"inputs_embeds": embeddings_BSD, "attention_mask": valid_BT.long(), "position_ids": places}
        return args, {**kwargs, **changed}

    def _survivors(self, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [B, S'] of what enters the decoder, padded on the left, and which of them are no padding."""
        dropped_BS = visual_BS & (embeddings_BSD[:, :, 0] == DROPPED)
        keep_BS, kept_BS = valid_BS & ~dropped_BS, visual_BS & ~dropped_BS
        numbers = torch.stack([visual_BS.sum(1), kept_BS.sum(1), keep_BS.sum(1), valid_BS[:, -1].long()])
        offered, kept, lengths, filled = numbers.tolist()
        check_left_padded(filled)
        layers = len(self._decoder.layers)
        stage = _stage(gather_index(visual_BS, max(offered)), kept_BS, offered, kept)
        watch, self._watch = self._watch or Stopwatch(visual_BS.device), None
        self.stats = PruningStats(tuple((count,) * layers for count in kept), (stage,), watch)
        index_BS = gather_index(keep_BS, max(lengths))
        return index_BS, take(keep_BS, index_BS)

    def _leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        valid_BT, self._valid_BT = self._valid_BT, None
        cache = getattr(output, "past_key_values", None)
        if valid_BT is not None and cache is not None:
            self._records[cache] = valid_BT


def _stage(visual_BN: Tensor, kept_BS: Tensor, offered: list[int], kept: list[int]) -> StageStats:
    """What is left as a stage at layer 0; there are no relevances, and all count as pivots."""
    spare_B1 = visual_BN.shape[1] - torch.tensor(offered, device=visual_BN.device)[:, None]
    patch_BN = torch.arange(visual_BN.shape[1], device=visual_BN.device) - spare_B1
    keep_BN = take(kept_BS, visual_BN) & (patch_BN >= 0)
    kept_BK = gather_index(keep_BN, max(kept))
    pivots_BK = take(keep_BN, kept_BK)
    patches_BK = take(patch_BN, kept_BK).masked_fill(~pivots_BK, -1)
    return StageStats(0, patches_BK, pivots_BK, patch_BN.clamp(min=-1), torch.zeros_like(patch_BN, dtype=torch.float))
