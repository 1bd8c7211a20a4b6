"""GQA: questions made of scene graphs (https://cs.stanford.edu/people/dorarad/gqa/download.html)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import shortly
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.json_elements import json_members

_KEYS = {"question", "imageId"}
_KINDS = ("structural", "semantic", "detailed")


class GqaReader(SampleReader):
    """A file of questions, by id. ``structural``, ``semantic``, ``detailed`` and ``group`` become columns."""

    about: ClassVar[str] = "GQA's questions (JSON)"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        return beginning.member_keys >= _KEYS

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("QUESTIONS.json")
        for name, where, value in json_members(path):
            record = Record(value, where)
            question, image = record.text("question"), record.key("imageId")
            answer = record.text("answer", "a text; the files test and challenge have none, give train, val or testdev")
            yield {
                "id": name,
                "question": shortly(question),
                "bare_question": question,
                "image": record.picture("imageId", source.home, f"images/{image}.jpg", f"{image}.jpg"),
                "answers": [answer],
                "metric": "exact_match",
                **_kinds(record),
                **passed_on(record, "question", "answer", "types", "groups", "semantic"),
            }


def _kinds(record: Record) -> dict[str, str | None]:
    """What GQA says of the kind of a question; None of each that it does not say."""
    types = Record(record.get("types") or {}, f"{record.where}.types")
    groups = Record(record.get("groups") or {}, f"{record.where}.groups")
    return {kind: types.text_or_none(kind) for kind in _KINDS} | {"group": groups.text_or_none("global")}
