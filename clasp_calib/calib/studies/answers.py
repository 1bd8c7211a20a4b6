"""Answers and solved knobs on disk as they come, so that nothing is done twice, whenever the process dies."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json, sha256_json


@dataclass(frozen=True)
class Asked:
    """What was asked of whom: which method with which knobs, at which budget, by which seed, about which sample."""

    method: str
    budget: str
    knobs: str
    seed: int
    sample: str


@dataclass(frozen=True)
class Answered:
    """What came of it."""

    text: str
    score: float
    tokens: float
    """Mean visual tokens that a decoder layer worked on."""
    flops: float
    """Of the decoder layers in the prefill."""


class AnswerJournal:
    """The file ``<directory>/answers-<16 hex of the identity's hash>.jsonl``.

    It begins with the identity; each further line is one answer. A torn last line, which a killed process may leave, is
    dropped.

    Args:
        directory: made if it is missing.
        identity: all that decides answers but for what `Asked` says: model, samples, prompt, decoding.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"answers-{sha256_json(identity)[:16]}.jsonl"
        self._known: dict[Asked, Answered] = {}
        with self.path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        # Unbuffered: the kernel keeps a line that was written if this process is killed.
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        if not lines:
            self._write(identity)
        for number, line in enumerate(lines[1:], start=2):
            try:
                entry = json.loads(line)
                self._known[Asked(**entry["asked"])] = Answered(**entry["answered"])
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"line {number} of {self.path} is damaged ({error}); remove the line, or the file"
                ) from error

    def __len__(self) -> int:
        return len(self._known)

    def get(self, asked: Asked) -> Answered | None:
        """The answer, if it is known."""
        return self._known.get(asked)

    def add(self, asked: Asked, answered: Answered) -> None:
        """Keep an answer."""
        self._write({"asked": asdict(asked), "answered": asdict(answered)})
        self._known[asked] = answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._descriptor, (canonical_json(entry) + "\n").encode())


class SolvedKnobs:
    """The file ``<directory>/knobs-<16 hex of the identity's hash>.json``: knobs that took forwards to solve.

    Args:
        directory: made if it is missing.
        identity: all that decides them but for method and budget.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"knobs-{sha256_json(identity)[:16]}.json"
        self._known: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            try:
                self._known = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{self.path} is damaged ({error}); remove it") from error

    def get(self, method: str, budget: str) -> dict[str, Any] | None:
        """The knobs of a method at a budget, if they are known."""
        return self._known.get(f"{method}@{budget}")

    def add(self, method: str, budget: str, knobs: dict[str, Any]) -> None:
        """Keep knobs, whole or not at all."""
        self._known[f"{method}@{budget}"] = knobs
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps(self._known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(self.path)
