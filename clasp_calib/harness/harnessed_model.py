"""A pruned model that answers the requests of a harness, many at a time.

B requests, S tokens of a prompt, T of an answer.
"""

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from clasp_calib.api.model_loading import load_model
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.templates import ChatTemplate, instruction_in
from clasp_calib.common.containing import contained
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.media import ResizedPicture
from clasp_calib.common.progress import note_once
from clasp_calib.common.samples import Given
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.prompted_request import PromptedRequest
from clasp_calib.harness.pruning_ways import PruningWay
from clasp_calib.harness.way_choice import check_way, pruning_way
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.checks import check_length
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.finite import finite_logits
from clasp_calib.runtime.model_inputs import model_inputs
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.processor_check import check_processor, check_together
from clasp_calib.runtime.smaller_pictures import as_sized

GREEDY: Mapping[str, Any] = {}
"""Settings of decoding beside those of the model: none."""


@dataclass(frozen=True)
class HarnessAnswer:
    """What the model said, and what it saw."""

    text: str
    """Without special tokens and outer white space."""
    label: str | None
    """Class that the request was answered as."""
    before: int
    """Visual tokens that entered the model."""
    kept: float
    """Mean visual tokens that a decoder layer worked on."""
    prompt_tokens: int
    new_tokens: int
    seconds: float
    """Of ``generate``, its part of the batch's."""


@dataclass(frozen=True)
class Likelihood:
    """How likely an answer is after a request."""

    loss: float
    """Mean negative log-likelihood of its tokens, in nats; what ends the answer is not counted."""
    greedy: bool
    """Whether greedy decoding begins with it."""
    label: str | None
    before: int
    kept: float


class HarnessedModel:
    """A model under the pruning that options say.

    Args:
        model: in evaluation mode.
        processor: the model's.
        options: what prunes, and the size of batches.

    Raises:
        ClaspError: see `clasp_calib.harness.way_choice.pruning_way`; or the processor is not the model's, or there is
            no prompt template.
    """

    def __init__(self, model: Any, processor: Any, options: HarnessOptions) -> None:
        check_processor(model, processor)
        self._model, self._processor = model, processor
        self.way: PruningWay = pruning_way(model, processor, options)
        self._batch = options.batch_size if self.way.batches else 1
        self._adapter = adapter_for(model)
        self._prompter = Prompter(processor, model, _template(processor, self.way.prompt))
        self._greedy = Greedy(model, processor.tokenizer)
        self._greedy.say()

    @classmethod
    def load(cls, options: HarnessOptions) -> "HarnessedModel":
        """Load the model and what prunes it.

        Raises:
            ClaspError: see the class, and `clasp_calib.api.model_loading.load_model`.
        """
        check_way(options)
        return cls(*load_model(options.pretrained, options.device, options.dtype), options)

    @property
    def template(self) -> str:
        """Of the prompts of one question, with ``<image>`` and ``{question}``."""
        return self._prompter.template

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._model.device
        return device

    @torch.inference_mode()
    def answers(
        self, requests: Sequence[PromptedRequest], max_new_tokens: int, decoding: Mapping[str, Any] = GREEDY
    ) -> Iterator[tuple[int, HarnessAnswer]]:
        """Answer requests in an order that suits batches.

        Args:
            requests: what is asked.
            max_new_tokens: longest answer.
            decoding: arguments of ``generate`` instead of those of greedy decoding, such as ``num_beams``.

        Yields:
            The place of a request, and its answer.

        Raises:
            InputError: a picture cannot be read, or a prompt is longer than the model's context.
            ModelError: the chat template does not show all pictures; numbers are not finite.
            ComputationError: the model fails, or its memory is too small.
        """
        labels = self._labels(requests)
        for places in self._batches(requests, labels):
            of, classes = [requests[place] for place in places], [labels[place] for place in places]
            with contained(f"answering {_named(of)}"):
                found = self._answered(of, classes, max_new_tokens, decoding)
            yield from zip(places, found, strict=True)

    @torch.inference_mode()
    def likelihoods(self, request: PromptedRequest, continuations: Sequence[str]) -> list[Likelihood]:
        """How likely each answer is after a request; one forward each, the picture is prepared once.

        Raises:
            ClaspError: see `answers`; or an answer is empty.
        """
        (label,) = self._labels([request])
        with contained(f"scoring answers of {request.name}"):
            text, inputs = self._text(request), self._inputs([request], [label])
            return [self._likelihood(request, label, text, inputs, answer) for answer in continuations]

    def _labels(self, requests: Sequence[PromptedRequest]) -> list[str | None]:
        return self.way.classes(requests)

    def _batches(self, requests: Sequence[PromptedRequest], labels: Sequence[str | None]) -> Iterator[list[int]]:
        """Places of requests that share a forward, in the order of their first ones."""
        groups: dict[Hashable, list[int]] = {}
        for place, (request, label) in enumerate(zip(requests, labels, strict=True)):
            # Our choice: videos alone, for a processor takes either videos or pictures, and a video is long.
            key = (place,) if request.modality == "video" else (request.modality, self.way.alike(label))
            groups.setdefault(key, []).append(place)
        for places in groups.values():
            size = self._batch if self._pads else 1
            yield from (places[first : first + size] for first in range(0, len(places), size))

    @cached_property
    def _pads(self) -> bool:
        """Whether prompts of several lengths can stand in a batch."""
        if self._batch > 1 and self._processor.tokenizer.pad_token_id is None:
            note_once("the model's tokenizer has no padding token, so questions are answered one at a time")
            return False
        return True

    def _answered(
        self,
        requests: Sequence[PromptedRequest],
        labels: Sequence[str | None],
        max_new_tokens: int,
        decoding: Mapping[str, Any],
    ) -> list[HarnessAnswer]:
        inputs, begun = self._inputs(requests, labels), time.perf_counter()
        arguments = {**self._greedy.arguments(max_new_tokens), **decoding}
        with self._pruned(requests, labels) as read:
            output_BS = self._model.generate(**inputs, **arguments)
            seconds = (time.perf_counter() - begun) / len(requests)
            before, kept = self._tokens(inputs["input_ids"], read())
        lengths = inputs["attention_mask"].sum(1).tolist()
        ids = [self._greedy.ended(row) for row in output_BS[:, inputs["input_ids"].shape[1] :].tolist()]
        texts = self._prompter.decode(ids)
        return [
            HarnessAnswer(texts[row], labels[row], before[row], kept[row], lengths[row], len(ids[row]), seconds)
            for row in range(len(requests))
        ]

    def _likelihood(
        self, request: PromptedRequest, label: str | None, text: str, inputs: Mapping[str, Any], answer: str
    ) -> Likelihood:
        if not answer.strip():
            raise InputError(f"{request.name} asks how likely an empty answer is; expected a text")
        answer_T = torch.tensor(self._prompter.following(text, answer.strip()), device=self.device)
        length, more = inputs["input_ids"].shape[1], len(answer_T)
        check_length(self._model.config, length + more)
        given = {
            # Whatever there is of every token of the prompt is 0 of those that are text.
            name: torch.cat([of, of.new_zeros(1, more)], dim=1)
            if isinstance(of, Tensor) and of.shape == (1, length)
            else of
            for name, of in inputs.items()
        }
        given["input_ids"][0, length:], given["attention_mask"][0, length:] = answer_T, 1
        with self._pruned([request], [label], length) as read:
            logits_1TV = self._model(**given, use_cache=False).logits[:, -more - 1 :].float()
            before, kept = self._tokens(inputs["input_ids"], read())
        prompt, ids = inputs["input_ids"][0].tolist(), answer_T.tolist()
        chosen_T = self._greedy.choices(prompt, ids, logits_1TV, more + 1)[0, :more]
        loss = torch.nn.functional.cross_entropy(logits_1TV[0, :more], answer_T)
        return Likelihood(float(loss), bool((chosen_T == answer_T).all()), label, before[0], kept[0])

    @contextmanager
    def _pruned(
        self, requests: Sequence[PromptedRequest], labels: Sequence[str | None], prompt_lengths: int | None = None
    ) -> Iterator[Any]:
        """Prune for a batch; yields what reads the statistics."""
        named = finite_logits(self._model, _named(requests))
        if requests[0].modality == "text":
            with named:
                yield lambda: None
            return
        with named, self.way.applied(requests, labels, prompt_lengths) as pruned:
            yield lambda: None if pruned is None else pruned.stats

    def _tokens(self, ids_BS: Tensor, stats: Any) -> tuple[list[int], list[float]]:
        """Visual tokens of every row, and how many of them a decoder layer works on."""
        visual = torch.tensor(list(self._adapter.visual_token_ids.values()), device=ids_BS.device)
        before = torch.isin(ids_BS, visual).sum(1).tolist()
        if stats is None:
            return before, [float(tokens) for tokens in before]
        # Beams repeat rows before they are pruned.
        return before, list(stats.mean_tokens[:: len(stats.mean_tokens) // len(before)])

    def _text(self, request: PromptedRequest) -> str:
        modality = "image" if request.modality == "text" else request.modality
        return self._prompter.turns(request.turns, modality)

    def _inputs(self, requests: Sequence[PromptedRequest], labels: Sequence[str | None]) -> Any:
        """Arguments of ``generate``, padded on the left."""
        texts = [self._text(request) for request in requests]
        padding = {"padding": True, "padding_side": "left"} if len(requests) > 1 else {}
        if requests[0].modality == "text":
            return self._placed(self._processor(text=texts, return_tensors="pt", **padding))
        media = [self._shown(request, label) for request, label in zip(requests, labels, strict=True)]
        if self.way.prompt is not None and any(len(of) > 1 for of in media):
            check_together(self._processor)
        if len(requests) == 1:
            return model_inputs(self._model, self._processor, media[0] if len(media[0]) > 1 else media[0][0], texts[0])
        told = as_sized(self._processor) if any(isinstance(one, ResizedPicture) for of in media for one in of) else {}
        pictures = [[load_picture(one, self._processor) for one in of] for of in media]
        return self._placed(self._processor(images=pictures, text=texts, return_tensors="pt", **told, **padding))

    def _shown(self, request: PromptedRequest, label: str | None) -> list[Given]:
        if request.modality == "video":
            return list(request.media)
        return list(self.way.shown(request.media, label))

    def _placed(self, made: Any) -> Any:
        check_length(self._model.config, made["input_ids"].shape[1])
        return made.to(self._model.device, self._model.dtype)


def _named(requests: Sequence[PromptedRequest]) -> str:
    return ", ".join(request.name for request in requests)


def _template(processor: Any, calibrated: str | None) -> str | None:
    """The template to ask with: the artifact's, without an instruction of its own, for benchmarks bring theirs."""
    if calibrated is None:
        return None
    try:
        own = ChatTemplate(processor).text
    except ModelError:
        return calibrated
    if own == calibrated:
        return None
    if instruction := instruction_in(calibrated, own):
        note_once(
            f"the artifact was calibrated with {instruction!r} behind every question, which is left out here: tasks "
            "bring instructions of their own"
        )
        return None
    note_once(
        f"questions are asked in the artifact's prompt {calibrated!r}, and not in the model's chat template {own!r}, "
        "in which models of the harness itself ask them"
    )
    return calibrated
