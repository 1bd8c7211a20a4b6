"""From what a language model answered to a guess, or to the reason why there is none."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clasp_calib.common.errors import LabelerError
from clasp_calib.router_labeling.labelers import Guess
from clasp_calib.router_labeling.taxonomy import Taxonomy

THINKING_ENDS = "</think>"
CUT = {"length": "the reply was cut off", "content_filter": "the server's filter withheld the reply"}
"""Ends of generation, in OpenAI's words, that leave no whole reply."""
TEXT = ("text", "output_text")
"""Parts of a message that are read; others may hold thoughts or calls."""
ATTEMPTS = 3
"""How often a question is asked before it is given up."""
RETRY_TEMPERATURE = 0.7
"""Our choice: the same greedy prompt fails the same way, so repeated attempts sample."""


ABOVE_ONE = 1e-3
"""Largest log-probability that is taken for zero: rounding gives a little more."""


class BadReplyError(LabelerError):
    """A reply that holds no label.

    Args:
        reason: why.
        text: the reply, of which the message quotes the beginning.
    """

    def __init__(self, reason: str, text: str):
        super().__init__(reason, text)
        self._reason, self._text = reason, text

    def __str__(self) -> str:
        """The reason, and the beginning of the reply."""
        return self.told(str)

    def told(self, hidden: Callable[[str], str]) -> str:
        """The message, of a reply that is quoted as ``hidden`` makes it."""
        text = hidden(self._text)
        return f"{self._reason}: {(text if len(text) <= 200 else text[:200] + '...')!r}"


@dataclass(frozen=True)
class Token:
    """One generated token: its text and its log-probability among the tokens that the schema allows."""

    text: str
    logprob: float


def read_intent(text: str, finish: str | None, taxonomy: Taxonomy) -> str:
    """The intent that a reply names.

    Args:
        text: the reply; what stands before a closing ``</think>`` is passed over.
        finish: why generation ended, in OpenAI's words (``stop``, ``length``).
        taxonomy: the intents that a reply may name.

    Raises:
        BadReplyError: the reply was cut off, is not JSON of the schema, or names an unknown intent.
    """
    if finish in CUT:
        raise BadReplyError(CUT[finish], text)
    try:
        reply = json.loads(text.rpartition(THINKING_ENDS)[2], object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        raise BadReplyError("the reply is not JSON", text) from None
    # A key that stands twice makes two pairs.
    if not isinstance(reply, tuple) or [key for key, _ in reply] != ["intent"]:
        raise BadReplyError("the reply is not of the schema", text)
    ((_, intent),) = reply
    if not isinstance(intent, str) or intent not in taxonomy.intents:
        raise BadReplyError("the reply names an unknown intent", text)
    return intent


def read_guess(text: str, finish: str | None, tokens: Sequence[Token], taxonomy: Taxonomy) -> Guess:
    """The guess that a reply is; arguments and errors as of `read_intent` and `confidence`."""
    intent = read_intent(text, finish, taxonomy)
    return Guess(intent, confidence(tokens, intent), text)


def read_completion(reply: Any, taxonomy: Taxonomy) -> Guess:
    """The guess in a chat completion of OpenAI's protocol.

    Log-probabilities that are missing, or are none, leave the guess without a confidence.

    Args:
        reply: JSON value of the server's reply.
        taxonomy: the intents that it may name.

    Raises:
        BadReplyError: it is no chat completion, has several answers that differ, or none that `read_intent` takes.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise BadReplyError("the reply lacks 'choices'", _json(reply))
    texts = [_content(choice.get("message")) for choice in choices]
    if len(set(texts)) > 1:
        raise BadReplyError(f"the reply has {len(texts)} choices that differ, and one was asked for", "\n".join(texts))
    finish = choices[0].get("finish_reason")
    return read_guess(texts[0], finish if isinstance(finish, str) else None, _tokens(choices[0]), taxonomy)


def _content(message: Any) -> str:
    """The text of a message, which may come in parts."""
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type", "text") in TEXT]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadReplyError("the reply's message has no text", _json(message))
    # What is not Unicode could not be kept.
    return "".join(map(str, texts)).encode("utf-8", "replace").decode()


def _tokens(choice: dict[str, Any]) -> list[Token]:
    """The tokens of a choice, in order; none if one of them is not as it should be."""
    try:
        told = [(entry["token"], entry["logprob"]) for entry in choice["logprobs"]["content"]]
        usable = all(
            isinstance(text, str) and isinstance(value, int | float) and not isinstance(value, bool)
            for text, value in told
        )
        return [Token(text, float(value)) for text, value in told] if usable else []
    except (KeyError, TypeError, IndexError, OverflowError):
        return []


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "nested too deeply"


def no_guess(reason: str, taxonomy: Taxonomy) -> Guess:
    """What a question gets that has no label."""
    return Guess(taxonomy.default_intent, 0.0, reason, source="default")


def class_answered(raw: str, taxonomy: Taxonomy) -> str:
    """The class that an answer named, as it stands in the column ``raw``; the default one if it named none."""
    try:
        return taxonomy.class_of(read_intent(raw, None, taxonomy))
    except BadReplyError:
        return taxonomy.default_class


def confidence(tokens: Sequence[Token], intent: str) -> float | None:
    """Probability in [0, 1] of the tokens that spell the intent's value.

    None if the tokens do not spell it, or if one of them has no log-probability: not-a-number, or more than zero.

    vLLM masks what the schema forbids before it takes log-probabilities, so this is the probability of the
    intent among all intents. Tokens that share the value's quotes count too.
    """
    text = "".join(token.text for token in tokens)
    # Models write other scripts as they are, or escaped.
    for spelt in (json.dumps(intent, ensure_ascii=False), json.dumps(intent)):
        if (begin := text.rfind(spelt)) >= 0:
            break
    else:
        return None
    # The first quote is the same for every intent and the last one follows from the rest: both cost nothing.
    begin, end = begin + 1, begin + len(spelt) - 1
    place, spelling = 0, []
    for token in tokens:
        if place < end and place + len(token.text) > begin:
            spelling.append(token.logprob)
        place += len(token.text)
    # Not-a-number is not less either.
    return min(1.0, math.exp(sum(spelling))) if all(value <= ABOVE_ONE for value in spelling) else None
