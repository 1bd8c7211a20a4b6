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

from clasp_calib.artifacts.artifact import Artifact, read_artifact
from clasp_calib.common.errors import ClaspError
from clasp_calib.runtime.routing import classes_of
from clasp_calib.serving.last_question import LastQuestion
from clasp_calib.serving.served import Served
from clasp_calib.serving.vllm_plugin.counters import count

logger = init_logger("vllm.clasp_calib")
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
        self._offered: dict[tuple[Any, ...], int] = {}
        """Size of a picture, and how it is processed -> its visual tokens."""

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """See vLLM. What a request says of itself wins over the server's class, and this over its question.

        Raises:
            ValueError: the artifact has no such class or budget, which a server answers with 400.
        """
        served, whole = self.clasp, super().apply  # type: ignore[misc]
        images = inputs.mm_data_items.get("image") if inputs.mm_data_items else None
        if served is None or not isinstance(images, ImageProcessorItems):
            return whole(inputs, timing_ctx)
        kwargs = {**inputs.hf_processor_mm_kwargs, DIGEST: served.digest}
        if ENTRY in kwargs:  # a picture that vLLM measures itself by
            return whole(replace(inputs, hf_processor_mm_kwargs=kwargs), timing_ctx)
        asked, budget = kwargs.pop(LABEL, None), kwargs.pop(BUDGET, None)
        by, confidence = ("request" if asked else "server"), None
        if not (label := asked or served.label):
            label, by, confidence = self._routed(inputs.prompt)
        try:
            kwargs[ENTRY] = served.number(label, budget)
        except ClaspError as error:
            raise ValueError(str(error)) from error
        made = whole(replace(inputs, hf_processor_mm_kwargs=kwargs), timing_ctx)
        plain, _ = _parted(kwargs)
        offered = [self._offered.get(_look(images, item, plain), 0) for item in range(len(images))]
        kept = [place.get_num_embeds() for place in made["mm_placeholders"]["image"]]
        count(served.entries[kwargs[ENTRY]], by, confidence, sum(offered), kept)
        logger.debug("class %s (by %s): %s of %s visual tokens", label, by, kept, offered)
        return made

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """Of the entry that keeps the most: from it vLLM learns how large a picture can be."""
        inputs = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        if self.clasp:
            inputs = replace(inputs, hf_processor_mm_kwargs={ENTRY: self.clasp.most()})
        return inputs

    def _routed(self, prompt: Sequence[int] | str) -> tuple[str, str, float | None]:
        """The class of a prompt, who named it, and the router's confidence."""
        question = self._question(prompt if isinstance(prompt, str) else self.info.get_tokenizer().decode(prompt))
        if (router := self._artifact.router) is not None:
            decision = router.route(question)
            return decision.label, "router", decision.confidence
        (label,) = classes_of([question], self._artifact)
        return label, "rules", None

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
            self._offered[look(item)] = full.count(token)
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
    """What the number of visual tokens of a picture depends on."""
    size = images.get_image_size(item)
    return size.width, size.height, repr(sorted(kwargs.items()))


def _parted(kwargs: Mapping[str, object]) -> tuple[dict[str, object], int | None]:
    """Keywords of transformers' processor, which would refuse ours, and the entry."""
    own = {LABEL, BUDGET, ENTRY, DIGEST}
    number = kwargs.get(ENTRY)
    assert number is None or isinstance(number, int)
    return {name: value for name, value in kwargs.items() if name not in own}, number
