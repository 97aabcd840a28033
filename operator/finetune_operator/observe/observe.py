"""What the cluster shows of one job: cache -> Observed."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_api.job import KIND, FineTuneJob
from finetune_contract import progress
from finetune_operator.job.backend import Backend
from finetune_operator.job.names import (
    Object,
    attempt_name,
    attempt_of,
    controller,
    is_child,
    owner,
    reward_check_name,
    shared_name,
)
from finetune_operator.job.parts import part, words
from finetune_operator.job.resources import LEASE, POD
from finetune_operator.job.times import timestamp
from finetune_operator.observe.observed import Child, Observed, Report, Sign, Stray
from finetune_operator.observe.pods import attempt_pod, check_pod


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
    makers = _makers(job)
    made = [_child(job, b, makers, backend) for b, gone in direct if not gone]
    own = [(body, gone) for body, gone in direct if is_child(job.metadata, body)]
    theirs = [(b, gone) for b, gone in shown if _is_place_of_a_pod(job, b, backend)]
    recorded = _recorded(job)
    pods = [(b, gone) for b, gone in theirs if _is_made_by(b, makers, backend, recorded)]
    leases = [body for body, _ in own if body["kind"] == LEASE]
    reports = [_report(body) for body in leases]
    return Observed(
        children=tuple(sorted(made, key=lambda c: (c.kind, c.name))),
        pods=tuple(attempt_pod(body, backend, gone) for body, gone in pods),
        reports=tuple(report for report in reports if report is not None),
        checks=tuple(check_pod(body, gone) for body, gone in own if body["kind"] == POD),
        strays=tuple(
            Stray(b["metadata"]["name"], attempt_of(b) or 0, owner(b))
            for b, gone in theirs
            if not gone
            and not _is_made_by(b, {**_unrecorded(job, made), **makers}, backend, recorded)
        ),
        kin=tuple(
            attempt_pod(b, backend, gone)
            for b, gone in theirs
            if not gone
            and names_its_maker(job, b, backend)
            and not _is_made_by(b, makers, backend, recorded)
        ),
        renewals={attempt_of(b) or 0: words(part(b, "spec"), "renewTime") for b in leases},
    )


def names_its_maker(job: FineTuneJob, pod: Object, backend: Backend) -> bool:
    """Tell whether a pod says that its attempt's workload made it, whichever had the name."""
    by, maker = controller(pod), attempt_name(job.name, attempt_of(pod) or 0)
    return (by.get("kind"), by.get("name")) == (backend.workload, maker)


def newest(events: Iterable[Object]) -> Sign | None:
    """Return an object's newest Event; what a controller does before it fails often has the same
    second."""
    found = max(events, key=lambda e: (_second_of(e), e.get("type") == "Warning"), default=None)
    if found is None:
        return None
    time = timestamp(f"{_second_of(found)}Z")
    return Sign(
        found.get("type") == "Warning", words(found, "reason"), words(found, "message"), time
    )


def _second_of(event: Object) -> str:
    """Return when an Event happened last; recorders of either API say it in fields of their own."""
    last = words(part(event, "series"), "lastObservedTime") or words(event, "lastTimestamp")
    return (last or words(event, "eventTime"))[: len("2026-01-01T00:00:00")]


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
    attempt = attempt_of(body) if body["kind"] == POD else None
    if attempt is None:
        return False
    rank, workload = backend.node_rank(body), attempt_name(job.name, attempt)
    if rank is None or rank >= job.spec.workers.replicas:
        return False
    return bool(body["metadata"]["name"] == backend.pod_name(workload, rank))


def _makers(job: FineTuneJob) -> dict[int, str]:
    """Return the uid of each attempt's workload, as recorded once it stood as planned."""
    attempts = (job.status and job.status.attempts) or ()
    return {a.number: a.workload_uid for a in attempts if a.workload_uid is not None}


def _unrecorded(job: FineTuneJob, made: Iterable[Child]) -> dict[int, str]:
    """Return the uid of what stands where a workload is to be, by attempt. Its pods are in nobody's
    way, but it may have been put there: it is looked at before they are believed."""
    mine = (c for c in made if c.workload and c.owner_uid == job.uid)
    return {c.attempt: c.uid for c in mine if c.attempt is not None}


def _recorded(job: FineTuneJob) -> set[str]:
    """Return the uids of pods that an attempt was seen to be made of."""
    attempts = (job.status and job.status.attempts) or ()
    return {uid for attempt in attempts for uid in attempt.pod_uids or ()}


def _is_made_by(pod: Object, makers: dict[int, str], backend: Backend, recorded: set[str]) -> bool:
    """Tell whether a workload made a pod; one that was seen to be of it stays so, though whoever
    deleted the workload orphaned it."""
    if pod["metadata"]["uid"] in recorded:
        return True
    by = controller(pod)
    maker = makers.get(attempt_of(pod) or 0)
    return maker is not None and (by.get("kind"), by.get("uid")) == (backend.workload, maker)


def _child(job: FineTuneJob, body: Object, makers: dict[int, str], backend: Backend) -> Child:
    metadata, by = body["metadata"], controller(body)
    is_workload = body["kind"] == backend.workload
    owner_uid = by.get("uid") if (by.get("kind"), by.get("name")) == (KIND, job.name) else None
    if metadata["uid"] in makers.values():  # whoever it is said to belong to since
        owner_uid = job.uid
    return Child(
        kind=body["kind"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=owner_uid,
        attempt=attempt_of(body),
        deleting="deletionTimestamp" in metadata,
        workload=is_workload,
        outcome=backend.outcome(body) if is_workload else None,
        held=backend.held(body) if is_workload else None,
        created=timestamp(metadata.get("creationTimestamp")) if is_workload else None,
    )


def _report(body: Object) -> Report | None:
    """Read the trainer's annotation; one that is no Progress is as good as none."""
    attempt = attempt_of(body)
    text = part(body["metadata"], "annotations").get(progress.ANNOTATION)
    time = timestamp(part(body, "spec").get("renewTime"))
    if attempt is None or text is None or time is None:
        return None
    told = progress.read(text)
    return Report(attempt, time, told) if told else None
