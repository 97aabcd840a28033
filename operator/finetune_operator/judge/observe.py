"""What the cluster shows of one job: cache -> Observed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from finetune_api.job import KIND, FineTuneJob
from finetune_contract import progress
from finetune_contract.foreign import printable
from finetune_contract.result import decode
from finetune_operator.job.backend import Backend
from finetune_operator.job.names import (
    REWARDS_CONTAINER,
    ROWS_CONTAINER,
    Object,
    attempt_name,
    attempt_of,
    content_digest,
    controller,
    is_child,
    owner,
    reward_check_name,
    shared_name,
)
from finetune_operator.job.resources import LEASE, POD
from finetune_operator.job.times import timestamp
from finetune_operator.judge.observed import (
    Child,
    ContainerEnd,
    Crashes,
    InitFailure,
    Observed,
    Obstacle,
    Pod,
    Report,
    Stray,
)

_LONGEST_WORDS = 512  # characters
_LONGEST_MESSAGE = 1024


def observe(
    job: FineTuneJob, children: Iterable[Object], departed: Iterable[Object], backend: Backend
) -> Observed:
    """Return what the objects with the job's names say; `departed` are pods deleted since.

    Only what the job made is believed, and what its workloads made: by name and controller's uid,
    for anyone may write labels. Objects of a deleted job of the same name are listed, because their
    names are in the way.
    """
    shown = [(body, False) for body in children] + [(body, True) for body in departed]
    direct = [(b, gone) for b, gone in shown if _is_planned(job, b)]
    made = [_child(job, b, backend) for b, gone in direct if not gone]
    own = [(body, gone) for body, gone in direct if is_child(job.metadata, body)]
    theirs = [(b, gone) for b, gone in shown if _is_place_of_a_pod(job, b, backend)]
    makers = _makers(job, made)
    pods = [(b, gone) for b, gone in theirs if _is_made_by(b, makers, backend)]
    leases = [body for body, _ in own if body["kind"] == LEASE]
    reports = [_report(body) for body in leases]
    return Observed(
        children=tuple(sorted(made, key=lambda c: (c.kind, c.name))),
        pods=tuple(_attempt_pod(body, backend, gone) for body, gone in pods),
        reports=tuple(report for report in reports if report is not None),
        checks=tuple(_check_pod(body, gone) for body, gone in own if body["kind"] == POD),
        strays=tuple(
            Stray(b["metadata"]["name"], attempt_of(b) or 0, owner(b))
            for b, gone in theirs
            if not gone and not _is_made_by(b, makers, backend)
        ),
        renewals={attempt_of(b) or 0: str(b.get("spec", {}).get("renewTime")) for b in leases},
    )


def newest_warning(events: Iterable[Object]) -> str | None:
    """Return the message of an object's newest Event, unless things have gone well since; what a
    controller does before it fails often has the same second."""
    dated = [(e.get("lastTimestamp") or e.get("eventTime") or "", e) for e in events]
    if not dated:
        return None
    newest = max(dated, key=lambda pair: (pair[0], pair[1].get("type") == "Warning"))[1]
    return _said(newest, "message") or None if newest.get("type") == "Warning" else None


def _is_planned(job: FineTuneJob, body: Object) -> bool:
    """Tell whether an object has the name of one that the job makes itself."""
    name = body["metadata"]["name"]
    if body["kind"] == POD:
        return bool(name == reward_check_name(job.name))
    attempt = attempt_of(body)
    return bool(
        name == (shared_name(job.name) if attempt is None else attempt_name(job.name, attempt))
    )


def _is_place_of_a_pod(job: FineTuneJob, body: Object, backend: Backend) -> bool:
    """Tell whether an object has the name of a pod that an attempt's workload makes."""
    attempt = attempt_of(body)
    if body["kind"] != POD or attempt is None:
        return False
    rank, workload = backend.node_rank(body), attempt_name(job.name, attempt)
    if rank is None or rank >= job.spec.workers.replicas:
        return False
    return bool(body["metadata"]["name"] == backend.pod_name(workload, rank))


def _makers(job: FineTuneJob, made: Iterable[Child]) -> dict[int, str]:
    """Return the uid of each attempt's workload; the one in status stays the one."""
    mine = (c for c in made if c.workload and c.owner_uid == job.uid)
    makers = {c.attempt: c.uid for c in mine if c.attempt is not None}
    for attempt in (job.status and job.status.attempts) or ():
        if attempt.workload_uid is not None:
            makers[attempt.number] = attempt.workload_uid
    return makers


def _is_made_by(pod: Object, makers: dict[int, str], backend: Backend) -> bool:
    by = controller(pod)
    maker = makers.get(attempt_of(pod) or 0)
    return maker is not None and (by.get("kind"), by.get("uid")) == (backend.workload, maker)


def _child(job: FineTuneJob, body: Object, backend: Backend) -> Child:
    metadata, by = body["metadata"], controller(body)
    is_workload = body["kind"] == backend.workload
    return Child(
        kind=body["kind"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=by.get("uid") if (by.get("kind"), by.get("name")) == (KIND, job.name) else None,
        attempt=attempt_of(body),
        deleting="deletionTimestamp" in metadata,
        workload=is_workload,
        outcome=backend.outcome(body) if is_workload else None,
        held=backend.held(body) if is_workload else None,
    )


def _report(body: Object) -> Report | None:
    """Read the trainer's annotation; one that is no Progress is as good as none."""
    attempt = attempt_of(body)
    text = body["metadata"].get("annotations", {}).get(progress.ANNOTATION)
    time = timestamp(body.get("spec", {}).get("renewTime"))
    if attempt is None or text is None or time is None:
        return None
    told = progress.read(text)
    return Report(attempt, time, told) if told else None


def _attempt_pod(body: Object, backend: Backend, gone: bool) -> Pod:
    attempt, rank = attempt_of(body), backend.node_rank(body)
    assert attempt is not None, "its name was looked at"
    assert rank is not None, "its name was looked at"
    pod = _pod(body, attempt, rank, backend.container, gone)
    first = pod.init_failure
    if first is None or first.name != backend.init_container:
        return pod
    return replace(pod, init_failure=replace(first, waited=True))


def _check_pod(body: Object, gone: bool) -> Pod:
    """Return the pod that tries the rewards; if what reads their rows failed, that is its end."""
    pod = _pod(body, 1, 0, REWARDS_CONTAINER, gone)
    failed = _failed_init(body)
    if pod.end or failed is None or failed["name"] != ROWS_CONTAINER:
        return pod
    return replace(pod, end=_end(failed["state"]["terminated"]))


def _pod(body: Object, attempt: int, rank: int, container: str, gone: bool) -> Pod:
    status = body.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    containers = status.get("containerStatuses") or []
    main: dict[str, Any] = next((c for c in containers if c["name"] == container), {})
    disruption = conditions.get("DisruptionTarget", {})
    metadata = body["metadata"]
    due = timestamp(metadata.get("deletionTimestamp"))
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt,
        node_rank=rank,
        phase=status.get("phase", "Pending"),
        reason=_said(status, "reason"),
        message=_said(status, "message"),
        disrupted=_said(disruption, "message") or _said(disruption, "reason")
        if disruption.get("status") == "True"
        else None,
        disruption=disruption.get("reason", "") if disruption.get("status") == "True" else "",
        scheduled=timestamp(scheduled.get("lastTransitionTime"))
        if scheduled.get("status") == "True"
        else None,
        running="running" in main.get("state", {}),
        due=due,
        deleted=due and _asked_to_go(due, metadata.get("deletionGracePeriodSeconds") or 0),
        gone=gone,
        obstacle=_obstacle(status, scheduled),
        init_failure=_init_failure(body),
        end=_end(main.get("state", {}).get("terminated")),
        digest=content_digest(body),
        runner_crashes=_runner_crashes(status),
    )


def _asked_to_go(due: datetime, grace: int) -> datetime | None:
    """Return when a pod was deleted; None where whoever did it gave it more time than there is."""
    try:
        return due - timedelta(seconds=grace)
    except OverflowError:
        return None


def _obstacle(status: dict[str, Any], scheduled: dict[str, Any]) -> Obstacle | None:
    if scheduled.get("status") == "False":
        return Obstacle(_said(scheduled, "reason"), _said(scheduled, "message"))
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    found = [
        Obstacle(
            _said(waiting, "reason"), _said(waiting, "message") or f"image {_said(one, 'image')}"
        )
        for one in containers
        if (waiting := one.get("state", {}).get("waiting"))
        and waiting.get("reason") not in (None, "PodInitializing")
    ]
    # One that is merely being created may stand before the one that can not be.
    return min(found, key=lambda one: one.reason == "ContainerCreating", default=None)


def _init_failure(body: Object) -> InitFailure | None:
    failed = _failed_init(body)
    if failed is None:
        return None
    return InitFailure(printable(failed["name"]), failed["state"]["terminated"]["exitCode"])


def _failed_init(body: Object) -> dict[str, Any] | None:
    """Return the status of the init container that failed; a sidecar's end is no failure."""
    first = body.get("spec", {}).get("initContainers") or []
    sidecars = {c["name"] for c in first if c.get("restartPolicy") == "Always"}
    for container in body.get("status", {}).get("initContainerStatuses") or []:
        ended = container.get("state", {}).get("terminated")
        if container.get("name") not in sidecars and ended and ended.get("exitCode"):
            return dict(container)
    return None


def _runner_crashes(status: dict[str, Any]) -> Crashes | None:
    containers = status.get("initContainerStatuses") or []
    runner: dict[str, Any] = next((c for c in containers if c.get("name") == REWARDS_CONTAINER), {})
    restarts, state = runner.get("restartCount", 0), runner.get("state", {})
    ended = state.get("terminated") or runner.get("lastState", {}).get("terminated")
    if not restarts or "running" in state or ended is None:
        return None
    words = (ended.get("message") or "").strip()[-_LONGEST_WORDS:]
    return Crashes(restarts, ended.get("exitCode", 0), _said(ended, "reason"), printable(words))


def _end(terminated: dict[str, Any] | None) -> ContainerEnd | None:
    if terminated is None:
        return None
    return ContainerEnd(
        exit_code=terminated.get("exitCode", 0),
        reason=_said(terminated, "reason"),
        finished=timestamp(terminated.get("finishedAt")),
        result=decode(terminated.get("message") or ""),
    )


def _said(part: dict[str, Any], name: str) -> str:
    """Return what a kubelet, a scheduler, or whoever writes in their place, put there."""
    return printable(part.get(name) or "", _LONGEST_MESSAGE)
