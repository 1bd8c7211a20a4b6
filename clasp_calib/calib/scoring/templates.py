"""What stands around a question: the model's own chat template, or a text that was given instead of it."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.progress import note_once
from clasp_calib.common.question_parts import IMAGE, Parts
from clasp_calib.runtime.written import visual_token

QUESTION = "{question}"
EXAMPLE = f"USER: {IMAGE}\n{QUESTION} ASSISTANT:"
"""LLaVA-1.5's template."""
ADVICE = f"give the model's prompt with --prompt (of generate: --template), such as {EXAMPLE!r}"
Turn = tuple[str, Parts]
"""Of a conversation: ``user``, ``assistant`` or ``system``, and what is said and shown."""
_LITERAL = re.compile(r"\\n|\{+\w+\}+")
"""What other programs fill or turn into white space."""


class Template(Protocol):
    """Makes a prompt of a question and its pictures."""

    text: str
    """With `IMAGE` and `QUESTION`, once each: what artifacts record."""

    def filled(self, parts: Parts, modality: str) -> str:
        """The prompt as the processor takes it, an image or video token in the place of each picture."""
        ...


class ChatTemplate:
    """The processor's own: one turn of the user, and the beginning of the answer.

    Args:
        processor: the model's.

    Raises:
        ModelError: it has none, or one that does not show a picture and a question.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        if not getattr(processor, "chat_template", None):
            raise ModelError(f"the {type(processor).__name__} has no chat template; {ADVICE}")
        try:
            text = self._rendered([None, QUESTION], "image")
        except Exception as error:  # A template is a program, and may fail in any way.
            raise ModelError(
                f"the model's chat template fails on a picture and a question ({type(error).__name__}: {error}); "
                f"{ADVICE}"
            ) from error
        if text.count(processor.image_token) != 1 or text.count(QUESTION) != 1:
            raise ModelError(
                f"the model's chat template makes {text!r} of a picture and the question {QUESTION}, and both should "
                f"be there once; {ADVICE}"
            )
        self.text = text.replace(processor.image_token, IMAGE)
        after = self._rendered([QUESTION, None], "image")
        self._moves = after.find(processor.image_token) < after.find(QUESTION)

    def filled(self, parts: Parts, modality: str) -> str:
        """See `Template`; where pictures stand among the texts is the chat template's affair.

        Raises:
            ModelError: it shows another number of pictures than there are.
        """
        if self._moves and None in parts[parts.count(None) :]:
            note_once(
                f"the model's chat template puts pictures before the text, wherever questions have {IMAGE}, "
                "and the model sees them so"
            )
        return self.conversation([("user", parts)], modality)

    def conversation(self, turns: Sequence[Turn], modality: str) -> str:
        """The prompt of several turns, the last one the user's.

        Raises:
            ModelError: the chat template shows another number of pictures than there are.
        """
        text = self._of(turns, modality)
        token: str = getattr(self._processor, f"{modality}_token")
        if (shown := text.count(token)) != (asked := sum(parts.count(None) for _, parts in turns)):
            raise ModelError(
                f"the model's chat template makes {text!r} of a question about {asked} {modality}(s), which holds "
                f"{token} {shown} times; {ADVICE}"
            )
        return text

    def _rendered(self, parts: Parts, modality: str) -> str:
        return self._of([("user", parts)], modality)

    def _of(self, turns: Sequence[Turn], modality: str) -> str:
        said = [
            {
                "role": role,
                "content": [{"type": modality} if part is None else {"type": "text", "text": part} for part in parts],
            }
            for role, parts in turns
        ]
        text: str = self._processor.apply_chat_template(said, add_generation_prompt=True)
        tokenizer = self._processor.tokenizer
        # As apply_chat_template does where it makes ids itself.
        if tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
            text = text.removeprefix(tokenizer.bos_token)
        return text


class TextTemplate:
    """A text that is given: several pictures stand one after another in the place of the one.

    Args:
        processor: the model's.
        text: holds `IMAGE` and `QUESTION`, once each.

    Raises:
        InputError: it lacks one of the two, or holds it twice; or it holds a visual token besides `IMAGE`.
    """

    def __init__(self, processor: Any, text: str) -> None:
        if text.count(IMAGE) != 1 or text.count(QUESTION) != 1:
            raise InputError(
                f"the prompt template {text!r} must hold {IMAGE} and {QUESTION}, once each; for instance {EXAMPLE!r}"
            )
        for token in visual_tokens(processor):
            if token in text.replace(IMAGE, ""):
                raise InputError(f"the prompt template {text!r} holds {token} besides {IMAGE}; remove it")
        self._processor, self.text = processor, text
        # Tokens on both sides of the picture are its own, such as <|vision_start|> and <|vision_end|>.
        special = "|".join(map(re.escape, processor.tokenizer.all_special_tokens))
        found = re.search(f"(?:{special}){IMAGE}(?:{special})|{IMAGE}", text)
        assert found is not None
        self._picture = found[0]
        self._line = f"{self._picture}\n" if text[found.end() :].startswith("\n") else self._picture

    def filled(self, parts: Parts, modality: str) -> str:
        """See `Template`; pictures that are not all before the text stand where the question has them."""
        pictures = parts.count(None)
        first = None not in parts[pictures:]
        asked = "".join(self._picture if part is None else part for part in (parts[pictures:] if first else parts))
        # Not str.format: a question may hold braces.
        head, tail = self.text.replace(self._line, self._line * pictures if first else "").split(QUESTION, 1)
        token: str = getattr(self._processor, f"{modality}_token")
        return (head + asked + tail).replace(IMAGE, token)


def template_for(processor: Any, text: str | None) -> Template:
    """The template of a text, as an artifact records it or a user gives it; without one the model's own.

    Raises:
        InputError: a text that is no template, see `TextTemplate`.
        ModelError: there is no text, and the model has no template that can be used, see `ChatTemplate`.
    """
    if text is None:
        return ChatTemplate(processor)
    given = TextTemplate(processor, text)
    try:
        own = ChatTemplate(processor)
    except ModelError:
        return given
    return own if own.text == text else given


def instruction_in(text: str, own: str) -> str | None:
    """What a template has behind the question that another one does not; ``None`` if they differ in more than that.

    Args:
        text: a template, such as ``USER: <image>\\n{question}\\nAnswer in one word. ASSISTANT:``.
        own: the model's own, such as ``USER: <image>\\n{question} ASSISTANT:``.
    """
    (lead, _, rest), (before, _, behind) = text.partition(QUESTION), own.partition(QUESTION)
    if lead.split() != before.split() or not rest.rstrip().endswith(behind.strip()):
        return None
    return rest.rstrip().removesuffix(behind.strip()).rstrip()


def say_odd_template(processor: Any, template: str) -> None:
    """Say once what a model sees of a prompt template that may be meant otherwise.

    Raises:
        InputError: it is no Unicode.
    """
    check_unicode("prompt template", template)
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


def in_shell(template: str) -> str:
    """A template as a shell reads it."""
    # With a double quote in it repr puts single ones around, and a shell reads $'...' as Python does.
    return "$" + repr(f'{template}"')[:-2] + "'"


def visual_tokens(processor: Any) -> tuple[str, ...]:
    """What stands for an image and for a video in a text."""
    tokens = processor.image_token, visual_token(processor), getattr(processor, "video_token", None)
    return tuple(dict.fromkeys(token for token in tokens if token))


def check_unicode(what: str, text: str) -> None:
    """A shell gives bytes that are not UTF-8 as lone surrogates, which no tokenizer takes.

    Raises:
        InputError: the text holds one.
    """
    if not text.isascii() and text != text.encode("utf-8", "replace").decode():
        raise InputError(f"the {what} {text!a} holds bytes that are not UTF-8; write it again in UTF-8")
