"""DocVQA: questions about scanned pages (https://www.docvqa.org/datasets/docvqa)."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import shortly
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.json_elements import json_elements


class DocvqaReader(SampleReader):
    """A file with ``data``. ``question_types``, if there are some, become one text in the column ``question_type``."""

    about: ClassVar[str] = "DocVQA's questions (JSON)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return beginning.keys >= {"data[].questionId", "data[].image"}

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("QUESTIONS.json")
        known: dict[str, str] = {}
        for where, value in json_elements(path, "data"):
            record = Record(value, where)
            question, image = record.text("question"), record.text("image")
            kinds = record.texts("question_types") if record.get("question_types") else []
            yield {
                "id": record.once("questionId", known),
                "question": shortly(question),
                "bare_question": question,
                "image": record.picture("image", source.home, image, PurePosixPath(image).name),
                "answers": record.texts("answers", "the accepted texts; the file test has none, give train or val"),
                "metric": "anls",
                "question_type": " + ".join(kinds) or None,
                **passed_on(record, "question", "questionId", "image", "answers"),
            }
