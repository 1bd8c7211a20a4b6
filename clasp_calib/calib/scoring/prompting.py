"""From a question to token ids, as the processor would make them, without drawing the picture again."""

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any

from clasp_calib.calib.scoring.templates import ChatTemplate, Turn, check_unicode, template_for, visual_tokens
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.question_parts import parts_of
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.checks import check_length
from clasp_calib.runtime.model_inputs import model_inputs
from clasp_calib.runtime.smaller_pictures import as_sized
from clasp_calib.runtime.written import Written, as_written, expanded, numbered


class Prompter:
    """Token ids of prompts and of answers that follow them.

    Args:
        processor: the model's; its ``image_token`` stands for the picture.
        model: whose processor it is, or its configuration: it knows how many visual tokens a picture becomes.
        template: holds ``<image>`` and ``{question}``, once each; by default the model's own chat template.

    Attributes:
        template: the same, of a chat template what it makes of these two.

    Raises:
        InputError: the template lacks one of the two, or holds it twice.
        ModelError: the architecture is not known, the tokenizer ends every text, so that nothing can follow it, or no
            template is given and the model has none that can be used.
    """

    def __init__(self, processor: Any, model: Any, template: str | None = None):
        self._processor, adapter = processor, adapter_for(model)
        self._config, self._tokens, self._films = adapter.config, picture_tokens(adapter), adapter.films
        self._template = template_for(processor, template)
        self.template = self._template.text
        if (last := self._ids("a")[-1]) != self._alone("a")[-1]:
            token = processor.tokenizer.convert_ids_to_tokens(last)
            raise ModelError(
                f"the tokenizer appends {token!r} to every text, prompts included, and a model answers nothing behind "
                "its end of sequence; save the processor with a tokenizer that does not (add_eos_token=False, or a "
                "post-processor without it)"
            )

    def text(self, question: str, pictures: int | None = None, modality: str = "image") -> str:
        """The prompt with one image token for each picture, as a processor takes it.

        Args:
            question: what is asked; ``<image>`` in it is the place of a picture.
            pictures: how many there are; by default as many as the question has places, and at least one.
            modality: ``image`` or ``video``.

        Raises:
            InputError: the question holds a visual token of its own, places for another number of pictures, or is no
                Unicode.
            ModelError: the chat template shows another number of pictures.
        """
        check_unicode("question", question)
        return self.turns([("user", parts_of(question, pictures))], modality)

    def turns(self, turns: Sequence[Turn], modality: str = "image") -> str:
        """The prompt of a conversation, which the model is to go on with, as `text` makes it of one question.

        Args:
            turns: the last one is the user's.
            modality: of all that they show.

        Raises:
            InputError: a turn holds a visual token of its own, or is no Unicode.
            ModelError: the chat template shows another number of pictures; there are several turns, and the model has
                no chat template.
        """
        for part in (part for _, parts in turns for part in parts if part):
            check_unicode("question", part)
            for token in visual_tokens(self._processor):
                if token in part:
                    raise InputError(f"the question {part!r} holds {token}; remove it")
        if len(turns) == 1 and turns[0][0] == "user":
            return self._template.filled(turns[0][1], modality)
        own = self._template if isinstance(self._template, ChatTemplate) else ChatTemplate(self._processor)
        return own.conversation(turns, modality)

    def prompt(
        self, question: str, tokens: int | Sequence[int | Written] | None = None, modality: str = "image"
    ) -> list[int]:
        """Ids of the prompt, the pictures' tokens in place.

        Args:
            question: what is asked.
            tokens: how many visual tokens the picture becomes, or each of several in their order, or what the processor
                writes for it (`clasp_calib.cache.origin.Origin.written`); may be ``None`` for one picture where all
                become as many.
            modality: ``image``, or ``video`` for a file that is one.

        Raises:
            InputError: see `text`; the prompt is longer than the model's context, or it is not known how many tokens
                the picture becomes.
            ModelError: see `text`; the tokenizer does not know the pictures' token.
        """
        tokens = self._tokens if tokens is None else tokens
        if tokens is None:
            raise InputError("pictures of this model differ in their number of visual tokens; give that of this one")
        every = [tokens] if isinstance(tokens, int) else list(tokens)
        name: str = getattr(self._processor, f"{modality}_token")
        text = self.text(question, len(every), modality)
        if (places := self._ids(text).count(self._id(name))) != len(every):
            raise ModelError(
                f"the tokenizer makes {places} tokens {name} of a prompt with {len(every)}; give the one that was "
                "saved with the model"
            )
        # What a processor puts around a picture, it is shown an image for; around a video none puts anything.
        before, after = self._around if modality == "image" else ("", "")
        drawn = "image" if modality == "image" else self._films or modality
        written: list[Written] = [[before, one, after] if isinstance(one, int) else one for one in every]
        written = [numbered(self._processor, pieces, place) for place, pieces in enumerate(written)]
        pictures = [expanded(self._processor, pieces, drawn) for pieces in written]
        made = self._ids("".join(chain.from_iterable(zip_longest(text.split(name), pictures, fillvalue=""))))
        check_length(self._config, len(made))
        return made

    def inputs(self, model: Any, sample: Sample) -> Any:
        """Arguments of ``generate`` for a sample, as the processor makes them of its pictures or video.

        Raises:
            InputError: a picture cannot be read, or see `text` and `prompt`.
            ModelError: see `text`.
        """
        media = [one.picture for one in sample.alone]
        text = self.text(sample.question, len(media), sample.modality)
        return model_inputs(model, self._processor, media if len(media) > 1 else media[0], text)

    def answer(self, question: str, answer: str) -> list[int]:
        """Ids that follow the prompt where the answer is given: after a space, unless the prompt ends in white space.

        Where the tokenizer would merge the two, they are the answer's alone: a model is given the prompt's ids as they
        are.

        Raises:
            InputError: the question or the answer holds a visual token.
            ModelError: see `text`.
        """
        for token in visual_tokens(self._processor):
            if token in answer:
                raise InputError(f"the answer {answer!r} holds {token}; remove it")
        return self.following(self.text(question), answer)

    def following(self, text: str, answer: str) -> list[int]:
        """Ids of an answer that follows the text of a prompt, see `answer`."""
        before, both = self._ids(text), self._ids(f"{text}{answer}" if text[-1].isspace() else f"{text} {answer}")
        if both[: len(before)] == before:
            return both[len(before) :]
        return self._alone(answer)

    def limit(self, sample: Sample, least: int) -> int:
        """New tokens to generate: as many as the longest accepted answer and its end have, at least ``least``."""
        # Every token is a byte or more, and one may be for the space before.
        long = [answer for answer in sample.answers if len(answer.encode()) + 2 > least]
        return max([least, *(len(self.answer(sample.question, answer)) + 1 for answer in long)])

    def decode(self, ids: Any) -> list[str]:
        """Texts of generated ids ``[B, T]``, without special tokens and outer white space."""
        texts: list[str] = self._processor.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @property
    def processor(self) -> Any:
        """The model's."""
        return self._processor

    @property
    def tokenizer(self) -> Any:
        """The processor's."""
        return self._processor.tokenizer

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What the processor writes before and after the visual tokens of an image, where these are one run."""
        from PIL import Image

        small, token = Image.new("RGB", (28, 28)), self._processor.image_token  # too small to be cut into tiles
        made = as_written(self._processor, self._processor(images=[small], text=token, **as_sized(self._processor)))
        first, last = made[0], made[-1]
        return first if isinstance(first, str) else "", last if isinstance(last, str) else ""

    def _id(self, token: str) -> int:
        found: int = self._processor.tokenizer.convert_tokens_to_ids(token)
        return found

    def _alone(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(text).input_ids
        return ids
