"""From a question to token ids, as the processor would make them, without drawing the picture again."""

import re
from functools import cached_property
from typing import Any

from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.progress import note_once
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.checks import check_length

IMAGE = "<image>"
SHOWN = 400
"""Characters of a template that are printed."""
PROMPT = f"USER: {IMAGE}\n{{question}} ASSISTANT:"
"""LLaVA-1.5's template."""
QUESTION = "{question}"
_LITERAL = re.compile(r"\\n|\{+\w+\}+")
"""What other programs fill or turn into white space."""


def own_template(processor: Any) -> str | None:
    """A processor's chat template, rendered for one picture and a question; ``None`` if it has none that can be."""
    if not getattr(processor, "chat_template", None):
        return None
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    try:
        text: str = processor.apply_chat_template([turn], add_generation_prompt=True)
    except Exception:  # A template is a program, and may fail in any way.
        return None
    tokenizer = processor.tokenizer
    if tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
        text = text.removeprefix(tokenizer.bos_token)
    return text.replace(processor.image_token, IMAGE)


def say_own_template(processor: Any) -> None:
    """Say once where a processor's own chat template is not `PROMPT`, which is used where no prompt is given."""
    own = own_template(processor)
    if own is None or own.strip() == PROMPT:
        return
    # With a double quote in it repr puts single ones around, and a shell reads $'...' as Python does.
    quoted = repr(f'{own}"')[:-2] + "'"
    shown = quoted if len(quoted) <= SHOWN else f"{quoted[:SHOWN]} ..."
    note_once(
        f"the model's own chat template writes {shown}, and questions are put in LLaVA-1.5's, {PROMPT!r}: a model "
        f"may answer worse in a template that it does not know; to take its own give --prompt ${shown} (in Python "
        "prompt of CalibrationOptions)"
    )


def say_odd_template(processor: Any, template: str) -> None:
    """Say once what a model sees of a prompt template that may be meant otherwise.

    Raises:
        InputError: it is no Unicode.
    """
    _check_unicode("prompt template", template)
    if told := sorted({part for part in _LITERAL.findall(template) if part != QUESTION}):
        note_once(
            f"the prompt template holds {' and '.join(told)}, which the model sees so: only {IMAGE} and {QUESTION} are "
            "filled; a line break has to be one (in a shell $'...\\n...')"
        )
    tokenizer = processor.tokenizer
    first = tokenizer.bos_token_id
    if first is not None and tokenizer(template).input_ids[:2] == [first, first]:
        note_once(
            f"the prompt template begins with {tokenizer.bos_token}, which the tokenizer puts before every text: "
            "the model sees it twice; leave it out"
        )


def _check_unicode(what: str, text: str) -> None:
    """A shell gives bytes that are not UTF-8 as lone surrogates, which no tokenizer takes."""
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise InputError(f"the {what} {text!a} holds bytes that are not UTF-8; write it again in UTF-8")


class Prompter:
    """Token ids of prompts and of answers that follow them.

    Args:
        processor: the model's; its ``image_token`` stands for the picture.
        model: whose processor it is, or its configuration: it knows how many visual tokens a picture becomes.
        template: holds ``<image>`` and ``{question}``, once each.

    Raises:
        InputError: the template lacks one of the two, or holds it twice.
        ModelError: the architecture is not known, or the tokenizer ends every text, so that nothing can follow it.
    """

    def __init__(self, processor: Any, model: Any, template: str = PROMPT):
        if template.count(IMAGE) != 1 or template.count(QUESTION) != 1:
            raise InputError(
                f"the prompt template {template!r} must hold {IMAGE} and {QUESTION}, once each; for instance {PROMPT!r}"
            )
        self._processor, adapter = processor, adapter_for(model)
        self._config, self._tokens = adapter.config, picture_tokens(adapter)
        self.template = template
        if (last := self._ids("a")[-1]) != self._alone("a")[-1]:
            token = processor.tokenizer.convert_ids_to_tokens(last)
            raise ModelError(
                f"the tokenizer appends {token!r} to every text, prompts included, and a model answers nothing behind "
                "its end of sequence; save the processor with a tokenizer that does not (add_eos_token=False, or a "
                "post-processor without it)"
            )

    def text(self, question: str) -> str:
        """The prompt with a single image token, as a processor takes it.

        Raises:
            InputError: the question holds an image token of its own, or is no Unicode.
        """
        _check_unicode("question", question)
        if self._processor.image_token in question:
            raise InputError(f"the question {question!r} holds {self._processor.image_token}; remove it")
        # Not str.format: a question may hold braces.
        head, tail = self.template.replace(IMAGE, self._processor.image_token).split(QUESTION, 1)
        return head + question + tail

    def prompt(self, question: str, tokens: int | None = None, modality: str = "image") -> list[int]:
        """Ids of the prompt, the picture's tokens in place.

        Args:
            question: what is asked.
            tokens: how many visual tokens the picture becomes; may be ``None`` where all become as many.
            modality: ``image``, or ``video`` for a file that is one.

        Raises:
            InputError: the question holds an image token, the prompt is longer than the model's context, or it is not
                known how many tokens the picture becomes.
        """
        tokens = self._tokens if tokens is None else tokens
        if tokens is None:
            raise InputError("pictures of this model differ in their number of visual tokens; give that of this one")
        ids = self._ids(self.text(question))
        place = ids.index(self._id(self._processor.image_token))
        # What a processor puts around a picture, it is shown an image for; around a video none puts anything.
        before, after = self._around if modality == "image" else ([], [])
        visual = [self._id(getattr(self._processor, f"{modality}_token"))] * tokens
        made = [*ids[:place], *before, *visual, *after, *ids[place + 1 :]]
        check_length(self._config, len(made))
        return made

    def answer(self, question: str, answer: str) -> list[int]:
        """Ids that follow the prompt where the answer is given: after a space, unless the prompt ends in white space.

        Where the tokenizer would merge the two, they are the answer's alone: a model is given the prompt's ids as they
        are.

        Raises:
            InputError: the question or the answer holds an image token.
        """
        if self._processor.image_token in answer:
            raise InputError(f"the answer {answer!r} holds {self._processor.image_token}; remove it")
        text = self.text(question)
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
    def tokenizer(self) -> Any:
        """The processor's."""
        return self._processor.tokenizer

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Ids that the processor puts before and after the visual tokens of an image."""
        from PIL import Image

        token = self._id(self._processor.image_token)
        plain = self._ids(self._processor.image_token)
        made = self._processor(images=[Image.new("RGB", (64, 64))], text=self._processor.image_token)
        (ids,) = [list(row) for row in made["input_ids"]]
        before, after = plain.index(token), len(plain) - plain.index(token) - 1
        first, last = ids.index(token), len(ids) - ids[::-1].index(token)
        return ids[before:first], ids[last : len(ids) - after]

    def _id(self, token: str) -> int:
        found: int = self._processor.tokenizer.convert_tokens_to_ids(token)
        return found

    def _alone(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(text).input_ids
        return ids
