"""The side of vLLM that sees requests: which class a prompt is of, and how many tokens its pictures get.

The entry of a request travels as a keyword of the processor, which is part of a picture's hash. So what vLLM keeps of
pictures, as the processor makes them, as the tower encodes them, and as the decoder's keys and values, it keeps apart
for each entry of each artifact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import PromptReplacement
from vllm.multimodal.processing.processor import PromptUpdateDetails

from clasp_calib.artifacts.artifact import Artifact, read_artifact
from clasp_calib.common.errors import InputError
from clasp_calib.runtime.routing import classes_of
from clasp_calib.serving.questions import LastQuestion
from clasp_calib.serving.served import Served
from clasp_calib.serving.vllm_plugin.counters import count

LABEL, BUDGET = "clasp_class", "clasp_budget"
"""What a request may say of itself, in ``mm_processor_kwargs``."""
ENTRY, DIGEST = "clasp_entry", "clasp_artifact"
"""What becomes of it."""


class PrunedProcessing:
    """Mixed into a processor of vLLM's, before it. Without an artifact it does nothing."""

    info: Any
    clasp: Served | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clasp = Served.of(self.info.get_hf_config())

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """See vLLM. What a request says of itself wins over what its question says."""
        served = self.clasp
        images = inputs.mm_data_items.get("image") if inputs.mm_data_items else None
        if served is None or not isinstance(images, ImageProcessorItems):
            return super().apply(inputs, timing_ctx)  # type: ignore[misc]
        kwargs = dict(inputs.hf_processor_mm_kwargs)
        if ENTRY not in kwargs:
            label, budget = kwargs.pop(LABEL, None) or served.label, kwargs.pop(BUDGET, None)
            routed = label is None
            label = label or self._routed(inputs.prompt)
            try:
                kwargs[ENTRY] = served.number(label, budget)
            except InputError as error:
                raise ValueError(str(error)) from error  # which a server answers with 400
            count(served.entries[kwargs[ENTRY]], len(images), routed)
        kwargs[DIGEST] = served.digest
        return super().apply(replace(inputs, hf_processor_mm_kwargs=kwargs), timing_ctx)  # type: ignore[misc]

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """Of the entry that keeps the most: from it vLLM learns how large a picture can be."""
        inputs = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        if self.clasp:
            inputs = replace(inputs, hf_processor_mm_kwargs={ENTRY: self.clasp.most()})
        return inputs

    def _routed(self, prompt: Sequence[int] | str) -> str:
        text = prompt if isinstance(prompt, str) else self.info.get_tokenizer().decode(prompt)
        (label,) = classes_of([self._question(text)], self._artifact)
        return label

    @cached_property
    def _artifact(self) -> Artifact:
        assert self.clasp is not None
        return read_artifact(self.clasp.place)

    @cached_property
    def _question(self) -> LastQuestion:
        processor, tokenizer = self.info.get_hf_processor(), self.info.get_tokenizer()
        own = next((one for one in (processor, tokenizer) if getattr(one, "chat_template", None)), None)

        def render(messages: list[dict[str, Any]]) -> str:
            assert own is not None
            text: str = own.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return text

        marks = [*tokenizer.all_special_tokens, getattr(processor, "image_token", "")]
        marks += [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
        return LastQuestion.of(self._artifact.manifest.prompt, render if own else None, marks)

    def _get_hf_mm_inputs(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        kwargs, number = _parted(hf_kwargs)
        made = super()._get_hf_mm_inputs(mm_items, kwargs)  # type: ignore[misc]
        if number is not None and isinstance(images := mm_items.get("image"), ImageProcessorItems):
            entries = torch.full((len(images),), number)
            made = made._replace(passthrough_data={**made.passthrough_data, ENTRY: entries})
        return made

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        kwargs, number = _parted(hf_processor_mm_kwargs)
        fields = dict(super()._get_mm_fields_config(hf_inputs, kwargs))  # type: ignore[misc]
        # On a GPU a number that decides how many tokens there are would be waited for.
        return fields if number is None else {**fields, ENTRY: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        kwargs, number = _parted(hf_processor_mm_kwargs)
        updates = super()._get_prompt_updates(mm_items, kwargs, out_mm_kwargs)  # type: ignore[misc]
        if number is None or not isinstance(mm_items.get("image"), ImageProcessorItems):
            return list(updates)
        return [self._fewer(update, number) if update.modality == "image" else update for update in updates]

    def _fewer(self, update: Any, number: int) -> Any:
        """The same with as many places for a picture as the entry keeps tokens."""
        assert self.clasp is not None
        entry, token = self.clasp.entries[number], self._visual_token

        def replacement(item: int) -> Any:
            whole = update.replacement(item) if callable(update.replacement) else update.replacement
            full = whole.full if isinstance(whole, PromptUpdateDetails) else whole
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


def _parted(kwargs: Mapping[str, object]) -> tuple[dict[str, object], int | None]:
    """Keywords of transformers' processor, which would refuse ours, and the entry."""
    own = {LABEL, BUDGET, ENTRY, DIGEST}
    number = kwargs.get(ENTRY)
    assert number is None or isinstance(number, int)
    return {name: value for name, value in kwargs.items() if name not in own}, number
