"""A program that is called as vLLM's is: it serves answers of its own, and misbehaves as its flags say.

Its log has a line for each thing that it was asked, ``path {JSON}``, and one for what its environment told it.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PLAIN, PRUNED = 600, 100
"""Tokens of a prompt."""


def fake_vllm(place: Path) -> Path:
    """Write the command into a directory."""
    place.mkdir(parents=True, exist_ok=True)
    command = place / "vllm"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" "$@"\n')
    command.chmod(0o755)
    return command


def logged(log: Path, path: str) -> list[dict]:
    """What a server was asked at a path, in order."""
    lines = log.read_text().splitlines()
    return [json.loads(line.removeprefix(path)) for line in lines if line.startswith(f"{path} ")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--enable-prompt-tokens-details", action="store_true")
    parser.add_argument("--say", default="red", help="the answer")
    parser.add_argument("--say-pruned", default="blue")
    parser.add_argument("--end", action="store_true", help="end at once, with code 3")
    parser.add_argument("--die-at", type=int, default=0, help="end at that question, with code 4")
    parser.add_argument("--refuse", action="store_true", help="answer questions with 400")
    parser.add_argument("--break-off", action="store_true", help="end answers in their middle")
    parser.add_argument("--fail", action="store_true", help="stream an error")
    parser.add_argument("--no-plugin", action="store_true", help="do not prune")
    parser.add_argument("--sick", action="store_true", help="never be healthy")
    parser.add_argument("--hang", action="store_true", help="never answer a question")
    of = parser.parse_args()
    told = {name: value for name, value in os.environ.items() if name.startswith("CLASP_")}
    pruned = bool(told) and not of.no_plugin
    lock, asked = threading.Lock(), Counter()

    def log(path, value):
        with lock:
            print(path, json.dumps(value), flush=True)

    log("environment", told)
    if of.end:
        print("ValueError: no room for the model", file=sys.stderr, flush=True)
        sys.exit(3)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def say(self, status, value):
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            known = {
                "/health": {},
                "/version": {"version": "0.32.0"},
                "/v1/models": {"data": [{"id": "served"}]},
            }
            self.say(503 if of.sick else 200, known[self.path])

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if self.path != "/v1/chat/completions":
                with lock:
                    asked[self.path] += 1
                log(self.path, body)
                # As if something were still held, the first time.
                self.say(200, {"success": self.path != "/reset_prefix_cache" or asked[self.path] > 1})
                return
            with lock:
                asked["now"] += 1
                asked["most"] = max(asked["most"], asked["now"])
                asked["all"] += 1
                number = asked["all"]
            log("chat", body)
            if number == of.die_at:
                print("out of memory", flush=True)
                os._exit(4)
            while of.hang:
                time.sleep(1)
            if of.refuse:
                self.say(400, {"error": {"message": "the prompt is too long"}})
            else:
                self.stream()
            with lock:
                asked["now"] -= 1

        def stream(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            tokens = PRUNED if pruned else PLAIN
            time.sleep(tokens / 1e4)
            delta = {"content": of.say_pruned if pruned else of.say}
            usage = {"prompt_tokens": tokens, "completion_tokens": 2}
            if of.enable_prompt_tokens_details:
                usage["prompt_tokens_details"] = {"cached_tokens": tokens // 4}
            events = [
                {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
                {"choices": [{"delta": delta, "finish_reason": None}]},
                {"choices": [{"delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": usage},
            ]
            if of.fail:
                events[1:] = [{"error": {"message": "the engine is dead"}}]
            for event in events[: 2 if of.break_off else None]:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
                time.sleep(tokens / 1e5)
            self.wfile.write(b"data: [DONE]\n\n")
            log("in flight", asked["most"])

    server = ThreadingHTTPServer((of.host, of.port), Handler)
    server.daemon_threads = True
    with suppress(KeyboardInterrupt):
        server.serve_forever(0.02)


if __name__ == "__main__":
    main()
