"""ScienceQA: problems with choices, of which half have a picture (https://github.com/lupantech/ScienceQA)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular
from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import LETTER, LETTERS, shortly, with_choices
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.json_elements import json_elements, json_members

_PROBLEMS, _SPLITS = "problems.json", "pid_splits.json"
_PICTURED = "img"
_TAKEN = ("question", "choices", "answer", "image")


class _Named(NamedTuple):
    """What a source names."""

    path: Path
    """The file of problems."""
    split: str | None
    pictured: bool
    """Only the problems that have a picture."""


class ScienceqaReader(SampleReader):
    """``problems.json``, or the directory that it is in: ``scienceqa:DIRECTORY[:SPLIT][:img]``.

    A split is one of ``pid_splits.json`` beside it; without one, all problems are read. ``img`` takes those that have a
    picture, as ScienceQA-IMG has them.
    """

    about: ClassVar[str] = "ScienceQA's problems.json"
    splits: ClassVar[bool] = True

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        if beginning.path.is_dir():
            return (beginning.path / _PROBLEMS).is_file()
        return beginning.member_keys >= {"question", "choices", "hint", "lecture"}

    def home(self, source: SampleSource) -> Path:
        """See `SampleReader`."""
        return source.image_root or _named(source).path.parent

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path, split, pictured), home = _named(source), self.home(source)
        check_regular(path, f"file {_PROBLEMS}")
        wanted = None if split is None else _ids(path.parent / _SPLITS, split)
        for name, where, value in json_members(path):
            if wanted is None or wanted.pop(name, ""):
                row = _row(name, Record(value, where), home)
                if row["image"] or not pictured:
                    yield row
        for name, where in (wanted or {}).items():
            raise InputError(f"{where} is {name!r}, and {path} has no such problem; give the two files of one release")


def _named(source: SampleSource) -> _Named:
    name, *behind = [source.text] if Path(source.text).exists() else source.text.split(":")
    if len(behind) > 2 or behind[1:] not in ([], [_PICTURED]):
        raise InputError(
            f"scienceqa:{source.text}: expected scienceqa:DIRECTORY, :SPLIT and :{_PICTURED}, in this order"
        )
    split = next(iter(behind), "") or None
    if split and source.split not in (None, split):
        raise InputError(
            f"scienceqa:{source.text} names the split {split!r}, and the dataset split is {source.split!r}; give one"
        )
    place = Path(name)
    return _Named(place / _PROBLEMS if place.is_dir() else place, split or source.split, bool(behind[1:]))


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


def _ids(path: Path, split: str) -> dict[str, str]:
    """The ids of a split, each with its place in the file."""
    check_regular(path, f"file {_SPLITS}")
    ids: dict[str, str] = {}
    for where, value in json_elements(path, split):
        name = Record({"id": value}, where).key("id")
        if name in ids:
            raise InputError(f"{where} is {name!r}, as is {ids[name]}; name each problem once")
        ids[name] = where
    return ids
