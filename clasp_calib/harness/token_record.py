"""How many visual tokens the requests of a harness had and kept, in a file beside its results."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clasp_calib import __version__
from clasp_calib.common.progress import note
from clasp_calib.common.replacing import replaced

FORMAT = 1


@dataclass(frozen=True)
class TokensOfRequest:
    """One request, and its visual tokens."""

    task: str
    doc_id: int
    kind: str
    """Such as ``generate_until``."""
    number: int
    """Among the requests of this kind about the document, or the round of a conversation; from 0."""
    label: str | None
    """Class that it was answered as."""
    before: int
    """Visual tokens that entered the model."""
    kept: float
    """Mean visual tokens that a decoder layer worked on."""
    new_tokens: int | None = None
    seconds: float | None = None


class TokenRecord:
    """Visual tokens of all requests of a run.

    Args:
        how: what prunes, and the model, as they are to be read later.
    """

    def __init__(self, how: Mapping[str, Any]) -> None:
        self._how = dict(how)
        self.requests: list[TokensOfRequest] = []

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON: first the means of every task."""
        return {
            "format": FORMAT,
            "clasp_calib": __version__,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            **self._how,
            "tasks": {task: _means(of) for task, of in self._by("task").items()},
            "requests": [
                {("class" if name == "label" else name): value for name, value in asdict(one).items()}
                for one in self.requests
            ],
        }

    def write(self, directory: Path, part: str = "") -> Path:
        """Write ``<time>_visual_tokens.json`` into a directory, which is made."""
        now = datetime.now(UTC)
        path = directory / f"{now:%Y%m%d_%H%M%S}_{now.microsecond // 1000:03d}{part}_visual_tokens.json"
        directory.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial:
            partial.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        return path

    def say(self) -> None:
        """One line a task on standard error."""
        for task, of in self._by("task").items():
            means = _means(of)
            note(
                f"clasp: {task}: {means['requests']} requests, {means['before']:.1f} visual tokens, "
                f"{means['kept']:.1f} of them in a decoder layer on average"
            )

    def _by(self, name: str) -> dict[str, list[TokensOfRequest]]:
        found: dict[str, list[TokensOfRequest]] = {}
        for one in self.requests:
            found.setdefault(str(getattr(one, name)), []).append(one)
        return found


def _means(requests: Iterable[TokensOfRequest]) -> dict[str, Any]:
    """Number of requests, mean visual tokens before and kept, and how many there were of each class."""
    every = list(requests)
    classes: dict[str, int] = {}
    for one in every:
        if one.label is not None:
            classes[one.label] = classes.get(one.label, 0) + 1
    return {
        "requests": len(every),
        "before": sum(one.before for one in every) / len(every),
        "kept": sum(one.kept for one in every) / len(every),
        **({"classes": classes} if classes else {}),
    }
