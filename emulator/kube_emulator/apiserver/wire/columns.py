"""The columns of built-in kinds in `kubectl get`.

Kinds without an entry here show name and age; columns that only `-o wide` shows are left out but
for the two of a pod that tell where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Object


@dataclass(frozen=True)
class Column:
    """One column; `source` is a JSONPath or a function of the object."""

    name: str
    type: str
    source: str | Callable[[Object], Any]
    priority: int = 0
    description: str = ""
    format: str = ""

    def header(self) -> dict[str, Any]:
        text = self.description or f"{self.name} of the object."
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": text,
            "priority": self.priority,
        }


def age(since: str | None) -> str:
    """The time since a timestamp as kubectl shows it: `7s`, `3m20s`, `5h`, `12d`."""
    if not since:
        return "<unknown>"
    then = datetime.fromisoformat(since.replace("Z", "+00:00"))
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def _created(obj: Object) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


AGE = Column("Age", "string", _created)


def _ready(obj: Object) -> str:
    statuses = obj.get("status", {}).get("containerStatuses", [])
    total = len(obj.get("spec", {}).get("containers", []))
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{total}"


def _restarts(obj: Object) -> str:
    statuses = obj.get("status", {}).get("containerStatuses", [])
    return str(sum(s.get("restartCount", 0) for s in statuses))


def _pod_state(obj: Object) -> str:
    status = obj.get("status", {})
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    for init in status.get("initContainerStatuses", []):
        waiting = init.get("state", {}).get("waiting", {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
    for container in status.get("containerStatuses", []):
        state = container.get("state", {})
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        if reason:
            return str(reason)
    return str(status.get("reason") or status.get("phase", "Unknown"))


def _node_state(obj: Object) -> str:
    for condition in obj.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return "Ready" if condition["status"] == "True" else "NotReady"
    return "Unknown"


def _event_object(obj: Object) -> str:
    target = obj.get("involvedObject", {})
    return f"{target.get('kind', '').lower()}/{target.get('name', '')}"


def _event_age(obj: Object) -> str:
    series = (obj.get("series") or {}).get("lastObservedTime")
    times = (series, obj.get("lastTimestamp"), obj.get("eventTime"), obj.get("firstTimestamp"))
    return age(next((t for t in times if t), None))


def _replicas(obj: Object) -> str:
    ready = obj.get("status", {}).get("readyReplicas", 0)
    return f"{ready}/{obj.get('spec', {}).get('replicas', 0)}"


def _count(field: str) -> Callable[[Object], int]:
    return lambda obj: obj.get("status", {}).get(field, 0)


def _or_none(*path: str) -> Callable[[Object], Any]:
    def read(obj: Object) -> Any:
        value: Any = obj
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value if value not in (None, "") else "<none>"

    return read


NAME = Column(
    "Name",
    "string",
    ".metadata.name",
    description="Name must be unique within a namespace.",
    format="name",
)

BUILTIN_COLUMNS: dict[str, list[Column]] = {
    "pods": [
        NAME,
        Column("Ready", "string", _ready),
        Column("Status", "string", _pod_state),
        Column("Restarts", "string", _restarts),
        AGE,
        Column("IP", "string", _or_none("status", "podIP"), 1),
        Column("Node", "string", _or_none("spec", "nodeName"), 1),
    ],
    "nodes": [
        NAME,
        Column("Status", "string", _node_state),
        Column("Roles", "string", lambda obj: "<none>"),
        AGE,
        Column("Version", "string", ".status.nodeInfo.kubeletVersion"),
    ],
    "events": [
        Column("Last Seen", "string", _event_age),
        Column("Type", "string", ".type"),
        Column("Reason", "string", ".reason"),
        Column("Object", "string", _event_object),
        Column("Message", "string", lambda obj: obj.get("message", "").strip()),
        Column("Name", "string", ".metadata.name", 1, format="name"),
    ],
    "deployments": [
        NAME,
        Column("Ready", "string", _replicas),
        Column("Up-to-date", "string", _count("updatedReplicas")),
        Column("Available", "string", _count("availableReplicas")),
        AGE,
    ],
}
