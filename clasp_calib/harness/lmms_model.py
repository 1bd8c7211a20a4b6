"""The model ``clasp`` of lmms-eval: its request loop, on a pruned model that is loaded as all commands load it.

Our choice: lmms-eval's own classes are not used. They differ in what their arguments are called, turn an exception into
an empty answer, and some lack batches, likelihoods or conversations; and an artifact is checked against the weights and
the processor as our loader gives them, so that scores here are those of `clasp_calib.evaluate`.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import sanitize_model_name, simple_parse_args_string
from rich.markup import escape

from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.progress import console, track
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.harnessed_model import HarnessAnswer, HarnessedModel, Likelihood
from clasp_calib.harness.lmms_requests import LmmsRequest, grouped
from clasp_calib.harness.prompted_request import PromptedRequest
from clasp_calib.harness.token_record import TokenRecord, TokensOfRequest

COMMAND = "lmms_eval.__main__"
"""Is imported where lmms-eval runs as a command, and nowhere else."""
WINDOW = 16
"""Batches whose pictures are in memory. Our choice: many enough that batches of requests of a kind are full."""
MOST_ROUNDS = 100
"""Of a conversation. Our choice: no task has as many; one that never ends would run forever."""


@contextmanager
def ending_run() -> Iterator[None]:
    """Let an error end the command with its message and 2, or 70 if nobody foresaw it.

    lmms-eval would print it among its logs, go on, and end with 0. In Python errors are raised as they are.
    """
    try:
        yield
    except Exception as error:
        if COMMAND not in sys.modules:
            raise
        if isinstance(error, ClaspError):
            console.print(f"[bold red]clasp: {escape(str(error))}[/]", soft_wrap=True, highlight=False)
            raise SystemExit(2) from error
        traceback.print_exc()
        raise SystemExit(70) from error


class ClaspSimple(lmms):  # type: ignore[misc]
    """For tasks that give a text and what is shown, those scored by likelihoods among them.

    Args:
        given: options of `HarnessOptions`.

    Raises:
        ClaspError: they cannot be used; as a command, lmms-eval ends with 2.
    """

    is_simple = True

    def __init__(self, **given: Any) -> None:
        super().__init__()
        with ending_run():
            self._options = HarnessOptions.read({"device": _device(), **_sized(given)})
            self._model = HarnessedModel.load(self._options)
        self.tokens = TokenRecord({"model": self._options.pretrained, **self._told()})
        """Visual tokens of all requests so far."""
        self._settings: Any = None
        self._asked = False

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        """The model of ``--model_args`` and the options beside it.

        Raises:
            ClaspError: see the class.
        """
        beside = {name: value for name, value in (additional_config or {}).items() if value is not None}
        with ending_run():
            try:
                given = simple_parse_args_string(arg_string)
            except ValueError as error:
                raise InputError(
                    f"--model_args {arg_string} cannot be read; expected name=value,name=value, such as "
                    "pretrained=llava-hf/llava-1.5-7b-hf,artifact=clasp-run/artifact"
                ) from error
            if both := sorted(given.keys() & beside.keys()):
                raise InputError(
                    f"{both[0]} is given twice, in --model_args and as --{both[0]} of lmms-eval, whose default counts "
                    f"too; give it once, as --{both[0]}"
                )
        return cls(**given, **beside)

    @property
    def device(self) -> torch.device:
        """Where the model is; lmms-eval asks where there are several processes."""
        return self._model.device

    @property
    def chat_template(self) -> str:
        """Refused: prompts are made of it here already."""
        with ending_run():
            raise InputError(
                "--apply_chat_template is for models that do not know their chat template; clasp asks in it already, "
                "so leave it out"
            )

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Answers, each an ``lmms_eval.api.instance.GenerationResult``, in the order of the requests."""
        with ending_run():
            found: dict[int, Any] = {}
            for of in self._windows(requests):
                answers = self._answered(of, {place: request.prompted() for place, request in of.items()})
                found |= {place: _result(answer, of[place].cut(answer.text)) for place, answer in answers.items()}
            return [found[place] for place in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Any]) -> list[list[str]]:
        """Answers of all rounds of every request."""
        with ending_run():
            said: dict[int, list[str]] = {}
            for of in self._windows(requests):
                said |= self._conversed(of)
            return [said[place] for place in range(len(requests))]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """(loss, whether greedy decoding says so) of each: losses, for lmms-eval takes the smallest as the answer.

        They come in a ``GenerationResult``, for lmms-eval 0.7.3 makes a text of a tuple.
        """
        with ending_run():
            of = self._read(requests)
            found: dict[int, Likelihood] = {}
            for places in track(grouped(of, lambda request: (request.name, request.arguments[0])), "scoring answers"):
                answers = [of[place].continuation for place in places]
                found |= zip(places, self._model.likelihoods(of[places[0]].prompted(), answers), strict=True)
            for place, one in sorted(found.items()):
                self._note(of[place], of[place].number, one.label, one.before, one.kept)
            return [GenerationResult(text=(found[place].loss, found[place].greedy)) for place in range(len(of))]

    def clean(self) -> None:
        """Write what was recorded: lmms-eval calls this when all is answered."""
        with ending_run():
            if not self._asked:
                raise InputError(
                    "no request reached the model, so all answers are those of an earlier run in --use_cache, whatever "
                    "prunes now; leave --use_cache out"
                )
            self.tokens.say()
            if output := getattr(self._settings, "output_path", None):
                part = f"_rank{self.rank}" if self.world_size > 1 else ""
                self.tokens.write(Path(output) / sanitize_model_name(self._options.pretrained), part)
        super().clean()

    def _told(self) -> dict[str, Any]:
        options = self._options
        how = {"device": options.device, "dtype": options.dtype, "batch_size": options.batch_size}
        return {**self._model.way.told(), "prompt": self._model.template, **how}

    def _read(self, requests: Sequence[Any]) -> list[LmmsRequest]:
        of = [LmmsRequest.of(instance, self.task_dict) for instance in requests]
        self._asked = self._asked or bool(of)
        for task in (request.task for request in of[:1]):
            self._settings = getattr(task, "args", None) or self._settings
        if getattr(self._settings, "use_cache", None):
            raise InputError(
                "--use_cache keeps answers by the name of an artifact, and would give those of an earlier one that lay "
                "in its place; leave --use_cache out"
            )
        return of

    def _windows(self, requests: Sequence[Any]) -> Iterator[dict[int, LmmsRequest]]:
        """Requests that are decoded alike, by their places; few enough at a time for memory to hold their pictures."""
        of, size = self._read(requests), WINDOW * self._options.batch_size
        groups = grouped(of, lambda request: (request.task_name, repr(sorted(request.decoding.items()))))
        windows = [places[at : at + size] for places in groups for at in range(0, len(places), size)]
        for places in track(windows, "answering"):
            yield {place: of[place] for place in places}

    def _conversed(self, of: Mapping[int, LmmsRequest]) -> dict[int, list[str]]:
        running = {place: request.rounds() for place, request in of.items()}
        asked: dict[int, PromptedRequest] = {place: next(run) for place, run in running.items()}
        said: dict[int, list[str]] = {}
        for number in range(MOST_ROUNDS):
            answers, asked = self._answered(of, asked, number), {}
            for place, answer in answers.items():
                try:
                    asked[place] = running[place].send(of[place].cut(answer.text))
                except StopIteration as end:
                    said[place] = end.value
            if not asked:
                return said
        raise InputError(
            f"{of[next(iter(asked))].name} asks more than {MOST_ROUNDS} rounds; expected the task to end it"
        )

    def _answered(
        self, of: Mapping[int, LmmsRequest], asked: Mapping[int, PromptedRequest], number: int = 0
    ) -> dict[int, HarnessAnswer]:
        """Answers to requests of one window, by their places."""
        places = list(asked)
        longest, _, how = of[places[0]].how_decoded()
        found = dict(self._model.answers([asked[place] for place in places], longest, how))
        answers = {place: found[row] for row, place in enumerate(places)}
        for place, one in answers.items():
            used = one.new_tokens, one.seconds
            self._note(of[place], of[place].number + number, one.label, one.before, one.kept, *used)
        seconds, new = sum(one.seconds for one in found.values()), sum(one.new_tokens for one in found.values())
        log_metrics(total_elapsed_time=seconds, total_gen_tokens=new, avg_speed=new / seconds if seconds else 0.0)
        return answers

    def _note(self, request: LmmsRequest, number: int, *tokens: Any) -> None:
        if not request.padding:
            of = request.task_name, request.doc_id, request.kind, number
            self.tokens.requests.append(TokensOfRequest(*of, *tokens))


class ClaspChat(ClaspSimple):
    """For tasks that give messages, the usual kind: pictures stand where the task has them."""

    is_simple = False


def _device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _sized(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the size of batches as a number, which lmms-eval hands over as a text."""
    size = given.get("batch_size")
    if isinstance(size, str) and size.isdecimal():
        return {**given, "batch_size": int(size)}
    if isinstance(size, str):
        raise InputError(f"--batch_size {size} cannot be used; clasp does not try sizes: give a number, such as 8")
    return dict(given)


def _result(answer: HarnessAnswer, text: str) -> Any:
    return GenerationResult(text=text, token_counts=TokenCounts(answer.prompt_tokens, answer.new_tokens))
