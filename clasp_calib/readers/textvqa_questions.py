"""TextVQA: questions about text in pictures, with ten answers each (https://textvqa.org/dataset)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import shortly
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.json_elements import json_elements

_FOLDERS = ("train_images/", "test_images/", "")


class TextvqaReader(SampleReader):
    """A file with ``data``; the pictures of train and val are both in ``train_images``."""

    about: ClassVar[str] = "TextVQA's questions (JSON)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return beginning.keys >= {"data[].question_id", "data[].image_id"}

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("QUESTIONS.json")
        known: dict[str, str] = {}
        for where, value in json_elements(path, "data"):
            record = Record(value, where)
            question, image = record.text("question"), record.key("image_id")
            yield {
                "id": record.once("question_id", known),
                "question": shortly(question),
                "bare_question": question,
                "image": record.picture("image_id", source.home, *(f"{folder}{image}.jpg" for folder in _FOLDERS)),
                "answers": record.texts(
                    "answers", "the texts of all annotators; the file test has none, give train or val"
                ),
                "metric": "textvqa",
                **passed_on(record, "question", "question_id", "answers"),
            }
