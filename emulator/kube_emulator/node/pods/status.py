"""A pod's status from its containers' records (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kube_emulator.client import Object
from kube_emulator.node.containers.record import (
    ContainerRecord,
    Kind,
    Terminated,
    Waiting,
)
from kube_emulator.timestamps import timestamp

OWN_CONDITIONS = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
)


@dataclass(frozen=True)
class Observation:
    """What the node knows of a pod: `ended` is set when the node itself ended it
    (reason, message), as for a deadline."""

    records: Sequence[ContainerRecord]
    pod_ip: str
    host_ip: str
    started_at: datetime
    sandbox_ready: bool = False
    ended: tuple[str, str] | None = None
    finished: bool = False


def pod_status(pod: Object, seen: Observation, now: datetime) -> Object:
    """The PodStatus; transition times are kept from `pod` where a condition has not changed."""
    phase = phase_of(pod["spec"].get("restartPolicy", "Always"), seen)
    first = [one.as_object() for one in seen.records if one.kind is not Kind.MAIN]
    main = [one.as_object() for one in seen.records if one.kind is Kind.MAIN]
    status: Object = {
        "phase": phase,
        "conditions": _conditions(pod, phase, seen, now),
        "hostIP": seen.host_ip,
        "hostIPs": [{"ip": seen.host_ip}],
        "podIP": seen.pod_ip,
        "podIPs": [{"ip": seen.pod_ip}],
        "startTime": timestamp(seen.started_at),
        "qosClass": pod.get("status", {}).get("qosClass", "BestEffort"),
        "containerStatuses": main,
    }
    if first:
        status["initContainerStatuses"] = first
    if seen.ended:
        status["reason"], status["message"] = seen.ended
    return status


def phase_of(restart_policy: str, seen: Observation) -> str:
    """Pending until init containers are through; then as the main containers stand."""
    main = [one.state for one in seen.records if one.kind is Kind.MAIN]
    ended = [state for state in main if isinstance(state, Terminated)]
    if seen.finished:
        if seen.ended or len(ended) < len(main):
            return "Failed"
        return "Failed" if any(state.exit_code for state in ended) else "Succeeded"
    begun = [
        one
        for one in seen.records
        if one.kind is Kind.MAIN
        and (not isinstance(one.state, Waiting) or one.last is not None or one.restarts)
    ]
    # A sidecar that starts again later does not make the pod pending again.
    return "Running" if begun else "Pending"


def _incomplete(records: Sequence[ContainerRecord]) -> list[str]:
    names = []
    for one in records:
        succeeded = isinstance(one.state, Terminated) and one.state.exit_code == 0
        if one.kind is Kind.INIT and not succeeded:
            names.append(one.name)
        if one.kind is Kind.SIDECAR and not (one.started or isinstance(one.state, Terminated)):
            names.append(one.name)
    return names


def _conditions(pod: Object, phase: str, seen: Observation, now: datetime) -> list[Object]:
    incomplete = _incomplete(seen.records)
    unready = [one.name for one in seen.records if one.kind is not Kind.INIT and not one.ready]
    if phase in ("Succeeded", "Failed"):
        reason, message = f"Pod{phase.replace('Succeeded', 'Completed')}", ""
    else:
        reason, message = (
            "ContainersNotReady",
            f"containers with unready status: [{_list(unready)}]",
        )
    ready = not unready and not incomplete
    initialized = phase == "Succeeded" or not incomplete
    wanted = {
        "PodReadyToStartContainers": (seen.sandbox_ready and not seen.finished, "", ""),
        "Initialized": (
            initialized,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{_list(incomplete)}]",
        ),
        "Ready": (ready, reason, message),
        "ContainersReady": (ready, reason, message),
        "PodScheduled": (True, "", ""),
    }
    if phase == "Succeeded":
        wanted["Initialized"] = (True, "PodCompleted", "")
    old = {one["type"]: one for one in pod.get("status", {}).get("conditions", [])}
    foreign = [one for kind, one in old.items() if kind not in OWN_CONDITIONS]
    own = [_condition(kind, *wanted[kind], old.get(kind), now) for kind in OWN_CONDITIONS]
    return own + foreign


def _condition(
    kind: str, holds: bool, reason: str, message: str, old: Object | None, now: datetime
) -> Object:
    value = "True" if holds else "False"
    same = old is not None and old["status"] == value
    since = old["lastTransitionTime"] if same and old else timestamp(now)
    condition = {
        "type": kind,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": since,
    }
    if reason and (not holds or reason == "PodCompleted"):
        condition["reason"] = reason
        if message:
            condition["message"] = message
    return condition


def _list(names: list[str]) -> str:
    return " ".join(names)
