"""The model ``clasp`` of VLMEvalKit.

Imported in the process of VLMEvalKit's own ``run.py`` alone: ``vlmeval`` switches the verification of TLS certificates
off for all of Python's own downloads.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vlmeval.vlm.base import BaseModel

from clasp_calib.common.errors import InputError
from clasp_calib.common.question_parts import IMAGE, parts_of
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.harnessed_model import HarnessedModel
from clasp_calib.harness.prompted_request import PromptedRequest
from clasp_calib.harness.token_record import TokenRecord, TokensOfRequest

_QUESTION, _ROW = "clasp question", "clasp row"
"""Keys of a message's first part; VLMEvalKit hands parts on as they are."""


class EndedRun(BaseException):
    """Ends ``run.py``, which takes every Exception for a reason to go on with the next benchmark. It has a cause."""


@contextmanager
def ending_run() -> Iterator[None]:
    """Let every error end the run.

    Raises:
        EndedRun: from the error.
    """
    try:
        yield
    except Exception as error:
        raise EndedRun from error


class ClaspVLM(BaseModel):  # type: ignore[misc]
    """A model under the pruning that options say, for all benchmarks of pictures, with one question or several turns.

    Frames of videos are pictures to it. Prompts are those of the benchmarks.

    Args:
        options: the model and what prunes it.
        max_new_tokens: longest answer.
        record: where visual tokens are noted.

    Raises:
        EndedRun: options cannot be used.
    """

    INTERLEAVE = True
    is_api = False

    def __init__(self, options: HarnessOptions, max_new_tokens: int, record: TokenRecord, **_: Any) -> None:
        super().__init__()
        self._longest, self._record = max_new_tokens, record
        with ending_run():
            self._model = HarnessedModel.load(options)

    def use_custom_prompt(self, dataset: str) -> bool:
        """Whether `build_prompt` is asked: where the benchmark's own can be."""
        return hasattr(getattr(self.dump_image_func, "__self__", None), "build_prompt")

    def build_prompt(self, line: Any, dataset: str | None = None, **more: Any) -> Any:
        """The benchmark's own prompt, with the question as the row has it, by which its class is found."""
        message = self.dump_image_func.__self__.build_prompt(line, **more)
        if message and isinstance(message[0], dict) and isinstance(question := line.get("question"), str):
            message[0] |= {_QUESTION: question, _ROW: str(line.get("index"))}
        return message

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to a question."""
        return self._answer([{"role": "user", "content": message}], dataset)

    def chat_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to the last turn of a conversation."""
        return self._answer(message, dataset)

    def _answer(self, turns: Sequence[Mapping[str, Any]], dataset: str | None) -> str:
        with ending_run():
            request = _request(turns, f"of {dataset}")
            ((_, answer),) = self._model.answers([request], self._longest)
            place = len(self._record.requests)
            tokens = (answer.label, answer.before, answer.kept, answer.new_tokens, answer.seconds)
            self._record.requests.append(TokensOfRequest(str(dataset), place, "generate", 0, *tokens))
            return answer.text


def _request(turns: Sequence[Mapping[str, Any]], where: str) -> PromptedRequest:
    first = turns[-1]["content"][0]
    name = f"the question {first[_ROW]!r} {where}" if _ROW in first else f"a question {where}"
    media: list[str] = []
    made = []
    for turn in turns:
        parts: list[str | None] = []
        for part in turn["content"]:
            if part["type"] not in ("text", "image"):
                raise InputError(
                    f"{name} shows a {part['type']}; expected pictures and texts: choose a benchmark of pictures, or "
                    "of frames of videos"
                )
            parts.append(part["value"] if part["type"] == "text" else None)
            media += [part["value"]] if part["type"] == "image" else []
        if any(IMAGE in part for part in parts if part):
            parts = [*parts_of("".join(part for part in parts if part), parts.count(None))]
        made.append((turn["role"], parts))
    texts = "\n".join(part["value"] for part in turns[-1]["content"] if part["type"] == "text")
    return PromptedRequest(name, first.get(_QUESTION, texts), tuple(made), tuple(media))
