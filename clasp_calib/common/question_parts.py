"""Where a question has its pictures."""

from collections.abc import Sequence

from clasp_calib.common.errors import InputError

IMAGE = "<image>"
"""Stands for a picture (or video) in questions and in prompt templates."""
Parts = Sequence[str | None]
"""A question in its order: texts, and ``None`` for each picture."""


def parts_of(question: str, pictures: int | None = None) -> Parts:
    """A question divided where it has its pictures: before it, unless it holds a placeholder for each.

    Args:
        question: may hold `IMAGE`.
        pictures: how many there are; by default as many as placeholders, and at least one.

    Raises:
        InputError: there are placeholders, but not as many as pictures.
    """
    texts = question.split(IMAGE)
    held = len(texts) - 1
    if held == 0:
        return [*[None] * (1 if pictures is None else pictures), question]
    if pictures not in (None, held):
        raise InputError(
            f"the question {question!r} holds {IMAGE} {held} times and comes with {pictures} picture(s); give one for "
            "each, or none, and the pictures stand before the text"
        )
    parts = [part for text in texts for part in (None, text)][1:]
    if not any(texts[:-1]):
        parts[-1] = texts[-1].removeprefix("\n")  # The template has a line break of its own there, or wants none.
    return [part for part in parts if part != ""]
