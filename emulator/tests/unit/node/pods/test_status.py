"""Phases and conditions from containers' records."""

from datetime import UTC, datetime

import pytest

from kube_emulator.client import Object
from kube_emulator.node.containers.record import (
    ContainerRecord,
    Kind,
    Running,
    State,
    Terminated,
    Waiting,
)
from kube_emulator.node.pods.status import Observation, phase_of, pod_status

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 13, 0, 0, tzinfo=UTC)
OK, BAD = Terminated(0, "Completed"), Terminated(1, "Error")


def record(
    state: State, kind: Kind = Kind.MAIN, *, ready: bool = False, started: bool = False, **more: int
) -> ContainerRecord:
    return ContainerRecord(
        kind.value, "alpine", kind, state, ready=ready, started=started, restarts=more.get("n", 0)
    )


def seen(*records: ContainerRecord, **more: object) -> Observation:
    return Observation(records, "127.77.0.1", "127.0.0.1", NOW, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("records", "finished", "phase"),
    [
        ([record(Waiting("ContainerCreating"))], False, "Pending"),
        ([record(Waiting("ImagePullBackOff"))], False, "Pending"),
        ([record(Running(NOW))], False, "Running"),
        ([record(Waiting("CrashLoopBackOff"), n=1)], False, "Running"),
        ([record(Running(NOW), Kind.INIT), record(Waiting())], False, "Pending"),
        ([record(OK, Kind.INIT), record(Running(NOW))], False, "Running"),
        ([record(Running(NOW), Kind.SIDECAR), record(Waiting())], False, "Pending"),
        ([record(OK, Kind.INIT), record(Waiting())], False, "Pending"),
        (
            [record(Running(NOW), Kind.SIDECAR, started=True), record(Running(NOW))],
            False,
            "Running",
        ),
        ([record(OK), record(Running(NOW))], False, "Running"),
        ([record(OK)], True, "Succeeded"),
        ([record(OK), record(BAD)], True, "Failed"),
        ([record(BAD, Kind.INIT), record(Waiting())], True, "Failed"),
        ([record(BAD, Kind.SIDECAR), record(OK)], True, "Succeeded"),
        ([record(Waiting(), Kind.SIDECAR), record(Running(NOW))], False, "Running"),
    ],
)
def test_phase(records: list[ContainerRecord], finished: bool, phase: str) -> None:
    assert phase_of("Never", seen(*records, finished=finished)) == phase


def test_a_pod_that_the_node_ended_has_failed() -> None:
    ended = ("DeadlineExceeded", "too long")
    status = pod_status(pod(), seen(record(OK), finished=True, ended=ended), NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", *ended)


def pod(conditions: list[Object] | None = None) -> Object:
    return {"spec": {"restartPolicy": "Never"}, "status": {"conditions": conditions or []}}


def condition(status: Object, kind: str) -> Object:
    [found] = [one for one in status["conditions"] if one["type"] == kind]
    return dict(found)


def test_ready_needs_every_serving_container() -> None:
    sidecar = record(Running(NOW), Kind.SIDECAR, ready=True, started=True)
    done = record(OK, Kind.INIT)
    half = pod_status(pod(), seen(done, sidecar, record(Running(NOW))), NOW)
    assert condition(half, "Ready")["status"] == "False"
    assert condition(half, "Ready")["reason"] == "ContainersNotReady"
    assert condition(half, "Ready")["message"] == "containers with unready status: [main]"
    full = pod_status(pod(), seen(done, sidecar, record(Running(NOW), ready=True)), NOW)
    assert condition(full, "Ready")["status"] == "True"
    assert condition(full, "ContainersReady")["status"] == "True"


def test_initialization_waits_for_sidecars_too() -> None:
    starting = record(Running(NOW), Kind.SIDECAR)
    status = pod_status(pod(), seen(starting, record(Waiting())), NOW)
    assert condition(status, "Initialized")["message"] == (
        "containers with incomplete status: [sidecar]"
    )
    assert status["phase"] == "Pending"
    assert condition(status, "PodScheduled")["status"] == "True"


def test_a_success_is_told_in_every_condition() -> None:
    status = pod_status(pod(), seen(record(OK, Kind.INIT), record(OK), finished=True), NOW)
    initialized = condition(status, "Initialized")
    assert (initialized["status"], initialized["reason"]) == ("True", "PodCompleted")


def test_what_initialization_waits_for_is_named() -> None:
    status = pod_status(pod(), seen(record(Running(NOW), Kind.INIT), record(Waiting())), NOW)
    waiting = condition(status, "Initialized")
    assert waiting["status"] == "False"
    assert waiting["reason"] == "ContainersNotInitialized"
    assert waiting["message"] == "containers with incomplete status: [init]"


@pytest.mark.parametrize(("state", "reason"), [(OK, "PodCompleted"), (BAD, "PodFailed")])
def test_an_ended_pod_says_so_in_ready(state: Terminated, reason: str) -> None:
    status = pod_status(pod(), seen(record(state), finished=True, sandbox_ready=True), NOW)
    assert condition(status, "Ready")["reason"] == reason
    assert condition(status, "PodReadyToStartContainers")["status"] == "False"


def test_a_transition_time_moves_only_with_the_condition() -> None:
    first = pod_status(pod(), seen(record(Running(NOW))), NOW)
    again = pod_status(pod(first["conditions"]), seen(record(Running(NOW))), LATER)
    assert again == first
    ready = pod_status(pod(first["conditions"]), seen(record(Running(NOW), ready=True)), LATER)
    assert condition(ready, "Ready")["lastTransitionTime"] == "2026-01-01T13:00:00Z"
    assert condition(ready, "PodScheduled")["lastTransitionTime"] == "2026-01-01T12:00:00Z"


def test_conditions_of_others_stay() -> None:
    foreign = {"type": "DisruptionTarget", "status": "True"}
    assert foreign in pod_status(pod([foreign]), seen(record(Running(NOW))), NOW)["conditions"]


def test_container_statuses_are_core_v1() -> None:
    one = ContainerRecord(
        "c",
        "alpine",
        Kind.MAIN,
        Running(NOW),
        last=Terminated(137, "OOMKilled", "", NOW, LATER, "emulated://1"),
        restarts=2,
        ready=True,
        started=True,
        container_id="emulated://2",
    )
    status = pod_status(pod(), seen(record(OK, Kind.INIT), one), NOW)
    assert [entry["name"] for entry in status["initContainerStatuses"]] == ["init"]
    assert status["containerStatuses"] == [
        {
            "name": "c",
            "image": "alpine",
            "imageID": "alpine",
            "containerID": "emulated://2",
            "state": {"running": {"startedAt": "2026-01-01T12:00:00Z"}},
            "lastState": {
                "terminated": {
                    "exitCode": 137,
                    "reason": "OOMKilled",
                    "startedAt": "2026-01-01T12:00:00Z",
                    "finishedAt": "2026-01-01T13:00:00Z",
                    "containerID": "emulated://1",
                }
            },
            "ready": True,
            "started": True,
            "restartCount": 2,
        }
    ]
