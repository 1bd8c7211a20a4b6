"""VLMEvalKit's TSV (https://github.com/open-compass/VLMEvalKit/blob/main/docs/en/Development.md)."""

import ast
import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import note_once
from clasp_calib.common.sample_readers import Beginning, SampleReader, SampleSource
from clasp_calib.readers.asking import LETTERS, SHORT
from clasp_calib.readers.checked_cells import Record, passed_on
from clasp_calib.readers.tsv_rows import RowStart, TsvRow, TsvRows

MOST_NAME = 64
"""Characters of a cell ``image`` that names another row; a longer one is a picture."""
_PLACE = re.compile(r"<image (\d+)>")
_TAKEN = ("index", "question", "hint", "answer", "image", "image_path", *LETTERS)


@dataclass(frozen=True)
class _Kind:
    """How a benchmark asks and scores what has no options."""

    metric: str
    suffix: str = ""
    lettered: bool = False
    """Options are asked for; what is said here is of rows without."""


_SHORTLY = f"\n{SHORT}"
_KNOWN: Mapping[str, _Kind] = {
    "MME": _Kind("mme"),
    "POPE": _Kind("pope"),
    "HallusionBench": _Kind("yes_no"),
    "AMBER": _Kind("yes_no", "\nPlease answer yes or no."),
    "VSR-zeroshot": _Kind("yes_no"),
    "OCRVQA_TEST": _Kind("exact_match", _SHORTLY),
    "OCRVQA_TESTCORE": _Kind("exact_match", _SHORTLY),
    "TextVQA_VAL": _Kind("textvqa", _SHORTLY),
    "DocVQA_VAL": _Kind("anls", _SHORTLY),
    "DocVQA_TEST": _Kind("anls", _SHORTLY),
    "InfoVQA_VAL": _Kind("anls", _SHORTLY),
    "InfoVQA_TEST": _Kind("anls", _SHORTLY),
    "ChartQA_TEST": _Kind("relaxed", _SHORTLY),
    "GQA_TestDev_Balanced": _Kind("exact_match", _SHORTLY),
}
"""By the name of the file: ``ImageYORNDataset`` and ``ImageVQADataset`` of VLMEvalKit. All others go by their rows."""


@dataclass
class _Look:
    """What is to be known of a file before its first row can be read."""

    places: dict[str, RowStart] = field(default_factory=dict)
    """Index -> where the row begins."""
    answers: set[str] = field(default_factory=set)
    """Accepted answers, in lower case; no more than three."""


class VlmevalReader(SampleReader):
    """Rows with ``index, question, image`` or ``image_path``, and optionally ``answer``, ``hint``, ``A``, ``B`` ...

    The file is read twice: a row may have the picture of one that follows it.
    """

    about: ClassVar[str] = "VLMEvalKit's TSV"

    def claims(self, beginning: Beginning) -> bool:
        """See `SampleReader`."""
        header = set(beginning.lines[0].split("\t")) if beginning.lines else set()
        return header >= {"index", "question"} and bool(header & {"image", "image_path"})

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        (path,) = source.files("FILE.tsv")
        table = TsvRows(path)
        lacking = [name for name in ("index", "question") if name not in table.columns]
        if lacking or not {"image", "image_path"} & set(table.columns):
            raise InputError(
                f"{path} has no column {lacking[0] if lacking else 'image'!r} (it has {', '.join(table.columns)}); "
                "expected index, question, and image or image_path"
            )
        look = _looked(table)
        kind = _kind(path.stem, table.columns, look.answers)
        for row in table:
            record = Record(row.cells, row.where)
            question, metric = _asked(record, kind)
            pictures: list[bytes] | list[str]
            if "image" in table.columns:
                pictures = _pictures(record, table, look)
            else:
                pictures = [record.picture("image_path", source.home, one) for one in _listed(record, "image_path")]
            if path.stem.startswith("MMMU"):
                question, pictures = _interleaved(record, question, pictures)
            yield {
                "id": record.text("index"),
                "question": question,
                "bare_question": record.text("question"),
                "images": pictures,
                "answers": record.get("answer"),
                "metric": metric,
                **passed_on({name: row.cells.get(name) for name in table.columns}, *_TAKEN),
            }


def _looked(table: TsvRows) -> _Look:
    look = _Look()
    for row in table:
        index = Record(row.cells, row.where).text("index")
        if index in look.places:
            other = table.at(look.places[index]).where
            raise InputError(f"{row.where}: the index {index!r} is that of {other} too; each row has its own")
        look.places[index] = row.start
        if len(look.answers) < 3 and (answer := row.cells.get("answer", "").strip()):
            look.answers.add(answer.lower())
    return look


def _kind(name: str, columns: list[str], answers: set[str]) -> _Kind:
    if name in _KNOWN:
        return _KNOWN[name]
    if {"A", "B"} <= set(columns):
        return _Kind("exact", lettered=True)
    if answers and answers <= {"yes", "no"}:
        return _Kind("yes_no")
    note_once(
        f"the benchmark {name} has no options, and how it is scored is not known; its samples are scored by exact; "
        "score with VLMEvalKit itself where it is scored otherwise"
    )
    return _Kind("exact")


def _asked(record: Record, kind: _Kind) -> tuple[str, str]:
    """The prompt that VLMEvalKit's datasets build (``build_prompt``), and the metric."""
    question = record.text("question")
    if not kind.lettered:
        return f"{question}{kind.suffix}", kind.metric
    letters = [letter for letter in LETTERS if letter in record]
    options = [f"{letter}. {record[letter]}\n" for letter in letters]
    hint = f"Hint: {record['hint']}\n" if "hint" in record else ""
    prompt = f"{hint}Question: {question}\n"
    if not options:
        return prompt, kind.metric
    if "answer" in record and record["answer"].strip() not in letters:
        raise record.wrong("answer", f"the letter of an option that the row has: {', '.join(letters)}")
    return (
        f"{prompt}Options:\n{''.join(options)}Please select the correct answer from the options above. \n",
        "multiple_choice",
    )


def _pictures(record: Record, table: TsvRows, look: _Look) -> list[bytes]:
    """The pictures in a row, or in the one that it names."""
    held, cell = record, record.get("image", "")
    if 0 < len(cell) <= MOST_NAME:
        if cell not in look.places:
            raise record.wrong("image", "a picture in base64, or (up to 64 characters) the index of another row")
        other: TsvRow = table.at(look.places[cell])
        held = Record(other.cells, f"{record.where}, whose image names the row {cell!r}")
        if len(other.cells.get("image", "")) <= MOST_NAME:
            raise held.wrong("image", "a picture in base64, since a row that is named may name no other")
    return [_decoded(held, text) for text in _listed(held, "image")]


def _listed(record: Record, column: str) -> list[str]:
    """The texts of a cell: one, those of a printed list, or none."""
    cell = record.get(column, "").strip()
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell] if cell else []
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise record.wrong(column, "one text, or a printed list of texts: ['...', '...']")
    return found


def _decoded(record: Record, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise record.wrong("image", "a picture in base64") from None


def _interleaved(record: Record, question: str, pictures: list[Any]) -> tuple[str, list[Any]]:
    """A question with its pictures where MMMU has ``<image 2>``, in the order in which they then stand."""
    places = [int(number) for number in _PLACE.findall(question)]
    if not places:
        return question, pictures
    if not all(1 <= place <= len(pictures) for place in places):
        raise record.wrong("question", f"places of the {len(pictures)} pictures that the row has: <image 1> ...")
    return _PLACE.sub("<image>", question), [pictures[place - 1] for place in places]
