"""What a PyTorchJob's status says about its pods (pure), as v1.9.4 judges them."""

import copy
from collections.abc import Sequence
from datetime import datetime, timedelta

from kube_emulator.client import Object
from kube_emulator.timestamps import timestamp
from kube_emulator.training_operator.pods import LABEL, REPLICA_TYPES, labels

RETRYABLE_FROM = 128
MANAGER = "kubeflow.org/training-operator"


def holds(status: Object, kind: str) -> bool:
    """Whether a condition is True."""
    return any(
        one["type"] == kind and one["status"] == "True" for one in status.get("conditions", [])
    )


def is_finished(status: Object) -> bool:
    return holds(status, "Succeeded") or holds(status, "Failed")


def is_suspended(job: Object) -> bool:
    return bool(job["spec"].get("runPolicy", {}).get("suspend"))


def is_ours(job: Object) -> bool:
    """Whether this controller manages the job: `managedBy` hands it to another one."""
    return str(job["spec"].get("runPolicy", {}).get("managedBy", MANAGER)) == MANAGER


def set_condition(
    status: Object, kind: str, value: str, reason: str, message: str, now: datetime
) -> None:
    """Add or replace a condition: nothing follows Failed; Running and Restarting replace each
    other; an end makes Running false."""
    if holds(status, "Failed"):
        return
    old = {one["type"]: one for one in status.get("conditions", [])}
    present = old.get(kind)
    if present and present["status"] == value and present["reason"] == reason:
        return
    stamp = timestamp(now)
    same_value = present is not None and present["status"] == value
    since = present["lastTransitionTime"] if same_value and present else stamp
    replaced = {kind} | {"Running": {"Restarting"}, "Restarting": {"Running"}}.get(kind, set())
    kept = [one for one in status.get("conditions", []) if one["type"] not in replaced]
    if kind in ("Failed", "Succeeded"):
        kept = [one | {"status": "False"} if one["type"] == "Running" else one for one in kept]
    condition = {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "lastUpdateTime": stamp,
        "lastTransitionTime": since,
    }
    status["conditions"] = [*kept, condition]


def begun(job: Object, now: datetime) -> Object:
    """A copy of the job's status with Created, and startTime once it may run."""
    status: Object = copy.deepcopy(job.get("status", {}))
    name = job["metadata"]["name"]
    if not any(one["type"] == "Created" for one in status.get("conditions", [])):
        text = f"PyTorchJob {name} is created."
        set_condition(status, "Created", "True", "PyTorchJobCreated", text, now)
    return status


def suspend(job: Object, status: Object, now: datetime) -> None:
    """Take note that the job is held: it has no start time and no replicas."""
    text = f"PyTorchJob {job['metadata']['name']} is suspended."
    if holds(status, "Running"):
        set_condition(status, "Running", "False", "PyTorchJobSuspended", text, now)
    set_condition(status, "Suspended", "True", "PyTorchJobSuspended", text, now)
    status.pop("startTime", None)
    status["replicaStatuses"] = {
        kind: {} for kind in REPLICA_TYPES if kind in job["spec"]["pytorchReplicaSpecs"]
    }


def resume(job: Object, status: Object, now: datetime) -> None:
    """Start, or start again after a suspension."""
    if holds(status, "Suspended"):
        text = f"PyTorchJob {job['metadata']['name']} is resumed."
        set_condition(status, "Suspended", "False", "PyTorchJobResumed", text, now)
    status.setdefault("startTime", timestamp(now))


def past_deadline(job: Object, status: Object, now: datetime) -> bool:
    """Whether activeDeadlineSeconds are over; only asked when something else happens."""
    seconds = job["spec"].get("runPolicy", {}).get("activeDeadlineSeconds")
    if seconds is None or "startTime" not in status:
        return False
    return now >= datetime.fromisoformat(status["startTime"]) + timedelta(seconds=seconds)


def expiry(job: Object) -> datetime | None:
    """When ttlSecondsAfterFinished are over; None for a job without, or without its end's time."""
    seconds = job["spec"].get("runPolicy", {}).get("ttlSecondsAfterFinished")
    ended = job.get("status", {}).get("completionTime")
    if seconds is None or ended is None:
        return None
    return datetime.fromisoformat(ended) + timedelta(seconds=seconds)


def fail(job: Object, status: Object, message: str, now: datetime, *, ended: bool = True) -> None:
    """Failed; `ended` False leaves completionTime out, as a permanent exit code does."""
    if ended:
        status.setdefault("completionTime", timestamp(now))
    set_condition(status, "Failed", "True", "PyTorchJobFailed", message, now)


def settled(job: Object) -> Object:
    """The status of a finished job: replicas that outlive a success count as succeeded."""
    status: Object = copy.deepcopy(job["status"])
    if holds(status, "Succeeded"):
        for counts in status.get("replicaStatuses", {}).values():
            if active := counts.pop("active", 0):
                counts["succeeded"] = counts.get("succeeded", 0) + active
    return status


def judge(job: Object, status: Object, pods: Sequence[Object], now: datetime) -> None:
    """Count the replicas and draw the conditions from them, Master before Worker."""
    name, specs = job["metadata"]["name"], job["spec"]["pytorchReplicaSpecs"]
    kinds = [kind for kind in REPLICA_TYPES if kind in specs]
    found = {kind: count([p for p in pods if _type_of(p) == kind.lower()]) for kind in kinds}
    filled: Object = {kind: {k: n for k, n in found[kind].items() if n} for kind in kinds}
    status["replicaStatuses"] = filled
    for kind, counts in found.items():
        chosen = labels(job, kind).items()
        filled[kind]["selector"] = ",".join(f"{key}={value}" for key, value in sorted(chosen))
        wanted = specs[kind].get("replicas", 1)
        if kind == "Master" and counts["active"]:
            text = f"PyTorchJob {name} is running."
            set_condition(status, "Running", "True", "PyTorchJobRunning", text, now)
        if kind == "Master" and counts["succeeded"] == wanted:
            status.setdefault("completionTime", timestamp(now))
            text = f"PyTorchJob {name} is successfully completed."
            set_condition(status, "Succeeded", "True", "PyTorchJobSucceeded", text, now)
            return
        if counts["failed"] and wanted > counts["succeeded"] + counts["active"]:
            _failed(job, status, kind, counts["failed"], now)


def _failed(job: Object, status: Object, kind: str, failed: int, now: datetime) -> None:
    name = job["metadata"]["name"]
    policy = job["spec"]["pytorchReplicaSpecs"][kind].get("restartPolicy") or "OnFailure"
    if policy == "Never":
        text = f"PyTorchJob {name} is failed because {failed} {kind} replica(s) failed."
        fail(job, status, text, now)
    else:
        text = f"PyTorchJob {name} is restarting because {failed} {kind} replica(s) failed."
        set_condition(status, "Restarting", "True", "PyTorchJobRestarting", text, now)


def count(pods: Sequence[Object]) -> dict[str, int]:
    """Active, succeeded and failed pods; one that runs but is being deleted counts as failed."""
    phases = [
        "Failed" if phase == "Running" and "deletionTimestamp" in one["metadata"] else phase
        for one in pods
        for phase in [one.get("status", {}).get("phase")]
    ]
    return {
        "active": phases.count("Running"),
        "succeeded": phases.count("Succeeded"),
        "failed": phases.count("Failed"),
    }


def exit_code(pod: Object) -> int:
    """The exit code of the `pytorch` container, 0 while it has none."""
    for one in pod.get("status", {}).get("containerStatuses", []):
        if one["name"] == "pytorch" and "terminated" in one["state"]:
            return int(one["state"]["terminated"]["exitCode"])
    return 0


def _type_of(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get(f"{LABEL}/replica-type"))
