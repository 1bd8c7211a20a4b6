"""JSON files of any size, one element of an array, or one line of JSON Lines, after another."""

import codecs
import json
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NoReturn

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import regular_file
from clasp_calib.common.strict_json import named_once

MOST_ELEMENT = 64 << 20
"""Characters of one element."""
_CHUNK = 1 << 20
_SURE = 64
"""Characters behind an error from which on it is none of a text that goes on in the next chunk."""
_SPACE = " \t\r\n"
_BEHIND = tuple(",]}" + _SPACE)


def json_elements(path: Path, key: str | None = None) -> Iterator[tuple[str, Any]]:
    """The elements of an array, or the members of an object, each with its place in the file.

    The file is read once, to its end, and no more than a few elements are held at a time.

    Args:
        path: a regular file in UTF-8.
        key: the key of the outermost object under which they stand; None is the outermost array or object itself.

    Yields:
        (place, value): ``FILE: questions[3]``, or ``FILE: ['05515938']`` of a member.

    Raises:
        InputError: the file cannot be read, or is no JSON; the key is missing, or stands there twice; there is neither
            an array nor an object; a member stands there twice.
    """
    for _, place, value in _elements(path, key):
        yield place, value


def json_members(path: Path) -> Iterator[tuple[str, str, Any]]:
    """The members of a file that is one object, each with its name and its place; otherwise as `json_elements`.

    Yields:
        (name, place, value): ``05515938`` and ``FILE: ['05515938']``.

    Raises:
        InputError: see `json_elements`; or the file is an array.
    """
    for name, place, value in _elements(path, None):
        if isinstance(name, int):
            raise InputError(f"{place}: the file is an array; expected an object that has rows by their names")
        yield name, place, value


def _elements(path: Path, key: str | None) -> Iterator[tuple[str | int, str, Any]]:
    try:
        with regular_file(path) as file:
            yield from _Scanner(path, file).elements(key)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error


def json_lines_of(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a file of JSON Lines, each with its place in the file; blank lines are passed over.

    Args:
        path: a regular file in UTF-8.

    Yields:
        (place, value): ``FILE: line 3``.

    Raises:
        InputError: the file cannot be read; or a line is no JSON, or holds a key twice.
    """
    try:
        with regular_file(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}: line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                    yield where, json.loads(text, object_pairs_hook=named_once, parse_constant=_refused)
                except RecursionError:
                    raise InputError(f"{where} is nested too deeply; mend the file") from None
                except ValueError as error:
                    raise InputError(f"{where} is no JSON ({error}); mend the line, or fetch the file again") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the file") from error


class _Scanner:
    def __init__(self, path: Path, file: Any):
        self._path, self._file = path, file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._ended, self._lines, self._read = "", 0, False, 1, 0
        self._decoder = json.JSONDecoder(object_pairs_hook=named_once, parse_constant=_refused)

    def elements(self, key: str | None) -> Iterator[tuple[str | int, str, Any]]:
        if key is None:
            yield from self._within("")
        else:
            if self._next() != "{":
                self._wrong(f"begins with {self._next() or 'nothing'!r}; expected an object with the key {key!r}")
            found = set()
            for name in self._members():
                if name in found:
                    self._wrong(f"the key {name[:100]!r} stands twice in the outermost object")
                found.add(name)
                if name == key:
                    yield from self._within(name)
                elif self._next() == "[":
                    for _ in self._within(name):
                        pass
                else:
                    self._value()
            if key not in found:
                raise InputError(
                    f"{self._path} has no key {key!r} (it has {', '.join(sorted(found)) or 'none'}); give the file "
                    "that has it"
                )
        if self._next():
            self._wrong(f"goes on with {self._next()!r} behind its end")

    def _within(self, name: str) -> Iterator[tuple[str | int, str, Any]]:
        kind = self._next()
        if kind == "[":
            for number in self._items():
                yield number, f"{self._path}: {name}[{number}]", self._value()
        elif kind == "{":
            found = set()
            for member in self._members():
                if member in found:
                    self._wrong(f"the key {member[:100]!r} stands twice in one object")
                found.add(member)
                yield member, f"{self._path}: {name}[{member!r}]", self._value()
        else:
            self._wrong(f"has {kind!r} for {name or 'its content'}; expected an array or an object")

    def _items(self) -> Iterator[int]:
        """The numbers of the items of an array; after each the caller reads one."""
        self._at += 1
        number = 0
        while self._next() != "]" or number:
            yield number
            number += 1
            if self._divided("]"):
                break
        self._at += 1

    def _members(self) -> Iterator[str]:
        """The names of the members of an object; after each the caller reads its value."""
        self._at += 1
        first = True
        while self._next() != "}" or not first:
            if self._next() != '"':
                self._wrong(f"has {self._next()!r} where a key in quotes was expected")
            name = self._value()
            if self._next() != ":":
                self._wrong(f"has {self._next()!r} behind the key {name[:100]!r}; expected ':'")
            self._at += 1
            yield name
            first = False
            if self._divided("}"):
                break
        self._at += 1

    def _divided(self, end: str) -> bool:
        """Whether the end is next; otherwise a comma is, which is passed over."""
        mark = self._next()
        if mark == end:
            return True
        if mark != ",":
            self._wrong(f"has {mark!r} where ',' or {end!r} was expected" if mark else "ends too early; it is cut off")
        self._at += 1
        return False

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number may go on in the next chunk: 1 of 1.5.
                if self._ended or end + _SURE < len(self._text) or self._text[end : end + 1] in _BEHIND:
                    self._at = end
                    return value
            except JSONDecodeError as error:
                open_text = error.msg.startswith("Unterminated string")
                if self._ended or (not open_text and error.pos + _SURE < len(self._text)):
                    self._at = error.pos
                    self._wrong(f"is no JSON ({error.msg})")
            except RecursionError:
                self._wrong("is nested too deeply")
            except ValueError as error:
                self._wrong(str(error))
            if len(self._text) - self._at > MOST_ELEMENT:
                self._wrong(f"holds an element of more than {MOST_ELEMENT} characters")
            self._fill(max(_CHUNK, len(self._text) - self._at))

    def _next(self) -> str:
        """The next character that is no space, which is not passed over; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill(_CHUNK)

    def _fill(self, size: int) -> None:
        self._lines += self._text.count("\n", 0, self._at)
        content = self._file.read(size)
        self._ended = not content
        try:
            self._text = self._text[self._at :] + self._decode(content, self._ended)
        except UnicodeDecodeError:
            self._at = len(self._text)
            self._wrong("is not UTF-8; save the file as UTF-8")
        self._at = 0

    def _wrong(self, why: str) -> NoReturn:
        line = self._lines + self._text.count("\n", 0, self._at)
        raise InputError(f"{self._path}: line {line}: {why}; mend the file, or fetch it again") from None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"holds the number {constant}, which JSON has not")
