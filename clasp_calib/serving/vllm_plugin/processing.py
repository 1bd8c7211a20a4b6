"""The side of vLLM that sees requests: which class a prompt is of, and how many tokens its pictures get.

The entry of a request travels as a keyword of the processor, which is part of a picture's hash. So what vLLM keeps of
pictures, as the processor makes them, as the tower encodes them, and as the decoder's keys and values, it keeps apart
for each entry of each artifact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import PromptReplacement
from vllm.multimodal.processing.processor import PromptUpdateDetails

from clasp_calib.common.errors import ClaspError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.serving.served import ServedArtifact
from clasp_calib.serving.vllm_plugin.counters import count
from clasp_calib.serving.vllm_plugin.prompt_router import PromptRouter
from clasp_calib.serving.vllm_plugin.received import DIGEST, ENTRY, OWN, PIXELS

logger = init_logger("vllm.clasp_calib")
LABEL, BUDGET = "clasp_class", "clasp_budget"
"""What a request may say of itself, in ``mm_processor_kwargs``."""
REMEMBERED = 10_000
"""Pictures whose tokens before pruning are remembered, for those of which vLLM remembers the rest."""


class _Measured(int):
    """The entry of a picture that vLLM measures itself by; no request can hold one."""


class PrunedProcessing:
    """Mixed into a processor of vLLM's, before it. Without an artifact it does nothing."""

    info: Any
    clasp: ServedArtifact | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clasp = ServedArtifact.of(self.info.get_hf_config())
        self._by_size: dict[tuple[Any, ...], int] = {}
        self._by_hash: dict[str, int] = {}
        """Visual tokens before pruning."""

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """See vLLM. What a request says of itself wins over the server's class, and this over its question.

        Raises:
            ValueError: the artifact has no such class or budget, or nothing tells the class, which a server answers
                with 400.
        """
        served, whole = self.clasp, super().apply  # type: ignore[misc]
        images = inputs.mm_data_items.get("image") if inputs.mm_data_items else None
        if served is None or not images or not isinstance(images, ImageProcessorItems):
            return whole(inputs, timing_ctx)
        kwargs, by, confidence = dict(inputs.hf_processor_mm_kwargs), "server", None
        measured = kwargs.pop(ENTRY, None) if isinstance(kwargs.get(ENTRY), _Measured) else None
        if taken := [name for name in (ENTRY, DIGEST) if name in kwargs]:
            raise ValueError(f"a request cannot say {taken[0]}; expected {LABEL} and {BUDGET}")
        kwargs[DIGEST] = served.digest
        if measured is not None:
            return whole(replace(inputs, hf_processor_mm_kwargs={**kwargs, ENTRY: int(measured)}), timing_ctx)
        label, budget = kwargs.pop(LABEL, None), kwargs.pop(BUDGET, None)
        try:
            if label is not None:
                by = "request"
            elif (label := served.label) is None:
                label, by, confidence = self._router(inputs.prompt)
            kwargs[ENTRY] = served.entry_index(label, budget)
        except ClaspError as error:
            raise ValueError(str(error)) from error
        made = whole(replace(inputs, hf_processor_mm_kwargs=kwargs), timing_ctx)
        offered = self._offered(images, made["mm_hashes"]["image"], _parted(kwargs)[0])
        kept = [place.get_num_embeds() for place in made["mm_placeholders"]["image"]]
        count(served.entries[kwargs[ENTRY]], by, confidence, offered, kept)
        logger.debug("class %s (by %s): %s of %s visual tokens", label, by, kept, offered)
        return made

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """Of the entry that keeps the most: from it vLLM learns how large a picture can be."""
        inputs = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        if self.clasp:
            tokens = picture_tokens(adapter_for(self.info.get_hf_config()))
            largest = self.clasp.largest_entry() if tokens is None else self.clasp.largest_entry(tokens)
            inputs = replace(inputs, hf_processor_mm_kwargs={ENTRY: _Measured(largest)})
        return inputs

    @cached_property
    def _router(self) -> PromptRouter:
        assert self.clasp is not None
        return PromptRouter(self.clasp, self.info.get_hf_processor(), self.info.get_tokenizer())

    def _offered(self, images: Any, hashes: Sequence[str], kwargs: Mapping[str, object]) -> int:
        """Visual tokens of a request's pictures before pruning, as far as they are known."""
        for known in (self._by_size, self._by_hash):
            if len(known) > REMEMBERED:
                known.clear()
        for item, name in enumerate(hashes):
            if tokens := self._by_size.get(_look(images, item, kwargs)):
                self._by_hash[name] = tokens
        return sum(self._by_hash.get(name, 0) for name in hashes)

    def _get_hf_mm_inputs(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        kwargs, number = _parted(hf_kwargs)
        made = super()._get_hf_mm_inputs(mm_items, kwargs)  # type: ignore[misc]
        if number is not None and isinstance(images := mm_items.get("image"), ImageProcessorItems):
            assert self.clasp is not None
            told = {name: torch.full((len(images),), of) for name, of in ((ENTRY, number), (DIGEST, self.clasp.mark))}
            made = made._replace(passthrough_data={**made.passthrough_data, **told})
        return made

    def _finalize_hf_mm_data(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._finalize_hf_mm_data(*args, **kwargs)  # type: ignore[misc]
        if ENTRY in made and OWN in made:
            made[PIXELS] = made.pop(OWN)
        return made

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        kwargs, number = _parted(hf_processor_mm_kwargs)
        fields = dict(super()._get_mm_fields_config(hf_inputs, kwargs))  # type: ignore[misc]
        if number is None or OWN not in fields:
            return fields
        # On a GPU a number that decides how many tokens there are would be waited for.
        fields |= {name: MultiModalFieldConfig.batched("image", keep_on_cpu=True) for name in (ENTRY, DIGEST)}
        return fields | {PIXELS: fields.pop(OWN)}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        kwargs, number = _parted(hf_processor_mm_kwargs)
        updates = super()._get_prompt_updates(mm_items, kwargs, out_mm_kwargs)  # type: ignore[misc]
        if number is None or not isinstance(mm_items.get("image"), ImageProcessorItems):
            return list(updates)
        images = mm_items["image"]
        return [
            self._fewer(update, number, lambda item: _look(images, item, kwargs))
            if update.modality == "image"
            else update
            for update in updates
        ]

    def _fewer(self, update: Any, number: int, look: Callable[[int], tuple[Any, ...]]) -> Any:
        """The same with as many places for a picture as the entry keeps tokens."""
        assert self.clasp is not None
        entry, token = self.clasp.entries[number], self._visual_token

        def replacement(item: int) -> Any:
            whole = update.replacement(item) if callable(update.replacement) else update.replacement
            full = whole.full if isinstance(whole, PromptUpdateDetails) else whole
            self._by_size[look(item)] = full.count(token)
            ids = [token] * entry.kept(full.count(token))
            # What stands around a picture's tokens stays.
            first, behind = full.index(token), len(full) - full[::-1].index(token)
            ids = [*full[:first], *ids, *full[behind:]]
            return replace(whole, full=ids) if isinstance(whole, PromptUpdateDetails) else ids

        return PromptReplacement("image", update.target, replacement)

    @property
    def _visual_token(self) -> int:
        config = self.info.get_hf_config()
        token: int = config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index
        return token


def _look(images: Any, item: int, kwargs: Mapping[str, object]) -> tuple[Any, ...]:
    """What the number of visual tokens of a picture depends on; nothing of one that vLLM remembers by a name."""
    if images.get(item) is None:
        return ()
    size = images.get_image_size(item)
    return size.width, size.height, repr(sorted(kwargs.items()))


def _parted(kwargs: Mapping[str, object]) -> tuple[dict[str, object], int | None]:
    """Keywords of transformers' processor, which would refuse ours, and the entry."""
    own = {LABEL, BUDGET, ENTRY, DIGEST}
    number = kwargs.get(ENTRY)
    assert number is None or isinstance(number, int)
    return {name: value for name, value in kwargs.items() if name not in own}, number
