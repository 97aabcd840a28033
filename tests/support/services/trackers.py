"""Servers that speak as much of MLflow's REST API and of W&B's as their clients ask for.

W&B's is what its own library sends; MLflow's follows the REST documentation, limits included.
"""

from __future__ import annotations

import gzip
import json
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.services.loopback import listening


class TrackingServer:
    """What both have in common: trouble on demand, and a record of what came."""

    def __init__(self) -> None:
        self.status: int | None = None  # answered to everything, if set
        self.hang: Event | None = None  # waited for before any answer, if set
        self.authorizations: list[str | None] = []
        self.paths: list[str] = []
        self.url = ""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body."""
        raise NotImplementedError


class MlflowServer(TrackingServer):
    """Experiments, runs, and metrics in the order they came."""

    def __init__(self) -> None:
        super().__init__()
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.refuse_metric: str | None = None

    def metrics(self, key: str) -> list[tuple[int, float]]:
        """Return step and value of each point of the only run's metric."""
        [run] = self.runs.values()
        return [(m["step"], m["value"]) for m in run["metrics"] if m["key"] == key]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = path.removeprefix("/api/2.0/mlflow/").replace("/", "_").replace("-", "_")
        return getattr(self, f"_{name}")(body)

    def _experiments_get_by_name(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = body["experiment_name"]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        return 200, {"experiment": {"experiment_id": self.experiments[name], "name": name}}

    def _experiments_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.experiments[body["name"]] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[body["name"]]}

    def _runs_search(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        left, _, value = body["filter"].partition(" = ")
        tag = left.removeprefix("tags.`").removesuffix("`")
        found = [
            self._run(run_id)
            for run_id, run in self.runs.items()
            if run["experiment_id"] in body["experiment_ids"]
            and run["tags"].get(tag) == value.strip("'")
        ]
        return 200, {"runs": found[: body["max_results"]]} if found else {}

    def _runs_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run_id = f"run-{len(self.runs) + 1}"
        tags = {tag["key"]: tag["value"] for tag in body["tags"]}
        self.runs[run_id] = {**body, "tags": tags, "params": {}, "metrics": [], "status": "RUNNING"}
        return 200, {"run": self._run(run_id)}

    def _runs_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["run_id"] not in self.runs:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        return 200, {"run": self._run(body["run_id"])}

    def _runs_update(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.runs[body["run_id"]].update(body)
        return 200, {}

    def _runs_log_batch(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        metrics, params = body.get("metrics", []), body.get("params", [])
        if len(metrics) > 1000 or len(params) > 100 or any(len(p["value"]) > 500 for p in params):
            return 400, {"error_code": "INVALID_PARAMETER_VALUE"}
        if any(metric["key"] == self.refuse_metric for metric in metrics):
            return 400, {"error_code": "INVALID_PARAMETER_VALUE"}
        run = self.runs[body["run_id"]]
        run["metrics"] += metrics
        run["params"] |= {param["key"]: param["value"] for param in params}
        run["tags"] |= {tag["key"]: tag["value"] for tag in body.get("tags", [])}
        return 200, {}

    def _run(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        latest = {metric["key"]: metric for metric in run["metrics"]}
        stage = run.get("lifecycle_stage", "active")
        info = {"run_id": run_id, "status": run["status"], "lifecycle_stage": stage}
        return {"info": info, "data": {"metrics": list(latest.values())}}


class WandbServer(TrackingServer):
    """One run: its configuration, its history's rows, how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.variables: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.exit_code: int | None = None

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/graphql":
            return 200, {"data": self._graphql(body["operationName"], body["variables"])}
        for name, file in body.get("files", {}).items():
            if name == "wandb-history.jsonl":
                self.rows += [json.loads(line) for line in file["content"]]
        if body.get("complete"):
            self.exit_code = body["exitcode"]
        return 200, {}

    def _graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "e", "name": variables.get("entity")}
        project = {"id": "p", "name": variables.get("project"), "entity": entity}
        match operation:
            case "RunResumeStatus":
                return {"model": {**project, "bucket": self._resumed(variables["name"])}}
            case "UpsertBucket":
                self.variables |= {k: v for k, v in variables.items() if v is not None}
                bucket = {"id": "b", "name": variables["name"], "config": "{}", "project": project}
                return {"upsertBucket": {"bucket": bucket, "inserted": not self.rows}}
            case "CreateRunFiles":
                files = [{"name": n, "uploadUrl": f"{self.url}/put"} for n in variables["files"]]
                uploads = {"runID": "b", "uploadHeaders": [], "files": files}
                return {"createRunFiles": uploads}
        return {}

    def _resumed(self, name: str) -> dict[str, Any] | None:
        if not self.rows:
            return None
        return {
            "id": "b",
            "name": name,
            "summaryMetrics": "{}",
            "historyLineCount": len(self.rows),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(self.rows[-1])]),
            "eventsTail": "[]",
            "config": "{}",
            "wandbConfig": json.dumps({"t": 1}),
        }


def serving(server: TrackingServer) -> AbstractContextManager[None]:
    """Serve on a loopback port; sets the server's url."""
    return listening(server, _Handler)


class _Handler(BaseHTTPRequestHandler):
    own: TrackingServer

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        parts = urlsplit(self.path)
        body = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self.headers.get("Content-Type", "").startswith("application/json"):
            body |= json.loads(raw)
        self.own.authorizations.append(self.headers.get("Authorization"))
        self.own.paths.append(parts.path)
        if self.own.hang is not None:
            self.own.hang.wait()
        status, answer = (
            (self.own.status, {}) if self.own.status else self.own.answer(parts.path, body)
        )
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the library's names

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def until(condition: Any) -> None:
    """Wait until a condition holds."""
    while not condition():
        time.sleep(0.01)
