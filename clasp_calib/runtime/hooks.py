"""How pruning attaches to a transformers model: hooks on its decoder layers, all of them taken off again.

The layers before each stage also get an attention function that, beside the model's own, notes the relevance
of every token. Layers after a stage hold fewer keys than layer 0, from which transformers makes its mask, so
every stage makes its own.

B rows, S tokens of a call, T keys.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.attention import PRUNED_ALREADY, watched_attention
from clasp_calib.runtime.checks import check_call, check_generate
from clasp_calib.runtime.deepstack import Deepstack
from clasp_calib.runtime.entry import Entry, has_entry
from clasp_calib.runtime.generation import check_modalities, modalities, watched_generate
from clasp_calib.runtime.stages import FANNED, Rope, StagePlan, StagePrefill, expand_rows
from clasp_calib.runtime.stats import PruningStats


class _Call:
    """One forward of the decoder: what replaces transformers' own mask and rope from the first stage on."""

    def __init__(
        self, prefill: StagePrefill | None, mask_BT: Tensor | None, record: dict[int, Tensor | None] | None
    ) -> None:
        self.prefill = prefill
        self.key_valid_BT = None if mask_BT is None else mask_BT.bool()
        self.cache: Any = None
        self.deepstack: Deepstack | None = None
        self.key_valid_by_stage: dict[int, Tensor | None] = {}
        self.mask: Any = None
        self.rope: Rope | None = None
        self._given_BT = self.key_valid_BT
        self._record = record

    def fan_out(self, source_B: Tensor) -> None:
        """Let the rows of the cache, and what is known of its keys, go on as those of the candidates."""
        if self._given_BT is not None:
            self._given_BT = self._given_BT[source_B]
        if self._record is not None:
            self._record = {start: None if k is None else k[source_B] for start, k in self._record.items()}
        if self.cache is not None:
            self.cache.batch_select_indices(source_B)

    def note_keys(self, start: int, rows: int, width: int) -> int:
        """Find out which keys the layers of a stage will see; returns how many of them are cached."""
        cached = 0 if self.cache is None else int(self.cache.get_seq_length(start))
        before = self._given_BT if self._record is None else self._record[start]
        if self.prefill is not None:
            now = self.prefill.valid_BS if self.prefill.padded else None
        else:
            now = None if self._given_BT is None else self._given_BT[:, -width:]
        parts = [(None if cached == 0 else before, cached), (now, width)]
        self.key_valid_BT = None
        if any(part is not None for part, _ in parts):
            device = next(part.device for part, _ in parts if part is not None)
            ones = torch.ones(rows, cached + width, dtype=torch.bool, device=device)
            self.key_valid_BT = torch.cat(
                [ones[:, :length] if part is None else part[:, :length] for part, length in parts], dim=1
            )
        self.key_valid_by_stage[start] = self.key_valid_BT
        return cached


class Pruner:
    """A model under pruning.

    ``stats`` tells what the last forward that brought pictures kept; it is ``None`` before there was one, and
    where nothing is pruned.
    """

    def __init__(self, model: nn.Module, adapter: Adapter, plan: StagePlan, entry: Entry | None = None) -> None:
        self.plan = plan
        self._entry = entry
        self._adapter = adapter
        self._model = model
        self._decoder: Any = adapter.language_model(model)
        self._visual_BS: Tensor | None = None
        self._call: _Call | None = None
        self.stats: PruningStats | None = None
        # Which keys of a cache are valid, by stage. All beams of a prompt have the same, so that reordering a
        # cache leaves them true.
        self._records: WeakKeyDictionary[Any, dict[int, Tensor | None]] = WeakKeyDictionary()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the hooks on; on leaving, however that comes about, nothing of them is left on the model.

        Raises:
            ModelError: the model is being pruned already, inside the decoder or before it.
        """
        stages = self.plan.stages
        if not stages:
            yield
            return
        watched = "get_image_features" in vars(self._adapter.multimodal_model(self._model))
        if self._entry is None and (watched or has_entry(self._decoder)):
            raise ModelError(PRUNED_ALREADY)
        with ExitStack() as undo:
            undo.enter_context(watched_generate(self._model, self._see_generate))

            def hook(handle: Any) -> None:
                undo.callback(handle.remove)

            deepstacked = "deepstack_visual_embeds" in signature(self._decoder.forward).parameters
            multimodal = self._adapter.multimodal_model(self._model)
            hook(multimodal.register_forward_pre_hook(self._see_inputs, with_kwargs=True))
            hook(self._decoder.register_forward_pre_hook(self._begin, with_kwargs=True))
            hook(self._decoder.register_forward_hook(self._end, always_call=True))
            for index, layer in enumerate(self._decoder.layers):
                if index + 1 in stages:
                    undo.enter_context(watched_attention(layer.self_attn, self._score))
                if index in stages:
                    hook(layer.register_forward_pre_hook(partial(self._enter, index), with_kwargs=True))
                if index >= min(stages):
                    hook(layer.register_forward_pre_hook(self._follow, with_kwargs=True))
                if deepstacked:
                    hook(layer.register_forward_hook(partial(self._leave, index)))
            yield

    def _score(self, query: Tensor, key: Tensor, scaling: float) -> None:
        if self._call is not None and self._call.prefill is not None:
            self._call.prefill.score(query, key, scaling, self._call.key_valid_BT)

    def _see_generate(self, ids_BS: Tensor | None, kwargs: dict[str, Any]) -> None:
        check_generate(self._model, ids_BS, kwargs)
        check_modalities(self._adapter, kwargs)
        if self.plan.fan is not None and kwargs.get("past_key_values") is None:
            raise ModelError(FANNED)

    def _see_inputs(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids_BS = args[0] if args else kwargs.get("input_ids")
        check_call(ids_BS, kwargs.get("past_key_values"))
        assert ids_BS is not None
        ids = [self._adapter.visual_token_ids[modality] for modality in modalities(self._adapter, kwargs)]
        self._visual_BS = torch.isin(ids_BS, torch.tensor(ids, device=ids_BS.device)) if ids else None

    def _begin(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        visual_BS, self._visual_BS, self._call = self._visual_BS, None, None
        if visual_BS is not None and self._entry is not None:
            visual_BS = self._entry.entered(visual_BS)
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        record = None if cache is None else self._records.get(cache)
        if visual_BS is None and record is None:
            last = len(self._decoder.layers) - 1
            if cache is not None and cache.get_seq_length(0) != cache.get_seq_length(last):
                raise ModelError("this cache was pruned in another context; go on with it there, or start anew")
            return None
        if mask is not None and mask.ndim != 2:
            raise ModelError(f"attention_mask has {mask.ndim} dimensions; pruning needs [rows, tokens]")
        prefill = None
        if visual_BS is not None:
            valid_BS = None if mask is None else mask[:, -visual_BS.shape[1] :].bool()
            cached = 0 if cache is None else cache.get_seq_length()
            prefill = self.plan.begin(kwargs["inputs_embeds"], visual_BS, valid_BS, cached)
        self._call = _Call(prefill, mask, record)
        if prefill is not None:
            kwargs = dict(kwargs)
            self._call.deepstack = Deepstack.taken_from(kwargs, prefill)
        return args, kwargs

    def _enter(
        self, start: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        call = self._call
        if call is None:
            return None
        hidden_BSD, call.cache = args[0], kwargs.get("past_key_values")
        if call.prefill is not None:
            hidden_BSD, call.rope = call.prefill.prune(
                start, self.plan.stages[start], hidden_BSD, call.rope or kwargs["position_embeddings"]
            )
            if self.plan.fan is not None and start == min(self.plan.stages):
                call.fan_out(call.prefill.source_B)
        cached = call.note_keys(start, *hidden_BSD.shape[:2])
        # Without position ids: their gaps would be taken for packed sequences. The layer's index, because the
        # lengths of the cache differ from layer to layer.
        call.mask = create_causal_mask(
            config=self._decoder.config,
            inputs_embeds=hidden_BSD,
            attention_mask=call.key_valid_BT,
            past_key_values=call.cache,
            position_ids=None,
            layer_idx=start,
        )
        if any(self.plan.renumbers):
            compact = self._compact_rope(call, hidden_BSD, cached)
            call.rope = self._of_renumbered(compact, call.rope or kwargs["position_embeddings"], len(hidden_BSD))
        return (hidden_BSD, *args[1:]), kwargs

    def _of_renumbered(self, compact: Rope, given: Rope, rows: int) -> Rope:
        """The one in rows whose positions are numbered anew, the other elsewhere."""
        if all(self.plan.renumbers):
            return compact
        renumbered_B = expand_rows(torch.tensor(self.plan.renumbers), rows, "positions").to(compact[0].device)
        cos_BSd, sin_BSd = (torch.where(renumbered_B[:, None, None], *of) for of in zip(compact, given, strict=True))
        return cos_BSd, sin_BSd

    def _compact_rope(self, call: _Call, hidden_BSD: Tensor, cached: int) -> Rope:
        width = hidden_BSD.shape[1]
        if call.key_valid_BT is None:
            position_BS = torch.arange(cached, cached + width, device=hidden_BSD.device)[None]
        else:
            position_BS = (call.key_valid_BT.long().cumsum(1) - 1).clamp(min=0)[:, -width:]
        rope: Rope = self._decoder.rotary_emb(hidden_BSD, position_ids=position_BS)
        return rope

    def _follow(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        call = self._call
        if call is None:
            return None
        replaced = {"attention_mask": call.mask, "position_ids": None}
        if call.rope is not None:
            replaced["position_embeddings"] = call.rope
        return args, {**kwargs, **replaced}

    def _leave(self, index: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        deepstack = None if self._call is None else self._call.deepstack
        return None if deepstack is None else deepstack.add(index, output)

    def _end(self, *_: Any) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        if call.cache is not None:
            if call.prefill is not None:
                call.prefill.finish(call.cache, call.key_valid_by_stage)
            self._records[call.cache] = call.key_valid_by_stage
        if call.prefill is not None:
            self.stats = call.prefill.stats()
