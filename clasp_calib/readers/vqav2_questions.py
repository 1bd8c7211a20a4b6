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


class _Annotation(NamedTuple):
    place: str
    image_id: int
    answers: tuple[str, ...]
    kinds: Mapping[str, str]


class Vqav2Reader(SampleReader):
    """A file of questions and one of annotations, joined by ``question_id``."""

    about: ClassVar[str] = "VQAv2's questions and annotations (two JSON files)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return beginning.keys >= {"questions[].question_id", "questions[].image_id"}

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        questions, annotations = source.files("QUESTIONS.json", "ANNOTATIONS.json")
        annotated = _annotations(annotations)
        asked: set[str] = set()
        for where, value in json_elements(questions, "questions"):
            record = Record(value, where)
            key, image = record.key("question_id"), record.whole("image_id")
            if key in asked:
                raise record.wrong("question_id", "another one in each row")
            asked.add(key)
            if (found := annotated.pop(key, None)) is None:
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
                **found.kinds,
            }
        for key, left in annotated.items():
            raise InputError(
                f"{left.place} is of the question {key}, and {len(annotated)} in all are of questions that {questions} "
                "has not; give the two files of one part"
            )


def _annotations(path: Path) -> dict[str, _Annotation]:
    """By the id of their question. Texts that return are kept once: a full file has millions of answers."""
    found: dict[str, _Annotation] = {}
    for where, value in json_elements(path, "annotations"):
        record = Record(value, where)
        key = record.key("question_id")
        if key in found:
            raise record.wrong("question_id", f"another one in each row ({found[key].place} has it)")
        answers = tuple(sys.intern(answer.text("answer")) for answer in record.records("answers"))
        kinds = {
            column: sys.intern(text)
            for column in ("question_type", "answer_type", "multiple_choice_answer")
            if (text := record.text_or_none(column)) is not None
        }
        found[key] = _Annotation(where, record.whole("image_id"), answers, kinds)
    return found
