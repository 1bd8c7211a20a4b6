"""The part of the Hugging Face Hub's HTTP service that artifacts need, in memory, on 127.0.0.1.

A double of the service, not of the client: the real huggingface_hub speaks to it. Weights and Parquet go the way of
LFS, as on the Hub. ``faults`` answer in place of the service.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Fault = Callable[["Handler"], None]


@dataclass
class Repo:
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit_of(self, revision: str) -> str | None:
        return (
            self.head if revision == "main" else self.tags.get(revision, revision if revision in self.commits else None)
        )


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[tuple[str, str, Fault]] = []
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and token of everything that was asked."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections are cut on purpose."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def answering(status: int, message: str = "no") -> Fault:
    def fault(handler: "Handler") -> None:
        handler.whole_body()
        handler.answer(status, {"error": message})

    return fault


def cut(handler: "Handler") -> None:
    """Read half of what is sent, and close."""
    handler.rfile.read(int(handler.headers.get("Content-Length", 0)) // 2)
    handler.close_connection = True
    handler.connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_POST = do_PUT = do_HEAD = do_GET

    def _route(self) -> None:
        self.path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        self.server.requests.append((self.command, self.path, token))
        for method, pattern, fault in self.server.faults:
            if method == self.command and re.search(pattern, self.path):
                fault(self)
                return
        self.body = self.whole_body()
        for method, pattern, route in ROUTES:
            found = re.fullmatch(pattern, self.path)
            if found and self.command in method.split():
                route(self, *found.groups())
                return
        self.answer(404, {"error": f"no route for {self.command} {self.path}"})

    def whole_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunks()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def answer(self, status: int, content: Any, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if status >= 400 and self.command == "HEAD":
            self.send_header("X-Error-Message", "refused")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def found(self, repo: str, revision: str = "main") -> tuple[Repo, str] | None:
        known = self.server.repos.get(repo)
        commit = known.commit_of(revision) if known else None
        if known is None or commit is None:
            code = "RevisionNotFound" if known else "RepoNotFound"
            self.answer(404, {"error": "not found"}, X_Error_Code=code)
            return None
        return known, commit


def create(handler: Handler) -> None:
    asked = json.loads(handler.body)
    name = f"{asked['organization']}/{asked['name']}"
    if name in handler.server.repos:
        handler.answer(409, {"error": "You already created this model repo", "url": f"{handler.server.url}/{name}"})
        return
    handler.server.repos[name] = Repo(private=asked.get("visibility") == "private" or bool(asked.get("private")))
    handler.answer(200, {"url": f"{handler.server.url}/{name}", "name": name})


def refs(handler: Handler, repo: str) -> None:
    if found := handler.found(repo):
        known, head = found
        branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": head}]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in known.tags.items()]
        handler.answer(200, {"branches": branches, "tags": tags, "converts": []})


def info(handler: Handler, repo: str, revision: str = "main") -> None:
    if found := handler.found(repo, revision):
        known, commit = found
        siblings = [{"rfilename": name} for name in known.commits[commit]]
        handler.answer(200, {"id": repo, "sha": commit, "private": known.private, "siblings": siblings, "tags": []})


def tree(handler: Handler, repo: str, revision: str) -> None:
    if found := handler.found(repo, revision):
        known, commit = found
        files = known.commits[commit].items()
        handler.answer(200, [{"type": "file", "path": n, "size": len(c), "oid": _git(c)} for n, c in files])


def preupload(handler: Handler, repo: str, revision: str) -> None:
    if found := handler.found(repo, revision):
        known, head = found
        files = []
        for name in (asked["path"] for asked in json.loads(handler.body)["files"]):
            lfs, there = name.endswith((".safetensors", ".parquet")), known.commits[head].get(name)
            # What is there already, so that the client leaves it out of the commit.
            oid = None if there is None else hashlib.sha256(there).hexdigest() if lfs else _git(there)
            mode = "lfs" if lfs else "regular"
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        handler.answer(200, {"files": files})


def batch(handler: Handler, repo: str) -> None:
    objects = []
    for one in json.loads(handler.body)["objects"]:
        href = f"{handler.server.url}/objects/{one['oid']}"
        actions = {} if one["oid"] in handler.server.objects else {"actions": {"upload": {"href": href}}}
        objects.append({**one, **actions})
    handler.answer(200, {"transfer": "basic", "objects": objects})


def upload(handler: Handler, oid: str) -> None:
    if hashlib.sha256(handler.body).hexdigest() != oid:
        handler.answer(400, {"error": "wrong hash"})
        return
    handler.server.objects[oid] = handler.body
    handler.answer(200, {})


def commit(handler: Handler, repo: str, revision: str) -> None:
    found = handler.found(repo, revision)
    if not found:
        return
    known, head = found
    lines = [json.loads(line) for line in handler.body.splitlines() if line]
    header = lines[0]["value"]
    if header.get("parentCommit", head) != head:
        handler.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        return
    files = dict(known.commits[head])
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = handler.server.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    oid = hashlib.sha1(repr((head, sorted(files.items()))).encode()).hexdigest()
    known.commits[oid] = files
    known.messages.append(header["summary"])
    handler.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{handler.server.url}/{repo}/commit/{oid}"})


def tag(handler: Handler, repo: str, revision: str) -> None:
    if found := handler.found(repo, revision):
        known, target = found
        name = json.loads(handler.body)["tag"]
        if name in known.tags:
            handler.answer(409, {"error": f"Tag {name} already exists"})
            return
        known.tags[name] = target
        handler.answer(200, {})


def resolve(handler: Handler, repo: str, revision: str, name: str) -> None:
    if found := handler.found(repo, revision):
        known, at = found
        content = known.commits[at].get(name)
        if content is None:
            handler.answer(404, {"error": "no file"}, X_Error_Code="EntryNotFound", X_Repo_Commit=at)
            return
        etag = hashlib.sha256(content).hexdigest()
        handler.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=at, Content_Type="application/octet-stream")


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", lambda handler: handler.answer(200, {"warnings": [], "errors": []})),
    ("GET", f"/api/models/{NAME}/refs", refs),
    ("GET", f"/api/models/{NAME}", info),
    ("GET", f"/api/models/{NAME}/revision/(.+)", info),
    ("GET", f"/api/models/{NAME}/tree/([^/]+)", tree),
    ("POST", f"/api/models/{NAME}/preupload/(.+)", preupload),
    ("POST", f"/{NAME}.git/info/lfs/objects/batch", batch),
    ("PUT", "/objects/(.+)", upload),
    ("POST", f"/api/models/{NAME}/commit/(.+)", commit),
    ("POST", f"/api/models/{NAME}/tag/(.+)", tag),
    ("GET HEAD", f"/{NAME}/resolve/([^/]+)/(.+)", resolve),
]
