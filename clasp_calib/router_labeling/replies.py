"""From what a language model answered to a guess, or to the reason why there is none."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from clasp_calib.router_labeling.labelers import Guess
from clasp_calib.router_labeling.taxonomy import Taxonomy

THINKING_ENDS = "</think>"
ATTEMPTS = 3
"""How often a question is asked before it is given up."""
RETRY_TEMPERATURE = 0.7
"""Our choice: the same greedy prompt fails the same way, so repeated attempts sample."""


class BadReplyError(Exception):
    """A reply that holds no label; the message is the reason."""


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
    if finish == "length":
        raise BadReplyError(f"the reply was cut off: {_short(text)}")
    try:
        reply = json.loads(text.rpartition(THINKING_ENDS)[2])
    except (json.JSONDecodeError, RecursionError):
        raise BadReplyError(f"the reply is not JSON: {_short(text)}") from None
    if not isinstance(reply, dict) or set(reply) != {"intent"}:
        raise BadReplyError(f"the reply is not of the schema: {_short(text)}")
    if not isinstance(reply["intent"], str) or reply["intent"] not in taxonomy.intents:
        raise BadReplyError(f"the reply names an unknown intent: {_short(text)}")
    return reply["intent"]


def read_guess(text: str, finish: str | None, tokens: Sequence[Token], taxonomy: Taxonomy) -> Guess:
    """The guess that a reply is; arguments and errors as of `read_intent` and `confidence`."""
    intent = read_intent(text, finish, taxonomy)
    return Guess(intent, confidence(tokens, intent), text)


def no_guess(reason: str, taxonomy: Taxonomy) -> Guess:
    """What a question gets that has no label."""
    return Guess(taxonomy.default_intent, 0.0, reason, source="default")


def confidence(tokens: Sequence[Token], intent: str) -> float | None:
    """Probability in [0, 1] of the tokens that spell the intent's value; None if the tokens do not spell it.

    vLLM masks what the schema forbids before it takes log-probabilities, so this is the probability of the
    intent among all intents. Tokens that share the value's quotes count too.
    """
    text = "".join(token.text for token in tokens)
    begin = text.rfind(json.dumps(intent))
    if begin < 0:
        return None
    # The first quote is the same for every intent and the last one follows from the rest: both cost nothing.
    begin, end = begin + 1, begin + 1 + len(intent)
    place, total = 0, 0.0
    for token in tokens:
        if place < end and place + len(token.text) > begin:
            total += token.logprob
        place += len(token.text)
    return min(1.0, math.exp(total))


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")
