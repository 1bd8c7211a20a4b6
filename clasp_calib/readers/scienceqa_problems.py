"""ScienceQA: problems with choices, of which half have a picture (https://github.com/lupantech/ScienceQA)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular
from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import LETTER, LETTERS, shortly, with_choices
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.json_elements import json_elements, json_members

_PROBLEMS, _SPLITS = "problems.json", "pid_splits.json"
_TAKEN = ("question", "choices", "answer", "image")


class ScienceqaReader(SampleReader):
    """``problems.json``, or the directory that it is in; a split is one of ``pid_splits.json`` beside it."""

    about = "ScienceQA's problems.json"
    splits = True

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        if beginning.path.is_dir():
            return (beginning.path / _PROBLEMS).is_file()
        return beginning.member_keys >= {"question", "choices", "hint", "lecture"}

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (given,) = source.paths if len(source.paths) == 1 else source.files(_PROBLEMS)
        path = given / _PROBLEMS if given.is_dir() else given
        check_regular(path, f"file {_PROBLEMS}")
        wanted = None if source.split is None else _split(path.parent / _SPLITS, source.split)
        for name, where, value in json_members(path):
            if wanted is None or wanted.pop(name, ""):
                yield _row(name, Record(value, where), source.home)
        for name, where in (wanted or {}).items():
            raise InputError(f"{where} is {name!r}, and {path} has no such problem; give the two files of one release")


def _row(name: str, record: Record, home: Path) -> Mapping[str, Any]:
    question, hint, choices = record.text("question"), record.text_or_none("hint"), record.texts("choices")
    split, picture = record.text_or_none("split"), record.text_or_none("image")
    answer = record.whole("answer", f"the number of a choice, from 0 to {len(choices) - 1}")
    if not 0 <= answer < len(choices):
        raise record.wrong("answer", f"the number of a choice, from 0 to {len(choices) - 1}")
    asked = with_choices(f"Context: {hint}\n{question}" if hint else question, choices, record.where)
    image = None
    if picture:
        places = [f"{name}/{picture}", *([f"{split}/{name}/{picture}"] if split else [])]
        image = record.picture(
            "image", home, *(f"{root}{place}" for root in ("images/", "") for place in reversed(places))
        )
    return {
        "id": name,
        "question": shortly(asked, LETTER),
        "bare_question": question,
        "image": image,
        "answers": [LETTERS[answer]],
        "metric": "multiple_choice",
        "choices": choices,
        **passed_on(record, *_TAKEN),
    }


def _split(path: Path, split: str) -> dict[str, str]:
    """The ids of a split, each with its place in the file."""
    check_regular(path, f"file {_SPLITS}")
    ids: dict[str, str] = {}
    for where, value in json_elements(path, split):
        name = Record({"id": value}, where).key("id")
        if name in ids:
            raise InputError(f"{where} is {name!r}, as is {ids[name]}; name each problem once")
        ids[name] = where
    return ids
