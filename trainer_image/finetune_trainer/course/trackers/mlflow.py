"""MLflow through its REST API 2.0.

MLflow's own client takes credentials from environment variables only, which every child process
would inherit, and retries for minutes. The API is small and stable:
https://mlflow.org/docs/latest/rest-api.html
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx2

from finetune_contract.foreign import Unreadable, parse
from finetune_contract.layout import CredentialKey
from finetune_contract.reasons import Reason
from finetune_trainer.course.trackers.base import (
    SECRET_FIELD,
    Point,
    Refused,
    Run,
    Unavailable,
    public_uri,
    was_stopped,
)
from finetune_trainer.store.credentials import read_key

T = TypeVar("T")

UID_TAG = "finetune.dev/job-uid"
TIMEOUT_SECONDS = 10.0
METRICS_PER_REQUEST = 1000  # the API's limits
PARAMS_PER_REQUEST = 100
PARAM_LENGTH = 500  # what every server version takes
KEYS = (
    CredentialKey.MLFLOW_TOKEN,
    CredentialKey.MLFLOW_USERNAME,
    CredentialKey.MLFLOW_PASSWORD,
    CredentialKey.CA_CERTIFICATE,
)
MOST_BYTES = 8 * 2**20  # of one answer; a run with all its metrics and parameters has far less
RETRIED = {401, 403, 408, 429}  # a rotated token or a moment of rest mends these


class MlflowTracker:
    """A run in an experiment that bears the project's name."""

    def __init__(self, uri: str, run: Run, credentials_dir: str | None) -> None:
        self.run_id = run.run_id
        self._uri = uri.rstrip("/")
        self._run = run
        self._credentials_dir = credentials_dir
        self._reached: dict[str, int] = {}
        self._keys: list[str | None] = []
        self._client: httpx2.Client | None = None

    def open(self) -> None:
        """Find the run by its id, else by the job's uid; else create it."""
        found = self._by_id() or self._by_uid()
        if found is None:
            found = self._create()
        self.run_id = found["info"]["run_id"]
        self._reached = {
            m["key"]: int(m.get("step", 0)) for m in found.get("data", {}).get("metrics", [])
        }
        self._call("POST", "runs/update", {"run_id": self.run_id, "status": "RUNNING"})
        params = _pairs(self._run.params)
        for chunk in _chunks(params, PARAMS_PER_REQUEST):
            self._call("POST", "runs/log-batch", {"run_id": self.run_id, "params": chunk})
        tags = {"run_id": self.run_id, "tags": _pairs(self._run.tags)}
        self._call("POST", "runs/log-batch", tags)

    def reached(self, key: str) -> int:
        """Return the last step the server has of a metric; -1 if none."""
        return self._reached.get(key, -1)

    def log(self, points: Sequence[Point]) -> None:
        """Add metrics."""
        metrics = [
            {"key": p.key, "value": p.value, "timestamp": round(1000 * p.time), "step": p.step}
            for p in points
        ]
        for chunk in _chunks(metrics, METRICS_PER_REQUEST):
            self._call("POST", "runs/log-batch", {"run_id": self.run_id, "metrics": chunk})

    def close(self, reason: Reason) -> None:
        """Set FINISHED; KILLED where a next attempt goes on; else FAILED."""
        status = "KILLED" if was_stopped(reason) else "FAILED"
        if reason is Reason.SUCCEEDED:
            status = "FINISHED"
        end = {"run_id": self.run_id, "status": status, "end_time": _now()}
        self._call("POST", "runs/update", end)

    def _by_id(self) -> Any:
        if self.run_id is None:
            return None
        answer = self._call("GET", "runs/get", {"run_id": self.run_id}, missing_is_none=True)
        deleted = answer and answer["run"]["info"].get("lifecycle_stage") == "deleted"
        return None if answer is None or deleted else answer["run"]

    def _by_uid(self) -> Any:
        """Return the job's run that an attempt left which was lost before its first checkpoint."""
        query = {
            "experiment_ids": [self._experiment()],
            "filter": f"tags.`{UID_TAG}` = '{self._run.uid}'",
            "max_results": 1,
        }
        runs = self._call("POST", "runs/search", query).get("runs")
        return runs[0] if runs else None

    def _create(self) -> Any:
        tags = {UID_TAG: self._run.uid, "mlflow.runName": self._run.name}
        body = {
            "experiment_id": self._experiment(),
            "run_name": self._run.name,
            "start_time": _now(),
            "tags": _pairs(tags),
        }
        return self._call("POST", "runs/create", body)["run"]

    def _experiment(self) -> str:
        name = self._run.project
        path, query = "experiments/get-by-name", {"experiment_name": name}
        found = self._call("GET", path, query, missing_is_none=True)
        if found is None:
            return str(self._call("POST", "experiments/create", {"name": name})["experiment_id"])
        if found["experiment"].get("lifecycle_stage") == "deleted":
            raise Unavailable(f"the experiment {name!r} is deleted; restore it or set project")
        return str(found["experiment"]["experiment_id"])

    def _call(
        self, method: str, path: str, body: Mapping[str, Any], *, missing_is_none: bool = False
    ) -> Any:
        url = f"{self._uri}/api/2.0/mlflow/{path}"
        sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
        try:
            with self._connected().stream(method, url, **sent) as answer:
                content = self._bounded(answer)
        except (httpx2.RequestError, ssl.SSLError) as error:
            raise Unavailable(f"{public_uri(self._uri)}: {type(error).__name__}") from error
        if missing_is_none and answer.status_code == httpx2.codes.NOT_FOUND:
            return None
        return self._checked(answer, content)

    def _bounded(self, answer: httpx2.Response) -> bytes:
        """Return the content of an answer; what it grows to is counted, not what is sent."""
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                raise Unavailable(f"{public_uri(self._uri)} answers without end")
        return bytes(content)

    def _checked(self, answer: httpx2.Response, content: bytes) -> Any:
        code, server = answer.status_code, public_uri(self._uri)
        if answer.is_success:
            try:
                return parse(content)
            except Unreadable as error:
                raise Unavailable(f"{server} is no MLflow server: set spec.tracking.uri") from error
        if code in (401, 403):
            keys = f"{CredentialKey.MLFLOW_TOKEN}, or MLFLOW_TRACKING_USERNAME and _PASSWORD"
            raise Unavailable(f"{server} answered {code}: {SECRET_FIELD} needs {keys}")
        if code in RETRIED or code >= 500 or code < 400:
            raise Unavailable(f"{server} answered {code}")
        raise Refused(f"{server} answered {code}")

    def _connected(self) -> httpx2.Client:
        """Return a client with the keys of the Secret as they are."""
        keys = [read_key(self._credentials_dir, key, SECRET_FIELD) for key in KEYS]
        if self._client is None or keys != self._keys:
            token, user, password, certificate = keys
            access: dict[str, Any] = {}
            if token:
                access["headers"] = {"Authorization": f"Bearer {token}"}
            elif user and password:
                access["auth"] = (user, password)
            if certificate:
                access["verify"] = ssl.create_default_context(cadata=certificate)
            if self._client is not None:
                self._client.close()
            self._client = httpx2.Client(**access, timeout=TIMEOUT_SECONDS)
            self._keys = keys
        return self._client


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:PARAM_LENGTH]} for key, value in values.items()]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _now() -> int:
    return round(1000 * time.time())
