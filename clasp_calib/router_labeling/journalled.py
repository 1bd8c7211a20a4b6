"""Labels on disk as they come: what was answered once is never asked again, whenever the process dies."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import canonical_json, sha256_json
from clasp_calib.common.progress import progress
from clasp_calib.router_labeling.labelers import Guess


class Asker(Protocol):
    """A labeler whose answers may come in any order."""

    @property
    def fingerprint(self) -> str:
        """JSON text of what decides a label."""
        ...

    def ask(self, questions: Sequence[str]) -> Iterator[tuple[int, Guess]]:
        """One (index into ``questions``, guess) for each question, as soon as it is known."""
        ...


@dataclass
class JournalledLabeler:
    """A labeler that keeps every answer of another in a file, and asks it for each different question once.

    The file ``<directory>/<16 hex of the fingerprint's hash>.jsonl`` begins with the fingerprint; each further
    line is one question with its guess. Another model, prompt or taxonomy writes another file. A torn last line,
    which a killed process may leave, is dropped.
    """

    asker: Asker
    directory: Path
    retry_failed: bool = False
    """Ask again what failed in an earlier run."""
    resumed: int = field(default=0, init=False)
    """Different questions that the journal already knew."""
    failed: dict[str, str] = field(default_factory=dict, init=False)
    """Question -> why it has no label; such a question gets the default intent."""

    @property
    def fingerprint(self) -> str:
        """The other labeler's fingerprint."""
        return self.asker.fingerprint

    @property
    def path(self) -> Path:
        """The journal of this fingerprint."""
        return self.directory / f"{sha256_json(self.fingerprint)[:16]}.jsonl"

    def label(self, questions: Sequence[str]) -> Iterator[Guess]:
        """One guess for each question, in order.

        Raises:
            InputError: the journal is damaged, belongs to another fingerprint, cannot be written to, or another
                process is writing to it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process is labelling with the journal {self.path}; wait for it or end it"
                ) from None
            known = self._read(file.fileno())
            wanted = list(dict.fromkeys(questions))
            self.resumed = sum(question in known for question in wanted)
            asked = [question for question in wanted if question not in known]
            with progress() as bar:
                task = bar.add_task("labelling", total=len(wanted), completed=self.resumed)
                for index, guess in self.asker.ask(asked) if asked else ():
                    known[asked[index]] = guess
                    # One unbuffered write a line: the kernel keeps it if this process is killed.
                    os.write(file.fileno(), _line({"question": asked[index], **asdict(guess)}))
                    bar.advance(task)
        missing = [question for question in asked if question not in known]
        if missing:
            raise InputError(f"the labeler answered fewer than the {len(asked)} questions it was given")
        self.failed = {q: known[q].raw for q in wanted if known[q].source == "default"}
        yield from (known[question] for question in questions)

    def _read(self, descriptor: int) -> dict[str, Guess]:
        """The guesses on disk; drops a torn last line, and begins an empty file with the fingerprint."""
        with open(self.path, "rb") as file:
            content = file.read()
        whole = content.rfind(b"\n") + 1
        os.ftruncate(descriptor, whole)
        lines = content[:whole].split(b"\n")[:-1]
        if not lines:
            os.write(descriptor, _line({"labeler": self.fingerprint}))
            return {}
        guesses = {}
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if number == 1:
                    if entry["labeler"] != self.fingerprint:
                        raise InputError(f"the journal {self.path} belongs to another labeler; remove it")
                else:
                    question = entry.pop("question")
                    guesses[question] = Guess(**entry)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"line {number} of the journal {self.path} is damaged ({error}); remove the line, or the file"
                ) from error
        if self.retry_failed:
            guesses = {question: guess for question, guess in guesses.items() if guess.source != "default"}
        return guesses


def _line(entry: dict[str, object]) -> bytes:
    # Questions may hold lone surrogates, which UTF-8 cannot: canonical JSON then falls back to escapes.
    try:
        return (canonical_json(entry) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(entry) + "\n").encode()
