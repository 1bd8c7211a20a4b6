"""Questions to an OpenAI-compatible chat server, so many at a time, and when each part of an answer came."""

import asyncio
import base64
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2 as httpx
from anyio.from_thread import start_blocking_portal

from clasp_calib.common.errors import ServingError
from clasp_calib.common.media import Media, MemoryPicture, as_seen, picture_file
from clasp_calib.common.question_parts import parts_of
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.pictures import readable

SILENCE = 600.0
"""Seconds without a byte of an answer after which a server is given up."""
CACHES = ("prefix", "mm", "encoder")
"""What vLLM keeps of earlier requests: keys and values, prepared pictures, and encoded ones."""
HELD = 300
"""Times, 0.2 s apart, that a cache is to be emptied in which something may still be held."""
QUOTED = 300
"""Characters of a refusal that a message quotes."""


@dataclass(frozen=True)
class ChatAnswer:
    """One answer, and when it came: seconds since the request was sent."""

    text: str
    first: float
    """Until its first token."""
    last: float
    """Until its last one."""
    prompt_tokens: int
    """Text and visual tokens, as the server counts them (``usage``)."""
    cached_tokens: int
    """Of the prompt, those that were in the prefix cache."""
    answer_tokens: int
    """Among them the one that ends it."""


@dataclass(frozen=True)
class Load:
    """Answers in the order of their requests."""

    answers: tuple[ChatAnswer, ...]
    seconds: float
    """From the first request to the end of the last answer."""

    @property
    def prompt_tokens(self) -> int:
        """Of all requests."""
        return sum(answer.prompt_tokens for answer in self.answers)


class ChatServer:
    """A vLLM server on this machine.

    Args:
        address: its root, such as ``http://127.0.0.1:8000``.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def version(self) -> str:
        """Of vLLM."""
        return str(self._told("GET", "version")["version"])

    def model(self) -> str:
        """What the server calls its model."""
        return str(self._told("GET", "v1/models")["data"][0]["id"])

    def forget(self) -> None:
        """Empty what the server keeps of earlier requests.

        Raises:
            ServingError: it cannot, as one that was started without ``VLLM_SERVER_DEV_MODE=1``.
        """
        for name in CACHES:
            for _ in range(HELD):
                if self._told("POST", f"reset_{name}_cache").get("success", True):
                    break
                time.sleep(0.2)
            else:
                raise ServingError(f"the server did not empty its {name} cache; its log may say why")

    def ask(
        self, bodies: Sequence[Mapping[str, Any]], concurrency: int, told: Callable[[], object] = lambda: None
    ) -> Load:
        """Send all requests, in their order and so many at a time: the next one when an answer has ended.

        Args:
            bodies: of ``POST /v1/chat/completions``, as `chat_body` makes them.
            concurrency: requests in flight.
            told: called at the end of each answer.

        Raises:
            ServingError: the server refuses a request, breaks off, or is silent for too long.
        """
        with start_blocking_portal() as portal:
            return portal.call(partial(_asked, self._address, bodies, concurrency, told))

    def _told(self, method: str, path: str) -> Any:
        try:
            reply = httpx.request(method, f"{self._address}/{path}", timeout=60, trust_env=False)
        except httpx.HTTPError as error:
            raise ServingError(f"the server does not answer at /{path} ({error})") from error
        if not reply.is_success:
            raise ServingError(f"the server answers {reply.status_code} at /{path}: {reply.text[:QUOTED]}")
        return reply.json() if reply.content else {}


def chat_bodies(samples: Sequence[Sample], model: str, max_tokens: int, instruction: str = "") -> list[dict[str, Any]]:
    """A request for each question: pictures as data URLs where it has them, greedy decoding, streamed.

    Args:
        samples: questions.
        model: what the server calls it.
        max_tokens: longest answer.
        instruction: what stands behind every question.

    Raises:
        PictureError: a picture cannot be read.
    """
    urls = {picture: data_url(picture) for picture in {one for sample in samples for one in sample.media}}
    return [_body(sample, model, max_tokens, instruction, urls) for sample in samples]


def _body(sample: Sample, model: str, max_tokens: int, instruction: str, urls: Mapping[Media, str]) -> dict[str, Any]:
    pictures = iter(sample.media)
    content = [
        {"type": "image_url", "image_url": {"url": urls[next(pictures)]}}
        if part is None
        else {"type": "text", "text": part}
        for part in parts_of(sample.question + instruction, len(sample.media))
    ]
    return {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def data_url(picture: Media) -> str:
    """A picture as a ``data:`` URL: its file as it is, or PNG of what is only in memory.

    Raises:
        PictureError: it cannot be read.
    """
    from PIL import Image

    with readable(picture) as (image, _):
        kind = Image.MIME.get(image.format or "", "image/png")
        if not isinstance(picture, MemoryPicture):
            with picture_file(picture) as file:
                content = file.read()
        elif isinstance(picture.content, bytes):
            content = picture.content
        else:
            buffer = io.BytesIO()
            as_seen(image).save(buffer, "png")
            content, kind = buffer.getvalue(), "image/png"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def _asked(
    address: str, bodies: Sequence[Mapping[str, Any]], concurrency: int, told: Callable[[], object]
) -> Load:
    waiting, found = iter(enumerate(bodies)), dict[int, ChatAnswer]()
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(base_url=address, timeout=SILENCE, limits=limits, trust_env=False) as client:

        async def go_on() -> None:
            for place, body in waiting:
                found[place] = await _answer(client, body)
                told()

        start = time.perf_counter()
        workers = [asyncio.ensure_future(go_on()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        seconds = time.perf_counter() - start
    return Load(tuple(found[place] for place in range(len(bodies))), seconds)


async def _answer(client: httpx.AsyncClient, body: Mapping[str, Any]) -> ChatAnswer:
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    texts, first, last, usage = [], None, None, None
    sent = time.perf_counter()
    try:
        async with client.stream("POST", "/v1/chat/completions", content=content, headers=headers) as reply:
            if not reply.is_success:
                said = (await reply.aread()).decode("utf-8", "replace")
                raise ServingError(f"the server refuses a question with {reply.status_code}: {said[:QUOTED]}")
            async for line in reply.aiter_lines():
                now = time.perf_counter() - sent
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise ServingError(f"the server fails on a question: {json.dumps(event['error'])[:QUOTED]}")
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    text = choice["delta"].get("content") or ""
                    if text or choice.get("finish_reason"):
                        texts.append(text)
                        first, last = first if first is not None else now, now
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise ServingError(f"the server broke off an answer ({type(error).__name__}: {error})") from error
    if first is None or last is None or usage is None:
        raise ServingError("the server broke off an answer, or does not say how many tokens it took")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return ChatAnswer("".join(texts), first, last, usage["prompt_tokens"], cached, usage["completion_tokens"])
