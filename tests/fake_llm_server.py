"""An OpenAI-compatible server of our own that counts what it is asked and misbehaves as told."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, JSON value or bytes, and perhaps headers."""


def reply(content: str, finish: str = "stop") -> Answer:
    tokens = [{"token": part, "logprob": -0.25} for part in content.partition("count")]
    choice = {"message": {"content": content}, "finish_reason": finish, "logprobs": {"content": tokens}}
    return 200, {"choices": [choice]}


GOOD = reply('{"intent":"counting"}')


@dataclass
class Fake:
    """What the server does, and what it saw."""

    answer: Callable[[str, int], Answer | None] = lambda question, time: GOOD
    asked: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    models: Any = field(default_factory=lambda: {"data": [{"id": "fake"}]})
    listing: int = 200
    """Status with which models are listed."""
    dead: bool = False
    busiest: int = 0
    url: str = ""
    _running: int = 0


@contextmanager
def running(fake: Fake) -> Iterator[Fake]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def say(self, status, content, headers=()):
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            with suppress(OSError):  # Who asked may have heard enough.
                self.end_headers()
                self.wfile.write(text)

        def do_GET(self):
            if fake.dead:
                self.close_connection = True
            else:
                self.say(fake.listing, fake.models)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = json.loads(body["messages"][1]["content"].removeprefix("Question: "))
            with lock:
                fake._running += 1
                fake.busiest = max(fake.busiest, fake._running)
                fake.asked[question] += 1
                fake.bodies.append(body)
                fake.headers.append(dict(self.headers))
            answer = None if fake.dead else fake.answer(question, fake.asked[question])
            with lock:
                fake._running -= 1
            if answer is None:
                self.close_connection = True
            else:
                self.say(*answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
