"""What `kubectl get` shows of a pod, a node, and of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kube_emulator.apiserver.kinds.catalogue import Kind
from kube_emulator.apiserver.wire.columns import BUILTIN_COLUMNS, age
from kube_emulator.apiserver.wire.tables import select, table

AGES = {
    5: "5s",
    119: "119s",
    120: "2m",
    200: "3m20s",
    599: "9m59s",
    600: "10m",
    3 * 3600 - 1: "179m",
    3 * 3600: "3h",
    3 * 3600 + 120: "3h2m",
    9 * 3600 + 120: "9h",
    47 * 3600: "47h",
    49 * 3600: "2d1h",
    72 * 3600: "3d",
    10 * 86400: "10d",
}


@pytest.mark.parametrize("seconds", AGES)
def test_age(seconds: int) -> None:
    then = datetime.now(UTC) - timedelta(seconds=seconds)
    slack = {AGES[seconds], AGES.get(seconds + 1)}
    assert age(then.isoformat().replace("+00:00", "Z")) in slack


def test_age_of_what_has_none() -> None:
    assert age(None) == "<unknown>"
    assert age((datetime.now(UTC) + timedelta(hours=1)).isoformat()) == "0s"


def cell(plural: str, name: str, obj: dict[str, Any]) -> Any:
    kind = Kind("", "v1", "X", plural)
    full = {"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}, **obj}
    made = table(kind, [full], {}, "None")
    names = [c["name"] for c in made["columnDefinitions"]]
    return made["rows"][0]["cells"][names.index(name)]


def container(**state: Any) -> dict[str, Any]:
    return {"name": "c", "ready": "running" in state, "restartCount": 2, "state": state}


POD_STATES = {
    "Pending": {"phase": "Pending"},
    "Running": {"phase": "Running", "containerStatuses": [container(running={})]},
    "ImagePullBackOff": {
        "phase": "Pending",
        "containerStatuses": [container(waiting={"reason": "ImagePullBackOff"})],
    },
    "OOMKilled": {
        "phase": "Failed",
        "containerStatuses": [container(terminated={"reason": "OOMKilled"})],
    },
    "Init:CrashLoopBackOff": {
        "phase": "Pending",
        "initContainerStatuses": [container(waiting={"reason": "CrashLoopBackOff"})],
    },
    "Evicted": {"phase": "Failed", "reason": "Evicted"},
    "Unknown": {},
}


@pytest.mark.parametrize("shown", POD_STATES)
def test_the_state_of_a_pod(shown: str) -> None:
    assert cell("pods", "Status", {"status": POD_STATES[shown]}) == shown


def test_an_initialising_pod_is_not_waiting_for_an_error() -> None:
    waiting = container(waiting={"reason": "PodInitializing"})
    status = {"phase": "Pending", "initContainerStatuses": [waiting]}
    assert cell("pods", "Status", {"status": status}) == "Pending"


def test_ready_and_restarts_of_a_pod() -> None:
    obj = {
        "spec": {"containers": [{}, {}]},
        "status": {"containerStatuses": [container(running={}), container(waiting={})]},
    }
    assert cell("pods", "Ready", obj) == "1/2"
    assert cell("pods", "Restarts", obj) == "4"
    assert cell("pods", "Node", obj) == "<none>"
    obj["metadata"] = {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert cell("pods", "Status", obj) == "Terminating"


@pytest.mark.parametrize(("status", "shown"), [("True", "Ready"), ("False", "NotReady")])
def test_the_state_of_a_node(status: str, shown: str) -> None:
    conditions = [{"type": "Other", "status": "True"}, {"type": "Ready", "status": status}]
    assert cell("nodes", "Status", {"status": {"conditions": conditions}}) == shown
    assert cell("nodes", "Status", {}) == "Unknown"


def test_the_replicas_of_a_deployment() -> None:
    deployment = {"spec": {"replicas": 3}, "status": {"readyReplicas": 1, "availableReplicas": 2}}
    assert cell("deployments", "Ready", deployment) == "1/3"
    assert cell("deployments", "Available", deployment) == 2
    assert cell("deployments", "Up-to-date", deployment) == 0


def test_events_show_their_latest_time() -> None:
    event = {"involvedObject": {"kind": "Pod", "name": "p"}, "message": " text\n"}
    assert cell("events", "Object", event) == "pod/p"
    assert cell("events", "Message", event) == "text"
    assert cell("events", "Last Seen", event) == "<unknown>"
    recent = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    series = {
        **event,
        "series": {"lastObservedTime": recent},
        "firstTimestamp": "2020-01-01T00:00:00Z",
    }
    assert cell("events", "Last Seen", series) == "9d"


def test_every_builtin_table_names_its_objects() -> None:
    for plural, columns in BUILTIN_COLUMNS.items():
        assert [c.name for c in columns if c.format == "name"] == ["Name"], plural


PATHS = {
    ".spec.a": ["x"],
    ".spec.list[0]": [1],
    ".spec.list[*]": [1, 2],
    '.spec.items[?(@.k=="b")].v': [2],
    ".metadata.annotations.example\\.com/note": ["hi"],
    ".metadata.annotations['example.com/note']": ["hi"],
    ".none.at.all": [],
}


@pytest.mark.parametrize("path", PATHS)
def test_json_paths(path: str) -> None:
    obj = {
        "metadata": {"annotations": {"example.com/note": "hi"}},
        "spec": {"a": "x", "list": [1, 2], "items": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]},
    }
    assert select(path, obj) == PATHS[path]


def test_cells_of_custom_columns_keep_their_type() -> None:
    columns = [
        {"name": name, "type": kind, "jsonPath": f".spec.{name}"}
        for name, kind in (
            ("text", "string"),
            ("flag", "string"),
            ("list", "string"),
            ("count", "integer"),
            ("wrong", "integer"),
            ("yes", "boolean"),
            ("maybe", "boolean"),
        )
    ]
    kind = Kind("g", "v1", "X", "xs", definition={"additionalPrinterColumns": columns})
    spec = {"text": "t", "flag": True, "list": [1], "count": 3, "wrong": "3", "yes": True}
    obj = {"metadata": {"name": "n"}, "spec": {**spec, "maybe": "x"}}
    cells = table(kind, [obj], {}, "None")["rows"][0]["cells"]
    assert cells == ["n", "t", "true", "[1]", 3, None, True, None]
