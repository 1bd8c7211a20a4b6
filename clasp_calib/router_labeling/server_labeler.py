"""Labels by any OpenAI-compatible server: bounded concurrency, time-outs, retries, and a clear word if it dies."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx2 as httpx

from clasp_calib.common.errors import LabelerError
from clasp_calib.router_labeling.labelers import Guess, Scheme
from clasp_calib.router_labeling.prompt import longest_answer, messages, model_fingerprint, schema
from clasp_calib.router_labeling.replies import (
    ATTEMPTS,
    RETRY_TEMPERATURE,
    BadReplyError,
    Token,
    no_guess,
    read_guess,
)
from clasp_calib.router_labeling.taxonomy import Taxonomy

REFUSED_FOR_ALL = (401, 403, 404)
"""HTTP statuses that no other question would be spared."""
WORTH_WAITING = (408, 409, 425, 429)
"""HTTP statuses under 500 that may pass."""
ALL_BAD = 32
"""Our choice: so many first questions without a single label mean a server that ignores the schema."""


class _QuestionError(Exception):
    """This question cannot be labelled; the message is the reason."""


@dataclass(frozen=True)
class ServerLabeler:
    """Asks ``POST {base_url}/chat/completions`` with an enforced JSON schema and thinking disabled.

    Attributes:
        base_url: the API's root, such as ``http://127.0.0.1:8000/v1``.
        model: name that the server knows the model by; the server's only one if None.
        revision: what to write into the fingerprint as the model's revision; a server does not tell.
        concurrency: requests in flight.
        timeout: seconds that one request may take.
        backoff: seconds before the second attempt; doubled for each further one.
        api_key: sent as a bearer token.
    """

    base_url: str
    model: str | None = None
    revision: str | None = None
    concurrency: int = 32
    timeout: float = 120.0
    backoff: float = 1.0
    api_key: str | None = field(default=None, repr=False)

    @cached_property
    def served(self) -> str:
        """The model that is asked, as the server calls it. Reaches the server, the first time.

        Raises:
            LabelerError: the server cannot be reached, refuses, or does not serve the model.
        """
        try:
            with httpx.Client(timeout=min(self.timeout, 30), headers=self._headers) as client:
                reply = client.get(self._at("models"))
            served = [str(entry["id"]) for entry in reply.raise_for_status().json()["data"]]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise LabelerError(
                f"no OpenAI-compatible server answers at {self.base_url} ({error or type(error).__name__}); start one "
                "with `clasp-calib serve-labeler`, and give its address, ending in /v1, with --base-url"
            ) from error
        model = served[0] if self.model is None and len(served) == 1 else self.model
        if model not in served:
            given = f"the model {model!r}" if model else "no model"
            raise LabelerError(
                f"{given} was asked for, and {self.base_url} serves {', '.join(served) or 'none'}; "
                "name one of these with --labeler-model"
            )
        return model

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def _at(self, path: str) -> str:
        return f"{self.base_url.rstrip('/')}/{path}"

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text: the model as the server calls it, its revision if given, digests of prompt and taxonomy.

        Raises:
            LabelerError: see `served`.
        """
        return model_fingerprint("server", scheme.taxonomy, model=self.served, revision=self.revision)

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question, as replies come in.

        Raises:
            LabelerError: the server refuses all questions, ignores the schema, or stopped answering.
        """
        bad = good = 0
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            client = httpx.AsyncClient(
                timeout=self.timeout,
                headers=self._headers,
                limits=httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
            )
            waiting = iter(enumerate(questions))
            running: dict[asyncio.Task[Guess], int] = {}
            try:
                while True:
                    while len(running) < self.concurrency and (following := next(waiting, None)):
                        running[loop.create_task(self._guess(client, following[1], scheme.taxonomy))] = following[0]
                    if not running:
                        break
                    for task in runner.run(_first(running)):
                        guess = task.result()
                        bad, good = bad + (guess.source == "default"), good + (guess.source != "default")
                        if bad == min(ALL_BAD, len(questions)) and not good and bad > 1:
                            raise LabelerError(
                                f"none of the first {bad} questions got a label ({guess.raw}); the server seems not to "
                                "enforce the JSON schema: use vLLM (`clasp-calib serve-labeler`) or another model"
                            )
                        yield running.pop(task), guess
            finally:
                for task in running:
                    task.cancel()
                runner.run(client.aclose())

    async def _guess(self, client: httpx.AsyncClient, question: str, taxonomy: Taxonomy) -> Guess:
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                reply = await self._post(client, self._body(question, taxonomy, RETRY_TEMPERATURE if attempt else 0.0))
                choice = reply["choices"][0]
                tokens = [
                    Token(entry["token"], entry["logprob"])
                    for entry in (choice.get("logprobs") or {}).get("content") or []
                ]
                text = choice["message"]["content"] or ""
                return read_guess(text, choice.get("finish_reason"), tokens, taxonomy)
            except BadReplyError as error:
                reason = f"no label after {attempt + 1} attempts: {error}"
            except _QuestionError as error:
                reason = f"no label: {error}"
                break
            except (KeyError, IndexError, TypeError) as error:
                reason = f"no label after {attempt + 1} attempts: the reply lacks {error}"
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

    async def _post(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> dict[str, Any]:
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self.backoff * 2 ** (attempt - 1))
            try:
                reply = await client.post(self._at("chat/completions"), json=body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if reply.status_code in REFUSED_FOR_ALL:
                raise LabelerError(
                    f"the server {self.base_url} refuses with HTTP {reply.status_code}: {reply.text[:200]}; "
                    "check --base-url, --labeler-model and the API key"
                )
            if 400 <= reply.status_code < 500 and reply.status_code not in WORTH_WAITING:
                raise _QuestionError(f"HTTP {reply.status_code}: {reply.text[:200]}")
            if reply.is_success:
                try:
                    answer = reply.json()
                except ValueError:
                    problem = f"a reply that is not JSON: {reply.text[:200]}"
                    continue
                if isinstance(answer, dict):
                    return answer
            problem = f"HTTP {reply.status_code}: {reply.text[:200]}"
        if not await self._alive(client):
            raise LabelerError(
                f"the server {self.base_url} stopped answering ({problem}); what it answered so far is kept: "
                "start it again and give the same command, which goes on from there"
            )
        raise _QuestionError(f"{ATTEMPTS} attempts failed, the last with {problem}")

    async def _alive(self, client: httpx.AsyncClient) -> bool:
        try:
            return bool((await client.get(self._at("models"), timeout=10)).is_success)
        except httpx.HTTPError:
            return False


def _first(tasks: dict["asyncio.Task[Guess]", int]) -> Coroutine[Any, Any, set["asyncio.Task[Guess]"]]:
    async def wait() -> set["asyncio.Task[Guess]"]:
        return (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]

    return wait()
