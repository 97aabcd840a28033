"""The columns of built-in kinds in `kubectl get`."""

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
_CREATED_AT = Column("Created At", "date", lambda obj: obj["metadata"]["creationTimestamp"])


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


def _size(field: str) -> Callable[[Object], int]:
    return lambda obj: len(obj.get(field) or {})


def _ports(obj: Object) -> str:
    ports = obj.get("spec", {}).get("ports", [])
    return ",".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>"


def _role(obj: Object) -> str:
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"


def _or_none(*path: str) -> Callable[[Object], Any]:
    def read(obj: Object) -> Any:
        value: Any = obj
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value if value not in (None, "") else "<none>"

    return read


def _containers(field: str) -> Callable[[Object], str]:
    def read(obj: Object) -> str:
        template = obj.get("spec", {}).get("template", {})
        containers = template.get("spec", {}).get("containers", [])
        return ",".join(c.get(field, "") for c in containers)

    return read


def _labels(*path: str) -> Callable[[Object], str]:
    def read(obj: Object) -> str:
        value: Any = obj
        for key in path:
            value = value.get(key) or {}
        return ",".join(f"{k}={v}" for k, v in sorted(value.items())) or "<none>"

    return read


def _address(kind: str) -> Callable[[Object], str]:
    def read(obj: Object) -> str:
        addresses = obj.get("status", {}).get("addresses", [])
        return next((str(a["address"]) for a in addresses if a["type"] == kind), "<none>")

    return read


def _event_source(obj: Object) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent", "")
    return ", ".join(part for part in (component, source.get("host")) if part)


def _first_seen(obj: Object) -> str:
    return age(obj.get("firstTimestamp") or obj.get("eventTime"))


def _wide(name: str, source: str | Callable[[Object], Any]) -> Column:
    return Column(name, "string", source, 1)


NAME = Column(
    "Name",
    "string",
    ".metadata.name",
    description="Name must be unique within a namespace.",
    format="name",
)
_WORKLOAD = [
    _wide("Containers", _containers("name")),
    _wide("Images", _containers("image")),
    _wide("Selector", _labels("spec", "selector", "matchLabels")),
]

BUILTIN_COLUMNS: dict[str, list[Column]] = {
    "pods": [
        NAME,
        Column("Ready", "string", _ready),
        Column("Status", "string", _pod_state),
        Column("Restarts", "string", _restarts),
        AGE,
        _wide("IP", _or_none("status", "podIP")),
        _wide("Node", _or_none("spec", "nodeName")),
        _wide("Nominated Node", _or_none("status", "nominatedNodeName")),
        _wide("Readiness Gates", lambda obj: "<none>"),
    ],
    "nodes": [
        NAME,
        Column("Status", "string", _node_state),
        Column("Roles", "string", lambda obj: "<none>"),
        AGE,
        Column("Version", "string", ".status.nodeInfo.kubeletVersion"),
        _wide("Internal-IP", _address("InternalIP")),
        _wide("External-IP", _address("ExternalIP")),
        _wide("OS-Image", _or_none("status", "nodeInfo", "osImage")),
        _wide("Kernel-Version", _or_none("status", "nodeInfo", "kernelVersion")),
        _wide("Container-Runtime", _or_none("status", "nodeInfo", "containerRuntimeVersion")),
    ],
    "namespaces": [NAME, Column("Status", "string", ".status.phase"), AGE],
    "events": [
        Column("Last Seen", "string", _event_age),
        Column("Type", "string", ".type"),
        Column("Reason", "string", ".reason"),
        Column("Object", "string", _event_object),
        _wide("Subobject", ".involvedObject.fieldPath"),
        _wide("Source", _event_source),
        Column("Message", "string", lambda obj: obj.get("message", "").strip()),
        _wide("First Seen", _first_seen),
        _wide("Count", lambda obj: obj.get("count", 1)),
        Column("Name", "string", ".metadata.name", 1, format="name"),
    ],
    "services": [
        NAME,
        Column("Type", "string", ".spec.type"),
        Column("Cluster-IP", "string", _or_none("spec", "clusterIP")),
        Column("External-IP", "string", lambda obj: "<none>"),
        Column("Port(s)", "string", _ports),
        AGE,
        _wide("Selector", _labels("spec", "selector")),
    ],
    "deployments": [
        NAME,
        Column("Ready", "string", _replicas),
        Column("Up-to-date", "string", _count("updatedReplicas")),
        Column("Available", "string", _count("availableReplicas")),
        AGE,
        *_WORKLOAD,
    ],
    "replicasets": [
        NAME,
        Column("Desired", "integer", ".spec.replicas"),
        Column("Current", "integer", _count("replicas")),
        Column("Ready", "integer", _count("readyReplicas")),
        AGE,
        *_WORKLOAD,
    ],
    "configmaps": [NAME, Column("Data", "string", _size("data")), AGE],
    "secrets": [
        NAME,
        Column("Type", "string", ".type"),
        Column("Data", "string", _size("data")),
        AGE,
    ],
    "leases": [NAME, Column("Holder", "string", ".spec.holderIdentity"), AGE],
    "rolebindings": [NAME, Column("Role", "string", _role), AGE],
    "clusterrolebindings": [NAME, Column("Role", "string", _role), AGE],
    "roles": [NAME, _CREATED_AT],
    "clusterroles": [NAME, _CREATED_AT],
    "customresourcedefinitions": [NAME, _CREATED_AT],
    "networkpolicies": [
        NAME,
        Column("Pod-Selector", "string", _labels("spec", "podSelector", "matchLabels")),
        AGE,
    ],
    "priorityclasses": [
        NAME,
        Column("Value", "integer", ".value"),
        Column("Global-Default", "boolean", lambda obj: bool(obj.get("globalDefault"))),
        AGE,
        Column("PreemptionPolicy", "string", ".preemptionPolicy"),
    ],
}
