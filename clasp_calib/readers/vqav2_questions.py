"""VQAv2: questions with ten answers each (https://visualqa.org/download.html); OK-VQA has the same layout."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import shortly
from clasp_calib.readers.checked_cells import Record
from clasp_calib.readers.coco_pictures import names_of_id
from clasp_calib.readers.json_elements import json_elements

_KINDS = ("question_type", "answer_type", "multiple_choice_answer")


class Vqav2Reader(SampleReader):
    """A file of questions and one of annotations, joined by ``question_id``."""

    about: ClassVar[str] = "VQAv2's questions and annotations (two JSON files)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return beginning.keys >= {"questions[].question_id", "questions[].image_id"}

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        questions, annotations = source.files("QUESTIONS.json", "ANNOTATIONS.json")
        joined, asked = _Annotations(annotations), set[str]()
        for where, value in json_elements(questions, "questions"):
            record = Record(value, where)
            key, image = record.key("question_id"), record.whole("image_id")
            if key in asked:
                raise record.wrong("question_id", "another one in each row")
            asked.add(key)
            if (found := joined.of(key)) is None:
                raise record.wrong("question_id", f"one that {annotations} has an annotation for")
            if found.image_id != image:
                raise record.wrong("image_id", f"{found.image_id}, as in {found.place}")
            question = record.text("question")
            yield {
                "id": key,
                "question": shortly(question),
                "bare_question": question,
                "image": record.picture("image_id", source.home, *names_of_id(image)),
                "answers": list(found.answers),
                "metric": "vqa",
                "image_id": image,
                **dict(zip(_KINDS, found.kinds, strict=True)),
            }
        joined.check_all_asked(questions)


class _Annotation(NamedTuple):
    place: str
    image_id: int
    answers: tuple[str, ...]
    kinds: tuple[str | None, ...]


class _Annotations:
    """Annotations by their questions. Published files have one order, so that hardly any has to wait for its own."""

    def __init__(self, path: Path):
        self._coming = json_elements(path, "annotations")
        self._given: set[str] = set()
        self._waiting: dict[str, _Annotation] = {}

    def of(self, key: str) -> _Annotation | None:
        """That of a question."""
        while key not in self._waiting and self._read():
            pass
        self._given.add(key)
        return self._waiting.pop(key, None)

    def check_all_asked(self, questions: Path) -> None:
        """Refuse annotations that nobody has asked for.

        Raises:
            InputError: with the first of them, and how many there are.
        """
        while self._read():
            pass
        for key, left in self._waiting.items():
            raise InputError(
                f"{left.place} is of the question {key}, and {len(self._waiting)} in all are of questions that "
                f"{questions} has not; give the two files of one part"
            )

    def _read(self) -> bool:
        """Whether there was another one."""
        where, value = next(self._coming, ("", None))
        if where:
            record = Record(value, where)
            key = record.key("question_id")
            if key in self._waiting or key in self._given:
                raise record.wrong("question_id", "another one in each row")
            # Texts that return are kept once: where all have to wait, there are millions of answers.
            answers = tuple(sys.intern(answer.text("answer")) for answer in record.records("answers"))
            kinds = tuple(text and sys.intern(text) for text in map(record.text_or_none, _KINDS))
            self._waiting[key] = _Annotation(where, record.whole("image_id"), answers, kinds)
        return bool(where)
