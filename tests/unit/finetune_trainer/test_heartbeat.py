"""Heartbeats against an HTTPS server that stands for the API server."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import trustme

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.layout import Heartbeat
from finetune_contract.progress import Phase, Progress
from finetune_trainer import heartbeat as heartbeat_module
from finetune_trainer.heartbeat import lease_sink
from finetune_trainer.progress import Beat, Reporter, file_sink
from finetune_trainer.telemetry import StepRecord

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


@pytest.mark.parametrize("trouble", ["refused", "no server", "no token", "other certificate"])
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
        case _:
            trustme.CA().cert_pem.write_to_path(str(api.service_account / "ca.crt"))
    sink = lease_sink(Heartbeat(lease="job-a1"), "team", api.service_account)
    with caplog.at_level(logging.WARNING):
        sink(PROGRESS)
        sink(PROGRESS)
    assert [record.message for record in caplog.records] == [caplog.messages[0]]
    assert "training goes on" in caplog.messages[0]
    assert "token-1" not in caplog.text
    monkeypatch.setattr(heartbeat_module, "COMPLAIN_SECONDS", 0.0)
    sink(PROGRESS)
    assert len(caplog.messages) == 2


def test_beats_go_on_and_end_with_the_last_word() -> None:
    reporter, seen, enough = Reporter(), list[Progress](), Event()

    def sink(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            enough.set()

    beat = Beat(reporter, sink, 0.01)
    enough.wait()
    reporter.begin(Phase.PUBLISH, 7)
    reporter.advance(7)
    beat.close()
    assert seen[-1] == Progress(phase=Phase.PUBLISH, done=7, total=7)


def test_the_progress_file_is_replaced_whole(tmp_path: Path) -> None:
    sink = file_sink(tmp_path / "progress.json")
    for _ in range(2):
        sink(PROGRESS)
        assert Progress.model_validate_json((tmp_path / "progress.json").read_text()) == PROGRESS
    assert [f.name for f in tmp_path.iterdir()] == ["progress.json"]


def record(step: int, loss: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=loss,
        grad_norm=1.5,
        learning_rate=1e-4,
        tokens=100,
        supervised_tokens=40,
        seconds=2.0,
    )


def test_steps_are_counted_with_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    assert reporter.step == 1
    with caplog.at_level(logging.INFO):
        for step, loss in enumerate((4.0, 3.0, 2.0), start=1):
            reporter.trained(record(step, loss))
    assert reporter.latest == Progress(
        phase=Phase.TRAIN,
        done=3,
        total=10,
        step=3,
        loss=2.0,
        tokens_per_second=50.0,
        eta_seconds=14,
    )
    assert reporter.step == 4
    told = [message for message in caplog.messages if message.startswith("step")]
    assert told == ["step 1/10 loss 4.0000 grad norm 1.500, 50 tokens/s, 18 s left"]
    reporter.begin(Phase.PUBLISH)
    assert reporter.step is None
    assert (reporter.latest.step, reporter.latest.loss) == (3, 2.0)
    assert (reporter.latest.tokens_per_second, reporter.latest.eta_seconds) == (None, None)


def test_an_evaluation_keeps_the_steps_counter() -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    reporter.resumed(4)
    reporter.trained(record(5, 3.0))
    before = reporter.latest
    with reporter.aside(Phase.EVALUATE, 7):
        reporter.advance(2)
        inside = reporter.latest
        assert (inside.phase, inside.done, inside.total, inside.step) == (Phase.EVALUATE, 2, 7, 5)
        assert reporter.step is None
        checkpoint = CheckpointRef(attempt=1, step=4, uri="file:///c")
        reporter.checkpointed(checkpoint)
    assert reporter.latest == before.model_copy(update={"checkpoint": checkpoint})
    assert reporter.latest.resumed_step == 4
    reporter.evaluated(1.25)
    assert reporter.latest.eval_loss == 1.25


def test_a_run_from_the_beginning_was_not_resumed() -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    reporter.resumed(0)
    assert (reporter.latest.step, reporter.latest.resumed_step) == (0, None)
