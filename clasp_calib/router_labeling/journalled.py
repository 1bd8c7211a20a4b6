"""Labels on disk as they come: what was answered once is never asked again, whenever the process dies."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.journal import Journal, JournalKind
from clasp_calib.common.progress import note, progress, track
from clasp_calib.common.row_blocks import blocks
from clasp_calib.router_labeling.labelers import Guess, KeywordLabeler, Labeler, Scheme

KIND = JournalKind(InputError, elsewhere="give another --run", plain=True)


@dataclass
class JournalledLabeler:
    """A labeler that keeps every answer of another in a file, and asks it for each different question once.

    The journal ``<directory>/<16 hex of the fingerprint's hash>.jsonl`` begins with the fingerprint; each further
    line is one question with its guess. Another model, prompt or taxonomy writes another file.
    """

    labeler: Labeler
    scheme: Scheme
    directory: Path | None = None
    """``None`` keeps answers in memory only."""
    retry_failed: bool = False
    """Ask again what failed in an earlier run."""
    resumed: int = field(default=0, init=False)
    """Different questions that the journal already knew."""
    _known: dict[str, Guess] = field(default_factory=dict, init=False)

    @cached_property
    def fingerprint(self) -> str:
        """The other labeler's fingerprint."""
        return self.labeler.fingerprint(self.scheme)

    @property
    def path(self) -> Path | None:
        """The journal of this fingerprint."""
        return self.directory and self.directory / f"{sha256_json(self.fingerprint)[:16]}.jsonl"

    @property
    def by_rules(self) -> bool:
        """Whether keyword rules alone answer."""
        return isinstance(self.labeler, KeywordLabeler)

    def label(self, questions: Iterable[str], total: int | None = None) -> Iterator[Guess]:
        """One guess for each question, in order.

        Keyword rules whose answers are not kept in a file are asked by the block, and forget them.

        Args:
            questions: read as they are needed where rules are asked by the block, and otherwise all at once.
            total: how many there are at most, for the progress bar.

        Raises:
            InputError: the journal is damaged, belongs to another fingerprint, cannot be written to, or another
                process is writing to it.
        """
        if self.by_rules and self.directory is None:
            for block in blocks(track(questions, "labelling", total)):
                wanted = list(dict.fromkeys(block))
                answers = dict(self._answers(wanted))
                yield from (answers[question] for question in block)
        elif given := list(questions):
            yield from self._kept(given)

    def _kept(self, questions: Sequence[str]) -> Iterator[Guess]:
        wanted = list(dict.fromkeys(questions))
        with Journal(self.path, self._take, KIND, head={"labeler": self.fingerprint}) as journal:
            if self.retry_failed:
                self._known = {q: guess for q, guess in self._known.items() if guess.source != "default"}
            self.resumed = sum(question in self._known for question in wanted)
            asked = [question for question in wanted if question not in self._known]
            if self.resumed:
                note(f"{self.resumed} different questions were answered before, see {self.path}")
            with progress() as bar:
                task = bar.add_task("labelling", total=len(wanted), completed=self.resumed)
                for question, guess in self._answers(asked) if asked else ():
                    journal.append({"question": question, **asdict(guess)})
                    bar.advance(task)
        yield from (self._known[question] for question in questions)

    def _answers(self, asked: Sequence[str]) -> Iterator[tuple[str, Guess]]:
        """Each of different questions once, with its guess."""
        answered = set()
        for index, guess in self.labeler.ask(asked, self.scheme):
            if not 0 <= index < len(asked) or index in answered:
                raise InputError(
                    f"the labeler answered question {index} of {len(asked)}, or answered it twice; expected one answer "
                    "to each"
                )
            answered.add(index)
            yield asked[index], guess
        if len(answered) < len(asked):
            raise InputError(f"the labeler answered fewer than the {len(asked)} questions it was given")

    def _take(self, entry: dict[str, Any]) -> None:
        question, guess = entry["question"], {name: value for name, value in entry.items() if name != "question"}
        if not isinstance(question, str):
            raise TypeError(f"the question {question!r:.40} is no text")
        self._known[question] = Guess(**guess)
