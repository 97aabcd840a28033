"""What a pod says of itself, by its kubelet, its scheduler and what ran in it: body -> Pod."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from finetune_contract.foreign import printable
from finetune_contract.result import decode
from finetune_operator.job.backend import Backend
from finetune_operator.job.names import (
    REWARDS_CONTAINER,
    ROWS_CONTAINER,
    Object,
    attempt_of,
    content_digest,
)
from finetune_operator.job.parts import number, part, parts, words
from finetune_operator.job.times import timestamp
from finetune_operator.observe.observed import ContainerEnd, Crashes, InitFailure, Obstacle, Pod

_LONGEST_END = 512  # characters of a log
_OWN_INITS = (ROWS_CONTAINER, REWARDS_CONTAINER)


def attempt_pod(body: Object, backend: Backend, gone: bool) -> Pod:
    """Return a pod of an attempt, as its name says; `gone` if these are its last words."""
    attempt, rank = attempt_of(body), backend.node_rank(body)
    assert attempt is not None, "its name was looked at"
    assert rank is not None, "its name was looked at"
    pod = _pod(body, attempt, rank, backend.container, gone, backend.init_container)
    first = pod.init_failure
    if first is None or first.name != backend.init_container:
        return pod
    return replace(pod, init_failure=replace(first, waited=True))


def check_pod(body: Object, gone: bool) -> Pod:
    """Return the pod that tries the rewards; if what reads their rows failed, that is its end."""
    pod = _pod(body, 1, 0, REWARDS_CONTAINER, gone)
    failed = _failed_init(body)
    if pod.end or failed is None or words(failed, "name") != ROWS_CONTAINER:
        return pod
    return replace(pod, end=_end(part(failed, "state")))


def _pod(body: Object, attempt: int, rank: int, container: str, gone: bool, *own: str) -> Pod:
    """Return a pod whose trainer is a container; `own` are init containers that have their time."""
    status = part(body, "status")
    conditions = {words(c, "type"): c for c in parts(status, "conditions")}
    scheduled = conditions.get("PodScheduled", {})
    state = part(_container(status, "containerStatuses", container), "state")
    disruption = conditions.get("DisruptionTarget", {})
    disrupted = disruption.get("status") == "True"
    metadata = body["metadata"]
    due = timestamp(metadata.get("deletionTimestamp"))
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt,
        node_rank=rank,
        phase=words(status, "phase") or "Pending",
        reason=words(status, "reason"),
        message=words(status, "message"),
        disrupted=words(disruption, "message") or words(disruption, "reason")
        if disrupted
        else None,
        disruption=words(disruption, "reason") if disrupted else "",
        scheduled=timestamp(scheduled.get("lastTransitionTime"))
        if scheduled.get("status") == "True"
        else None,
        running="running" in state,
        due=due,
        deleted=due and _asked_to_go(due, number(metadata, "deletionGracePeriodSeconds")),
        gone=gone,
        obstacle=_obstacle(body, conditions, state, {*_OWN_INITS, *own}),
        init_failure=_init_failure(body),
        end=_end(state),
        digest=content_digest(body),
        made=bool(state.keys() & {"running", "terminated"}) or _has_begun(body),
        runner_crashes=_runner_crashes(status),
    )


def _container(status: Object, of: str, name: str) -> dict[str, Any]:
    """Return the status of a container; empty where there is none."""
    return next((c for c in parts(status, of) if c.get("name") == name), {})


def _asked_to_go(due: datetime, grace: int) -> datetime | None:
    """Return when a pod was deleted; None where whoever did it gave it more time than there is."""
    try:
        return due - timedelta(seconds=grace)
    except OverflowError:
        return None


def _obstacle(
    body: Object, conditions: dict[str, Object], state: Object, own: Collection[str]
) -> Obstacle | None:
    """Return what keeps a pod from starting; of one whose trainer runs, what keeps it unready.
    `state` is its trainer's."""
    status, scheduled = part(body, "status"), conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return Obstacle(words(scheduled, "reason"), words(scheduled, "message"))
    containers = [*parts(status, "initContainerStatuses"), *parts(status, "containerStatuses")]
    if not (scheduled or containers or words(part(body, "spec"), "nodeName")):
        return _lasting("no scheduler has looked at it", body["metadata"].get("creationTimestamp"))
    found = [
        Obstacle(reason, words(waiting, "message") or f"image {words(one, 'image')}")
        for one in containers
        if (waiting := part(part(one, "state"), "waiting"))
        and (reason := words(waiting, "reason")) not in ("", "PodInitializing")
    ]
    if found:
        # One that is merely being created may stand before the one that can not be.
        return min(found, key=lambda one: one.reason == "ContainerCreating")
    ready = conditions.get("Ready", {})
    if "running" in state and ready.get("status") == "False":
        return _lasting(words(ready, "message") or "it is not ready", _started(state))
    return next(_unfinished(body, own), None)


def _unfinished(body: Object, own: Collection[str]) -> Iterator[Obstacle]:
    """Yield the init containers that run, and for which those after them wait."""
    sidecars = _sidecars(body)
    for one in parts(part(body, "status"), "initContainerStatuses"):
        name = words(one, "name")
        if name in own or (name in sidecars and one.get("started") is True):
            continue
        done = "started" if name in sidecars else "ended"
        found = _lasting(f"init container {name} has not {done}", _started(part(one, "state")))
        if found is not None:
            yield found


def _has_begun(body: Object) -> bool:
    """Tell whether an init container runs; one that ended, and a sidecar that has started, let the
    kubelet make the next."""
    sidecars = _sidecars(body)
    return any(
        "running" in part(one, "state")
        and not (words(one, "name") in sidecars and one.get("started") is True)
        for one in parts(part(body, "status"), "initContainerStatuses")
    )


def _lasting(text: str, since: Any) -> Obstacle | None:
    time = timestamp(since)
    return Obstacle("", text, time) if time else None


def _started(state: Object) -> Any:
    return part(state, "running").get("startedAt")


def _init_failure(body: Object) -> InitFailure | None:
    failed = _failed_init(body)
    if failed is None:
        return None
    code = number(part(part(failed, "state"), "terminated"), "exitCode")
    return InitFailure(words(failed, "name"), code)


def _failed_init(body: Object) -> dict[str, Any] | None:
    """Return the status of the init container that failed; a sidecar's end is no failure."""
    sidecars = _sidecars(body)
    for container in parts(part(body, "status"), "initContainerStatuses"):
        ended = part(part(container, "state"), "terminated")
        if words(container, "name") not in sidecars and number(ended, "exitCode"):
            return container
    return None


def _sidecars(body: Object) -> set[str]:
    first = parts(part(body, "spec"), "initContainers")
    return {words(c, "name") for c in first if c.get("restartPolicy") == "Always"}


def _runner_crashes(status: Object) -> Crashes | None:
    runner = _container(status, "initContainerStatuses", REWARDS_CONTAINER)
    restarts, state = number(runner, "restartCount"), part(runner, "state")
    ended = part(state, "terminated") or part(part(runner, "lastState"), "terminated")
    if not restarts or "running" in state or not ended:
        return None
    message = ended.get("message")
    last = message.strip()[-_LONGEST_END:] if isinstance(message, str) else ""
    return Crashes(restarts, number(ended, "exitCode"), words(ended, "reason"), printable(last))


def _end(state: Object) -> ContainerEnd | None:
    terminated = state.get("terminated")
    if not isinstance(terminated, dict):
        return None
    message = terminated.get("message")
    return ContainerEnd(
        exit_code=number(terminated, "exitCode"),
        reason=words(terminated, "reason"),
        finished=timestamp(terminated.get("finishedAt")),
        result=decode(message) if isinstance(message, str) else None,
        words=words(terminated, "message"),
    )
