"""LLaVA's conversations (https://github.com/haotian-liu/LLaVA/blob/main/docs/Finetune_Custom_Data.md)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from clasp_calib.common.given_files import regular_file
from clasp_calib.common.question_parts import IMAGE
from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.json_elements import json_elements, json_lines_of

_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant")


class LlavaReader(SampleReader):
    """A JSON array, or JSON Lines, of ``{"id", "image", "conversations": [{"from", "value"}, ...]}``.

    Each turn of ``human`` is a sample, and the turn after it its answer. Our choice: earlier turns do not go along,
    since a sample is one question, with one class, and the sets that models are trained on put many questions that
    have nothing to do with each other into one conversation. A column ``turn`` counts them from 1.
    """

    about: ClassVar[str] = "LLaVA's conversations (JSON)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return "[].conversations" in beginning.keys or "conversations" in beginning.first_object

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("CONVERSATIONS.json")
        elements = json_elements(path) if _is_array(path) else json_lines_of(path)
        for number, (where, value) in enumerate(elements):
            record = Record(value, where)
            pictures = _pictures(record, source.home)
            turns = list(_turns(record, pictures))
            for turn, (question, answer, shown) in enumerate(turns, 1):
                yield {
                    "id": f"{number}.{turn}",
                    "question": question,
                    "bare_question": question.replace(IMAGE, "").strip(),
                    "images": shown,
                    "answers": [answer],
                    "turn": turn,
                    "conversation": record.key("id") if "id" in record else None,
                    **passed_on(record, "id", "image", "images", "conversations", "turn", "conversation"),
                }


def _is_array(path: Path) -> bool:
    with regular_file(path) as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _pictures(record: Record, home: Path) -> list[str]:
    """The pictures of a conversation: one, several, or none."""
    column = "images" if record.get("images") else "image"
    cell = record.get(column)
    if cell is None or cell in ("", []):
        return []
    if isinstance(cell, str):
        return [record.picture(column, home, cell)]
    return [record.picture(column, home, name) for name in record.texts(column, "the path of a picture, or a list")]


def _turns(record: Record, pictures: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Question, answer and pictures of each turn."""
    turns = record.records("conversations", "a list of turns")
    if len(turns) > 1 and turns[0].get("from") in _ANSWERS:
        turns = turns[1:]  # LLaVA's trainer passes over it too.
    shown = 0
    placed = sum(turn.get("value", "").count(IMAGE) for turn in turns if isinstance(turn.get("value"), str))
    if placed not in (0, len(pictures)):
        raise record.wrong(
            "conversations",
            f"{IMAGE} once for each of the {len(pictures)} pictures, or nowhere, not {placed} times",
        )
    for place, turn in enumerate(turns):
        asks = place % 2 == 0
        if turn.get("from") not in (_ASKS if asks else _ANSWERS):
            raise turn.wrong("from", f"{'human' if asks else 'gpt'}: turns of human and gpt follow each other")
        if asks:
            continue
        asked = turns[place - 1]
        question, here = asked.text("value"), asked["value"].count(IMAGE)
        shown += here
        # What was shown before is what a turn without pictures of its own is about.
        about = pictures[shown - here : shown] if here else pictures[: shown if placed else None]
        if not question.replace(IMAGE, "").strip():
            raise asked.wrong("value", f"a question beside {IMAGE}")
        yield question, turn.text("value"), list(about)
    if len(turns) % 2:
        raise turns[-1].wrong("value", "an answer after it, in a turn of gpt")
