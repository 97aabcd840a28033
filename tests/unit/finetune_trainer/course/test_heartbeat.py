"""Heartbeats against an HTTPS server that stands for the API server."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme

from finetune_contract.layout import Heartbeat
from finetune_contract.progress import Phase, Progress
from finetune_trainer.course.heartbeat import lease_sink

PROGRESS = Progress(phase=Phase.TRAIN, done=3, total=9, loss=0.5)


@dataclass
class ApiServer:
    """What was asked, and what to answer."""

    service_account: Path
    status: int = 200
    seen: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("token-1\n")
    api = ApiServer(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.seen.append((self.path, dict(self.headers), body))
            self.send_response(api.status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    yield api
    server.shutdown()
    server.server_close()


def test_a_beat_renews_the_lease_and_carries_progress(api: ApiServer) -> None:
    sink = lease_sink(Heartbeat(lease="job-a1"), "team", api.service_account)
    sink(PROGRESS)
    path, headers, body = api.seen[0]
    assert path == "/apis/coordination.k8s.io/v1/namespaces/team/leases/job-a1"
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert headers["Authorization"] == "Bearer token-1"
    annotations = body["metadata"]["annotations"]
    assert Progress.model_validate_json(annotations["finetune.dev/progress"]) == PROGRESS
    assert body["spec"]["holderIdentity"]
    assert body["spec"]["renewTime"].endswith("Z")


def test_a_rotated_token_is_used(api: ApiServer) -> None:
    sink = lease_sink(Heartbeat(lease="job-a1"), "team", api.service_account)
    sink(PROGRESS)
    (api.service_account / "token").write_text("token-2")
    sink(PROGRESS)
    assert [seen[1]["Authorization"] for seen in api.seen] == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize(
    "trouble", ["refused", "no server", "no token", "no such token", "other certificate"]
)
def test_failures_are_logged_once_and_never_raised(
    api: ApiServer,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    match trouble:
        case "refused":
            api.status = 403
        case "no server":
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
        case "no token":
            (api.service_account / "token").unlink()
        case "no such token":
            (api.service_account / "token").write_text("token-1\nand more")
        case _:
            trustme.CA().cert_pem.write_to_path(str(api.service_account / "ca.crt"))
    for seconds, times in (([], 1), ([0.0], 2)):
        sink = lease_sink(Heartbeat(lease="job-a1"), "team", api.service_account, *seconds)
        caplog.clear()
        sink(PROGRESS)
        sink(PROGRESS)
        assert len(caplog.messages) == times
        assert all("training goes on" in message for message in caplog.messages)
        assert "token-1" not in caplog.text
