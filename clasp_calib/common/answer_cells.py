"""What a cell of the columns ``answers`` and ``id`` may be, and the texts that it then is.

Everything else is refused: an answer that was misread looks like an answer. Raised are ValueErrors; who reads a table
adds the row.
"""

import ast
import json
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pyarrow as pa

from clasp_calib.common.row_blocks import cells_of

_ANNOTATION = {"answer", "answer_confidence", "answer_id", "raw_answer"}
"""Keys of an answer in the annotations of VQAv2, VizWiz and OK-VQA (https://visualqa.org/download.html)."""
_NOTHING = ("nan", "NaN", "<NA>", "NaT")
"""What pandas writes for nothing, where a text is asked of it."""
_ITEM = r"""(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+"|None\b|nan\b)"""
_BY_COMMAS = re.compile(rf"[\[({{]\s*+(?:{_ITEM}\s*+(?:,\s*+{_ITEM}\s*+)*+,?\s*+)?[\])}}]", re.DOTALL)
_BY_SPACES = re.compile(rf"\[\s*+{_ITEM}(?:\s++{_ITEM})*+\s*+\]", re.DOTALL)
_WRITTEN = re.compile(r"\[.*\]|\{.*\}|\(\s*['\"].*\)|(?:\w+\.)?(?:array|set|frozenset|tuple|list)\(.*\)", re.DOTALL)
"""Texts that are the printed form of something else."""
_FLOATED = re.compile(r"-?\d+\.0")
_BITS = {"float16": 11, "float32": 24}
_MOST_DIGITS = 4000

_Read = TypeVar("_Read")


class Literal(str):
    """A number in a JSON text, as it is written there."""

    __slots__ = ()


def answers_of(cell: Any, divider: str | None = None) -> list[str]:
    """The accepted answers of a cell.

    Args:
        cell: a text; a number; a mapping of VQA's annotations, which has ``answer``; a list of these; or nothing: None,
            NaN or a blank text. A text that is a printed list of texts is read as that list.
        divider: what stands between the answers of a text, in formats that have no lists.

    Raises:
        ValueError: it is anything else, a truth value, a date, bytes or a list of lists for instance.
    """
    if _is_list(cell):
        return [answer for item in cell for answer in _of_item(item)]
    if isinstance(cell, str) and not isinstance(cell, Literal):
        return _of_text(cell, divider)
    return _of_item(cell)


def id_of(cell: Any) -> str | None:
    """The id of a cell, a text or a number; whole numbers are written as such, also where they are floating.

    Raises:
        ValueError: it is something else, or a number that has lost digits.
    """
    if isinstance(cell, Literal):
        return _number(Decimal(_finite(cell))) if cell != "NaN" else None
    if isinstance(cell, str):
        return cell or None
    if isinstance(cell, UUID):
        return str(cell)
    if not is_nothing(cell) and not _is_number(cell):
        raise ValueError(f"{_told(cell)}; expected a text or a number")
    return next(iter(_of_item(cell)), None)


def read_column(column: pa.ChunkedArray, read: Callable[[Any], _Read]) -> Iterator[_Read]:
    """What ``read``, one of the functions above, makes of each cell of a column, one after another.

    Raises:
        ValueError: of a cell, with its row.
    """
    kind = column.type.value_type if hasattr(column.type, "value_type") else column.type
    # Python's floats would show digits that a shorter one never had.
    short = pa.types.is_float16(kind) or pa.types.is_float32(kind)
    for row, given in enumerate(cells_of(column)):
        cell = given
        if short:
            dtype = kind.to_pandas_dtype()
            cell = [dtype(one) for one in given] if isinstance(given, list) else dtype(given)
        try:
            yield read(cell)
        except ValueError as error:
            raise ValueError(f"row {row}: {error}") from error


def unfloated(texts: Sequence[str | None], only_with_gaps: bool = False) -> list[str | None]:
    """Texts of a column in which every number ends in ``.0`` without that end: pandas wrote whole numbers so.

    Args:
        texts: of the column; None or empty where there is nothing.
        only_with_gaps: leave a column as it is in which nothing is missing, for which pandas would have had no reason.
    """
    there = [text for text in texts if text]
    if there and all(map(_FLOATED.fullmatch, there)) and not (only_with_gaps and len(there) == len(texts)):
        return [text.removesuffix(".0") if text else text for text in texts]
    return list(texts)


def _of_item(item: Any) -> list[str]:
    if isinstance(item, Mapping):
        return _of_annotation(item)
    if is_nothing(item):
        return []
    if isinstance(item, Literal):
        return [] if item == "NaN" else [_finite(item)]
    if isinstance(item, str):
        return [str(item)] if item.strip() else []
    if isinstance(item, bool | np.bool_):
        raise ValueError(f"the truth value {item}; write the text that is to be accepted, such as 'yes' or 'no'")
    if _is_number(item):
        return [_number(item)]
    raise ValueError(f"{_told(item)}; expected a text, a number, a list of these, or VQA's annotations with 'answer'")


def _of_annotation(given: Mapping[Any, Any]) -> list[str]:
    if "answer" not in given or not set(given) <= _ANNOTATION:
        keys = ", ".join(map(str, list(given)[:6]))
        raise ValueError(f"an object with {keys or 'no keys'}; expected {', '.join(sorted(_ANNOTATION))} at most")
    answer = given["answer"]
    if isinstance(answer, Mapping) or (_is_list(answer) and any(isinstance(one, Mapping) for one in answer)):
        raise ValueError("an 'answer' that holds objects; expected a text")
    return answers_of(answer) if _is_list(answer) else _of_item(answer)


def _of_text(text: str, divider: str | None) -> list[str]:
    bare = text.strip()
    if bare in _NOTHING:
        raise ValueError(
            f"the text {bare!r}, which pandas writes for nothing; leave the cell empty, or accept it in a list: "
            f'["{bare}"]'
        )
    if _WRITTEN.fullmatch(bare):
        return _of_written(bare)
    if divider is not None:
        return [part.strip() for part in bare.split(divider) if part.strip()]
    return [text] if bare else []


def _of_written(text: str) -> list[str]:
    """The texts of a list that was written as a text: by JSON, by Python or by numpy."""
    try:
        found = json.loads(text, parse_int=Literal, parse_float=Literal, parse_constant=Literal)
    except (ValueError, RecursionError):
        found = None
    try:
        if found is None and (_BY_COMMAS.fullmatch(text) or _BY_SPACES.fullmatch(text)):
            items = re.findall(_ITEM, text, re.DOTALL)
            found = [None if item in ("None", "nan") else ast.literal_eval(item) for item in items]
    except (SyntaxError, ValueError):
        found = None
    # A list of numbers may be an answer of its own: a pair of coordinates, an interval.
    if not isinstance(found, list) or not all(
        one is None or (isinstance(one, str | Mapping) and not isinstance(one, Literal)) for one in found
    ):
        raise ValueError(
            f"the text {reprlib.repr(text)}, which looks like the printed form of something else; give a list of texts "
            'where the format has lists, and in a text one of JSON: ["3", "three"]'
        )
    return answers_of(found)


def is_nothing(cell: Any) -> bool:
    """Whether a cell is None, or what pandas has for nothing: NaN, ``NA`` or ``NaT``."""
    is_nan = isinstance(cell, float | np.floating) and bool(np.isnan(cell))
    return cell is None or is_nan or type(cell).__name__ in ("NAType", "NaTType")


def _is_number(cell: Any) -> bool:
    return isinstance(cell, Integral | float | np.floating | Decimal) and not isinstance(cell, bool | np.bool_)


def _number(value: Any) -> str:
    exact = Decimal(int(value)) if isinstance(value, Integral) else Decimal(str(value))
    if not exact.is_finite() or abs(exact.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"the number {_finite(str(value))}, which has too many digits; give it as a text")
    bits = _BITS.get(type(value).__name__, 53)
    if not isinstance(value, Integral | Decimal) and abs(exact) > 2**bits:
        raise ValueError(f"the floating number {value}, which has lost digits: give it as a text, or as a whole number")
    return str(int(exact)) if exact == exact.to_integral_value() else f"{exact:f}".rstrip("0")


def _finite(literal: str) -> str:
    if literal.lower().endswith(("infinity", "inf")):
        raise ValueError(f"{literal}, which is no number to answer with; mend it")
    return str(literal)


def _is_list(cell: Any) -> bool:
    return isinstance(cell, list | tuple | np.ndarray)


def _told(cell: Any) -> str:
    return f"{reprlib.repr(cell)}, a {type(cell).__name__}"
