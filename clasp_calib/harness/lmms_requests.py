"""What lmms-eval asks a model: its requests, whichever shape they have, as conversations with pictures.

A task of a *simple* model gives a text and what is shown; one of a *chat* model gives messages. A chat model is given
both, for lmms-eval builds tasks from the path of a YAML file for simple models always (0.7.3). Nothing of lmms-eval is
imported here.
"""

import math
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from clasp_calib.common.containing import contained
from clasp_calib.common.errors import InputError
from clasp_calib.common.media import is_video
from clasp_calib.common.progress import note_once
from clasp_calib.common.question_parts import IMAGE, parts_of
from clasp_calib.harness.prompted_request import PromptedRequest

AROUND = ("pre_prompt", "post_prompt")
"""What a task puts before and after a question; in some tasks with a kind of question in front of the name."""
DECODING = {"max_new_tokens", "until", "temperature", "do_sample", "top_p", "top_k", "num_beams", "repetition_penalty"}
"""What tasks say about decoding, and is followed."""
BEAMS = {"length_penalty": 1.0, "early_stopping": False}
"""What a search with beams needs besides their number, as transformers has it by default."""
LONGEST = 1024
"""Tokens of an answer where a task sets no limit, as for lmms-eval's own LLaVA."""
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class LmmsRequest:
    """One request of a task.

    Attributes:
        kind: such as ``generate_until``.
        arguments: as the task made them.
        task_name: the task's.
        doc_id: place of its row in the split.
        rows: the split of the task's dataset; a row is read when it is needed, for it holds decoded pictures.
        number: among the requests about the row.
        padding: it only keeps processes in step, and nobody reads its answer.
    """

    kind: str
    arguments: tuple[Any, ...]
    task_name: str
    doc_id: int
    rows: Any = field(repr=False)
    number: int = 0
    padding: bool = False

    @classmethod
    def of(cls, instance: Any, datasets: Mapping[str, Any]) -> "LmmsRequest":
        """A request of lmms-eval.

        Args:
            instance: an ``lmms_eval.api.instance.Instance``.
            datasets: by task and split, ``lmms.task_dict``.

        Raises:
            InputError: it is about no row, as those of the metric ``acc_mutual_info``.
        """
        arguments = tuple(instance.args)
        if len(arguments) < 6:
            raise InputError(
                f"the task {instance.task_name} asks how likely answers are without a question, for the metric "
                "acc_mutual_info; ask for acc alone"
            )
        doc_id, task, split = arguments[-3:]
        padding = bool((instance.metadata or {}).get("__padding_only__"))
        return cls(instance.request_type, arguments, task, doc_id, datasets[task][split], instance.idx, padding)

    @property
    def name(self) -> str:
        """For messages."""
        return f"document {self.doc_id} of the task {self.task_name}"

    @property
    def decoding(self) -> Mapping[str, Any]:
        """What the task says about decoding."""
        return next((argument for argument in self.arguments if isinstance(argument, dict)), {})

    @property
    def continuation(self) -> str:
        """The answer whose likelihood is asked for."""
        target = self.arguments[1]
        return str(target(self.row()) if callable(target) else target)

    @property
    def task(self) -> Any:
        """The ``lmms_eval.api.task.Task``, which is behind the functions that come with a request; else ``None``."""
        bound = (getattr(argument, "__self__", None) for argument in self.arguments)
        return next((owner for owner in bound if hasattr(owner, "config")), None)

    @property
    def chat(self) -> bool:
        """Whether it has messages rather than a text and what is shown."""
        return self.kind != "loglikelihood" and callable(self.arguments[1])

    def prompted(self) -> PromptedRequest:
        """What the model is asked, in the first round if there are several.

        Raises:
            InputError: it shows what no picture or video is.
            ComputationError: the task's own functions fail.
        """
        return self._first(self.row())

    def row(self) -> Mapping[str, Any]:
        """The row that it is about.

        Raises:
            ComputationError: it cannot be read.
        """
        with contained(f"reading {self.name}"):
            row: Mapping[str, Any] = self.rows[self.doc_id]
            return row

    def of_context(self, context: Any, visuals: Any, question: str | None = None) -> PromptedRequest:
        """What is asked with a text and what is shown.

        Raises:
            InputError: see `prompted`.
        """
        if not isinstance(context, str):
            raise InputError(f"{self.name} has the text {context!r:.100}; expected one text")
        media = tuple(_media(one, self.name) for one in _flat(visuals))
        return PromptedRequest.of_text(self.name, question or context, context, media)

    def of_messages(self, messages: Any, question: str | None = None) -> PromptedRequest:
        """What is asked with messages, dicts with a ``role`` and a ``content``.

        Raises:
            InputError: see `prompted`.
        """
        turns, media = [], list[Any]()
        for message in messages:
            parts, shown = _parts(message, self.name)
            turns.append((message["role"], parts))
            media += shown
        if not turns or turns[-1][0] != "user":
            raise InputError(f"{self.name} does not end with a message of the user; expected one to answer")
        asked = question or "".join(part for part in turns[-1][1] if part)
        return PromptedRequest(self.name, asked, tuple(turns), tuple(media))

    def rounds(self) -> Generator[PromptedRequest, str, list[str]]:
        """Rounds of a conversation: yields requests, is sent their answers, and returns all answers at its end.

        The task says after every answer what comes next (``doc_to_text`` or ``doc_to_messages`` with ``round_idx``).
        """
        said: list[str] = []
        row = self.row()
        told, request = None, self._first(row)
        while True:
            said.append((yield request))
            with contained(f"making round {len(said) + 1} of {self.name}"):
                how = {"round_idx": len(said), "previous_output": list(said), "previous_round_info": told}
                if self.chat:
                    step = self.arguments[1](row, **how)
                    if not (isinstance(step, tuple) and len(step) == 4):
                        return said
                    messages, last, heard, told = step
                else:
                    step = self.arguments[3](row, **how)
                    if not (isinstance(step, tuple) and len(step) == 5):
                        return said
                    visuals, context, last, heard, told = step
                if heard is not None:
                    said = [str(one) for one in heard]
                if last:
                    return said
                request = self.of_messages(messages) if self.chat else self.of_context(context, visuals)

    def how_decoded(self) -> tuple[int, list[str], dict[str, Any]]:
        """The longest answer, texts that end it, and arguments of ``generate``.

        Answers are sampled where the temperature is above 0, as lmms-eval's own models do it, and greedy otherwise.

        Raises:
            InputError: a value that cannot be used.
        """
        settings = self.decoding
        if others := sorted(settings.keys() - DECODING):
            note_once(f"the task {self.task_name} sets {', '.join(others)} for decoding, which clasp does not follow")
        try:
            longest = int(settings.get("max_new_tokens") or LONGEST)
            warmth, beams = float(settings.get("temperature") or 0), int(settings.get("num_beams") or 1)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the task {self.task_name} decodes with {dict(settings)} ({error})") from error
        if longest < 1 or beams < 1 or not 0 <= warmth < math.inf:
            raise InputError(
                f"the task {self.task_name} decodes with {dict(settings)}; expected max_new_tokens and num_beams of at "
                "least 1, and a finite temperature that is not negative"
            )
        until = settings.get("until") or []
        ends = [until] if isinstance(until, str) else until
        if not isinstance(ends, list | tuple) or not all(isinstance(end, str) for end in ends):
            raise InputError(f"the task {self.task_name} ends answers at {until!r:.100}; expected a text, or texts")
        # lmms-eval gives a blank line to tasks that say nothing, and its own models pass over it.
        ends = [end for end in ends if end not in ("", "\n\n")]
        how: dict[str, Any] = {"num_beams": beams, **BEAMS} if beams > 1 else {}
        if warmth > 0:
            how |= {"do_sample": True, "temperature": warmth}
            how |= {name: settings[name] for name in ("top_p", "top_k") if settings.get(name)}
        if settings.get("repetition_penalty"):
            how["repetition_penalty"] = settings["repetition_penalty"]
        return longest, ends, how

    def cut(self, text: str) -> str:
        """An answer up to the first of the texts that end it."""
        for end in self.how_decoded()[1]:
            text = text.split(end, maxsplit=1)[0]
        return text.strip()

    def _first(self, row: Mapping[str, Any]) -> PromptedRequest:
        with contained(f"making the prompt of {self.name}"):
            if self.chat:
                return self.of_messages(self.arguments[1](row), self._question(row))
            return self.of_context(self.arguments[0], self.arguments[2](row), self._question(row))

    def _question(self, row: Mapping[str, Any]) -> str | None:
        """The question without what the task puts around it; ``None`` where that cannot be told."""
        task = self.task
        if task is None or (made := task.config.doc_to_text) is None:
            return None
        around = getattr(task, "lmms_eval_specific_kwargs", None)
        if not callable(made) or not isinstance(around, dict):
            return None if not callable(made) or around else _asked(task.doc_to_text(row))
        bare = {
            name: "" if isinstance(value, str) and name.endswith(AROUND) else value for name, value in around.items()
        }
        try:
            text = made(row, bare)
        except Exception as error:  # The function is somebody's, and was written for other values.
            note_once(
                f"the class of questions of the task {self.task_name} is found by its whole prompts: without "
                f"{' and '.join(AROUND)} its doc_to_text fails ({type(error).__name__}: {error})"
            )
            return None
        return _asked(text)


def _asked(text: Any) -> str | None:
    return text.replace(IMAGE, " ").strip() or None if isinstance(text, str) else None


def _flat(visuals: Any) -> Iterator[Any]:
    if isinstance(visuals, list | tuple):
        for one in visuals:
            yield from _flat(one)
    elif visuals is not None:
        yield visuals


def _media(shown: Any, name: str) -> Any:
    """A picture, or the path of a picture or a video."""
    from PIL import Image

    if isinstance(shown, dict) and shown.keys() <= {"type", "url"}:
        shown = shown.get("url")
    if not isinstance(shown, Image.Image | str | PathLike):
        kind = f"a dict with {', '.join(map(str, shown))}" if isinstance(shown, dict) else f"a {type(shown).__name__}"
        raise InputError(f"{name} shows {kind}; expected pictures, or the path of a picture or of a video")
    return shown


def _parts(message: Mapping[str, Any], name: str) -> tuple[list[str | None], list[Any]]:
    """Texts of a message with None for each picture, and the pictures."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise InputError(f"{name} has a message of {role!r}; expected one of {', '.join(ROLES)}")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts: list[str | None] = []
    media = []
    for part in content or ():
        kind = part.get("type")
        if kind == "text":
            parts.append(part["text"])
        elif kind in ("image", "video"):
            shown = _media(part.get("url", part.get(kind)), name)
            if kind == "video" and not is_video(shown):
                raise InputError(f"{name} shows the video {shown!r:.100}; expected the path of a file of one")
            parts.append(None)
            media.append(shown)
        else:
            raise InputError(f"{name} has a part of the type {kind!r}; expected text, image or video")
    held = sum(part.count(IMAGE) for part in parts if part)
    if held:
        # The text says itself where the pictures are.
        return [*parts_of("".join(part for part in parts if part), len(media))], media
    return parts, media


def grouped(requests: Sequence[LmmsRequest], key: Callable[[LmmsRequest], Hashable]) -> list[list[int]]:
    """Places of the requests that have a key in common, in the order of their first ones."""
    groups: dict[Hashable, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(key(request), []).append(place)
    return list(groups.values())
