"""POPE: whether an object is in a picture (https://github.com/RUCAIBox/POPE, ``output/coco/coco_pope_random.json``)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import SHORT, shortly
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.coco_pictures import names_of_file
from clasp_calib.readers.json_elements import json_lines_of

_KIND = re.compile(r"_(random|popular|adversarial)$")
_KEYS = {"question_id", "image", "text"}


class PopeReader(SampleReader):
    """JSON Lines with ``question_id, image, text, label``; the kind in the file's name becomes a ``category``."""

    about = "POPE's questions (JSON Lines)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return set(beginning.first_object) >= _KEYS

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("QUESTIONS.json")
        kind = _KIND.search(path.stem)
        for where, value in json_lines_of(path):
            record = Record(value, where)
            question, label = record.text("text"), record.get("label")
            name = record.text("image", "the name of a picture")
            if label not in ("yes", "no"):
                raise record.wrong(
                    "label", "yes or no, as in POPE's own files (coco_pope_random.json ...); questions alone lack it"
                )
            yield {
                "id": record.key("question_id"),
                "question": shortly(question),
                "bare_question": question.removesuffix(SHORT).rstrip(),
                "image": record.picture("image", source.home, *names_of_file(name)),
                "answers": [label],
                "metric": "pope",
                **({"category": kind[1]} if kind else {}),
                **passed_on(record, "question_id", "text", "image", "label"),
            }
