"""Labels by any OpenAI-compatible server: bounded concurrency, time-outs, retries, and a clear word if it dies."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import httpx2 as httpx
from anyio.from_thread import start_blocking_portal

from clasp_calib.common.errors import LabelerError
from clasp_calib.common.progress import note
from clasp_calib.router_labeling.exchange import ExchangeError, Reply, Server
from clasp_calib.router_labeling.labelers import Guess, Scheme
from clasp_calib.router_labeling.prompt import longest_answer, messages, model_fingerprint, schema
from clasp_calib.router_labeling.replies import ATTEMPTS, RETRY_TEMPERATURE, BadReplyError, no_guess, read_completion
from clasp_calib.router_labeling.taxonomy import Taxonomy

REFUSED_FOR_ALL = (401, 402, 403, 404, 405, 407)
"""HTTP statuses under 500 that no other question would be spared; so are redirects, which are not followed."""
WORTH_WAITING = (408, 409, 425, 429)
"""HTTP statuses under 500 that may pass."""
UNLISTED = (404, 405, 501)
"""HTTP statuses of a server that lists no models, which is enough where one is named."""
OPTIONAL = ("chat_template_kwargs", "logprobs")
"""What a label can do without; vLLM knows both, OpenAI's own API and others refuse what they do not know."""
ALL_BAD = 32
"""Our choice: so many first questions without a single label mean a server that ignores the schema."""


class _QuestionError(Exception):
    """This question cannot be labelled; the message is the reason."""


@dataclass(frozen=True)
class ServerLabeler:
    """Asks ``POST {base_url}/chat/completions`` with an enforced JSON schema and thinking disabled.

    A server that refuses to be told of thinking or to give log-probabilities is asked without, which is said once.

    Attributes:
        base_url: the API's root, such as ``http://127.0.0.1:8000/v1``. A user and password in it are not shown.
        model: name that the server knows the model by; the server's only one if None.
        revision: what to write into the fingerprint as the model's revision; a server does not tell.
        concurrency: requests in flight.
        timeout: seconds that one request may take, from connecting to the end of its reply.
        backoff: seconds before the second attempt; doubled for each further one, and no less than the server asks for.
        api_key: sent as a bearer token; kept out of everything that is said or recorded.

    Raises:
        InputError: the address is none, or the key cannot be sent.
    """

    base_url: str = field(repr=False)
    model: str | None = None
    revision: str | None = None
    concurrency: int = 32
    timeout: float = 120.0
    backoff: float = 1.0
    api_key: str | None = field(default=None, repr=False)
    _refused: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse at once what cannot be used."""
        _ = self.server

    @cached_property
    def server(self) -> Server:
        """The server; whatever is told of it goes through its ``hidden`` or ``quoted``."""
        return Server(self.base_url, self.api_key)

    @cached_property
    def served(self) -> str:
        """The model that is asked, as the server calls it. Reaches the server, the first time.

        Raises:
            LabelerError: the server cannot be reached, refuses, or does not serve the model.
        """
        client = self.server.client(1)
        try:
            with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
                served = _models(portal.call(self._reply, client, "models", min(self.timeout, 30), None))
        except (ExchangeError, _QuestionError) as error:
            raise LabelerError(
                f"no OpenAI-compatible server answers at {self.server.shown} ({error}); start one "
                "with `clasp-calib serve-labeler`, and give its address, ending in /v1, with --base-url"
            ) from None
        model = served[0] if self.model is None and len(served) == 1 else self.model
        if model not in served:
            given = f"the model {model!r}" if model else "no model"
            names = self.server.quoted(", ".join(served) or "none")
            raise LabelerError(
                f"{given} was asked for, and {self.server.shown} serves {names}; name one of these with --labeler-model"
            )
        return model

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text: the model as the server calls it, its revision if given, digests of prompt and taxonomy.

        Raises:
            LabelerError: see `served`.
        """
        model = self.server.hidden(self.served)
        return model_fingerprint("server", scheme.taxonomy, model=model, revision=self.revision)

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question, as replies come in.

        Raises:
            LabelerError: the server refuses all questions, ignores the schema, or stopped answering.
        """
        bad = good = 0
        _ = self.served
        client = self.server.client(self.concurrency)
        waiting = iter(enumerate(questions))
        running: dict[Future[Guess], int] = {}
        # A thread of its own: a notebook's has a loop already, which could not be waited in.
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(client):
            try:
                while True:
                    for index, question in islice(waiting, self.concurrency - len(running)):
                        running[portal.start_task_soon(self._guess, client, question, scheme.taxonomy)] = index
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        guess = future.result()
                        bad, good = bad + (guess.source == "default"), good + (guess.source != "default")
                        if bad == min(ALL_BAD, len(questions)) and not good and bad > 1:
                            raise LabelerError(
                                f"none of the first {bad} questions got a label ({guess.raw}); mend what that says, "
                                "ask less at once (--concurrency) or, if the server does not enforce the JSON schema, "
                                "use vLLM (`clasp-calib serve-labeler`) or another model"
                            )
                        yield running.pop(future), guess
            finally:
                for future in running:
                    future.cancel()

    async def _guess(self, client: httpx.AsyncClient, question: str, taxonomy: Taxonomy) -> Guess:
        reason, hidden = "", self.server.hidden
        for attempt in range(ATTEMPTS):
            body = self._body(question, taxonomy, RETRY_TEMPERATURE if attempt else 0.0)
            try:
                guess = read_completion(await self._reply(client, "chat/completions", self.timeout, body), taxonomy)
                return replace(guess, raw=hidden(guess.raw))
            except BadReplyError as error:
                reason = f"no label after {attempt + 1} attempts: {error.told(hidden)}"
            except _QuestionError as error:
                reason = f"no label: {error}"
                break
        return no_guess(reason, taxonomy)

    def _body(self, question: str, taxonomy: Taxonomy, temperature: float) -> dict[str, Any]:
        return {
            "model": self.served,
            "messages": messages(taxonomy, question),
            "temperature": temperature,
            "max_tokens": longest_answer(taxonomy),
            "logprobs": True,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "intent", "strict": True, "schema": schema(taxonomy)},
            },
            "chat_template_kwargs": {"enable_thinking": False},
        }

    async def _reply(self, client: httpx.AsyncClient, path: str, seconds: float, body: Any) -> Any:
        """The JSON value that the server answers with, in a few attempts."""
        problem, pause, without = "", 0.0, set(self._refused)
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(pause)
            pause = self.backoff * 2**attempt
            try:
                sent = body and {name: value for name, value in body.items() if name not in without}
                reply = await self.server.ask(client, path, seconds, sent)
                if body is None and self.model and reply.status in UNLISTED:
                    return {"data": [{"id": self.model}]}
                if refused := _named(reply, sent):
                    without |= refused
                    pause = 0.0
                    continue
                self._check(reply)
                pause = max(pause, reply.wait)
                if 200 <= reply.status < 300 and not _failed(value := reply.value):
                    self._go_without(without)
                    return value
                problem = f"HTTP {reply.status}: {reply.shown}"
            except ExchangeError as error:
                problem = str(error)
                if body is None:
                    # Nobody is there, or somebody else: no reason to be patient.
                    raise
        if body is not None and not await self._alive(client):
            raise LabelerError(
                f"the server {self.server.shown} stopped answering ({problem}); what it answered so far is kept: "
                "start it again and give the same command, which goes on from there"
            )
        raise _QuestionError(f"{ATTEMPTS} attempts failed, the last with {problem}")

    def _check(self, reply: Reply) -> None:
        """Raise what another attempt would not mend."""
        if reply.status in REFUSED_FOR_ALL or 300 <= reply.status < 400:
            target = reply.headers.get("Location")
            told = f"redirects to {self.server.quoted(target)}" if target else f"refuses with HTTP {reply.status}"
            raise LabelerError(
                f"the server {self.server.shown} {told}: {reply.shown}; check --base-url (it ends in /v1), "
                "--labeler-model and the API key"
            )
        if 400 <= reply.status < 500 and reply.status not in WORTH_WAITING:
            raise _QuestionError(f"HTTP {reply.status}: {reply.shown}")

    def _go_without(self, refused: set[str]) -> None:
        """Ask further questions without this too, now that it is known to help."""
        if new := refused - self._refused:
            self._refused.update(new)
            note(f"the server {self.server.shown} does not take {' and '.join(sorted(new))}, and is asked without")

    async def _alive(self, client: httpx.AsyncClient) -> bool:
        try:
            status = (await self.server.ask(client, "models", min(self.timeout, 10))).status
        except ExchangeError:
            return False
        return status < 300 or status in UNLISTED


def _named(reply: Reply, body: Any) -> set[str]:
    """Those of `OPTIONAL` in a request that its refusal names."""
    if body is None or reply.status not in (400, 422):
        return set()
    return {name for name in OPTIONAL if name in body and name.encode() in reply.body}


def _failed(value: Any) -> bool:
    """Whether it is an error that came with status 200, as gateways send it."""
    return isinstance(value, dict) and bool(value.get("error")) and not value.get("choices")


def _models(value: Any) -> list[str]:
    """The names in a list of models."""
    entries = value.get("data") if isinstance(value, dict) else None
    entries = entries if isinstance(entries, list) else [None]
    names = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ExchangeError(
            "its list of models is not as in OpenAI's API: expected an object with 'data', whose entries have a "
            "printable 'id'"
        )
    return [str(name) for name in dict.fromkeys(names)]
