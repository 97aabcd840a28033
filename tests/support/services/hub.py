"""A stand-in for the Hugging Face hub: the few answers that fetching files needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee00" * 5


@dataclass
class Hub:
    """`files` by `models/ORG/NAME` or `datasets/ORG/NAME`; `requests` are what came.

    `commits` are those of every repository, the last one that of the branch main; the files are the
    same in all of them.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: [COMMIT])
    gated: set[str] = field(default_factory=set)
    token: str | None = None  # what is asked for, if anything
    failures: int = 0  # how many requests to answer with `failure` first
    failure: int = 503
    headers: dict[str, str] = field(default_factory=dict)  # of those answers
    answer: bytes | None = None  # to whatever is asked of its API, if set
    sent: int = 0  # bytes of files, in answer to requests for a range
    requests: list[str] = field(default_factory=list)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve a Hub on loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self.hub = hub  # before the base class, which answers while it is made
        self.commit = COMMIT
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.failures:
            self.hub.failures -= 1
            self._send(self.hub.failure, headers=self.hub.headers)
        elif self.hub.answer is not None and path.startswith("/api/"):
            self._send(200, self.hub.answer)
        elif path.startswith("/api/"):
            self._repository(path.removeprefix("/api/"))
        else:
            self._file(path.removeprefix("/"))

    def _repository(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        if self._refused(name):
            return
        if revision not in ("", "main", *self.hub.commits):
            self._send(404, code="RevisionNotFound")
            return
        siblings = [_sibling(path, data) for path, data in self.hub.files[name].items()]
        short = name.split("/", 1)[1]
        commit = revision if revision in self.hub.commits else self.hub.commits[-1]
        info = {"id": short, "modelId": short, "sha": commit, "siblings": siblings}
        self._send(200, json.dumps({**info, "tags": [], "downloads": 0}).encode())

    def _file(self, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        name = name if name.startswith("datasets/") else f"models/{name}"
        if self._refused(name):
            return
        revision, _, file = rest.partition("/")
        if revision not in self.hub.commits or file not in self.hub.files[name]:
            self._send(404, code="EntryNotFound")
            return
        self.commit = revision
        self._content(self.hub.files[name][file])

    def _content(self, body: bytes) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            self._send(200, body)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = body[int(first) : int(last) + 1]
        self.hub.sent += len(part)
        self._send(206, part)

    def _refused(self, name: str) -> bool:
        if name not in self.hub.files:
            self._send(404, code="RepoNotFound")
            return True
        if name in self.hub.gated:
            self._send(403, code="GatedRepo")
            return True
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(403)
            return True
        return False

    def _send(
        self,
        status: int,
        body: bytes = b"",
        code: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    """Return what the hub says of a file: a blob of git, which for weights points to the file."""
    large, blob = path.endswith(".safetensors"), data
    lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    if large:
        blob = f"oid sha256:{lfs['sha256']}".encode()
    blob_id = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
    known = {"rfilename": path, "size": len(data), "blobId": blob_id}
    return {**known, "lfs": lfs} if large else known
