"""Rows: pods that the cluster, or someone, takes away."""

from __future__ import annotations

from finetune_operator.cluster.api import ApiError
from support.faults.day import Day
from support.faults.ends import ends
from support.faults.table import Fault, Strike

MASTER, WORKER = 0, 1
# Kubernetes' defaults: a node that is silent for so long is not ready, and its pods tolerate that.
SILENT_SECONDS, TOLERATED_SECONDS = 50, 300
OVER_ITS_LIMIT = "Pod ephemeral local storage usage exceeds the total limit of containers 10Gi. "


def goes(rank: int, why: str = "", saves: bool = True) -> Strike:
    """Delete a pod; its trainers may have time for a checkpoint."""

    def strike(day: Day) -> None:
        day.world.polite = saves
        day.world.delete_pod(day.pod(rank), why)

    return strike


def fails(reason: str, message: str) -> Strike:
    """Let a kubelet end a pod, whose trainer had no time to tell anything."""

    def strike(day: Day) -> None:
        name = day.pod(WORKER)
        day.world.show(name, {"phase": "Failed", "reason": reason, "message": message})

    return strike


def falls_silent(day: Day) -> None:
    name, day.at_work = day.pod(WORKER), False
    day.world.unreachable.add(name)
    wait = SILENT_SECONDS + TOLERATED_SECONDS
    day.later(wait, lambda: day.world.delete_pod(name, "DeletionByTaintManager"))
    day.once(lambda: day.attempt > 1, lambda: setattr(day, "at_work", True))


def runs_on(strike: Strike) -> Strike:
    """Have pods that hold a sidecar which does not end by itself."""

    def with_sidecars(day: Day) -> None:
        day.world.sidecars = True
        strike(day)

    return with_sidecars


def succeeds(day: Day) -> None:
    for rank in (WORKER, MASTER):
        day.world.end(day.pod(rank), "Succeeded")


def is_removed(day: Day) -> None:
    goes(WORKER, "DeletionByPodGC", saves=False)(day)


def loses_its_workload(day: Day) -> None:
    day.world.polite = True
    day.world.drop("PyTorchJob", "bot-a1")


def is_orphaned(day: Day) -> None:
    """Delete the PyTorchJob as `--cascade=orphan` does."""
    day.world.polite = True
    day.world.orphan("bot-a1")


def nobody_collects(strike: Strike) -> Strike:
    def strike_alone(day: Day) -> None:
        day.world.collected = False
        strike(day)

    return strike_alone


def are_kept(day: Day) -> None:
    """Have a webhook that lets no pod be deleted, and a garbage collector that it keeps from it."""
    nobody_collects(loses_its_workload)(day)
    denied = 'admission webhook "keep.example" denied the request: pods are kept'
    day.api.undeletable["Pod"] = ApiError(403, "Forbidden", denied)


def are_let_go(day: Day) -> None:
    day.api.undeletable.clear()


GPU = RuntimeError("CUDA error: uncorrectable ECC error encountered")
EVICTION, PREEMPTION = "EvictionByEvictionAPI", "PreemptionByScheduler"

FAULTS = [
    Fault("a node is drained", goes(WORKER, EVICTION)),
    Fault("a node is drained, no time for a checkpoint", goes(WORKER, EVICTION, saves=False)),
    Fault("a spot node shuts down", goes(MASTER, "TerminationByKubelet")),
    Fault("a node runs low on memory or disk", fails("Evicted", "The node was low on resource")),
    Fault("a pod of higher priority takes the place", goes(MASTER, PREEMPTION)),
    Fault("someone deletes a pod", goes(MASTER)),
    Fault("someone deletes the PyTorchJob", loses_its_workload),
    Fault("… and the garbage collector is down", nobody_collects(loses_its_workload)),
    Fault("… and orphans its pods (`--cascade=orphan`)", is_orphaned),
    Fault("… and a webhook denies the deletion of its pods", are_kept, mend=are_let_go),
    Fault("a node is gone, its Node deleted", is_removed),
    Fault("a node falls silent for good", falls_silent),
    Fault("a sidecar runs on after a failure", runs_on(ends(KeyError("x")))),
    Fault("… after success", runs_on(succeeds)),
    Fault("a GPU reports a fault (ECC, Xid)", ends(GPU)),
    Fault("a pod passes its ephemeral-storage limit", fails("Evicted", OVER_ITS_LIMIT)),
]
