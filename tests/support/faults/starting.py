"""Rows: pods that are not made, or do not start."""

from __future__ import annotations

from typing import Any

from finetune_operator.cluster.api import ApiError
from support.faults.cluster import forbidden
from support.faults.day import Day
from support.faults.table import Fault, Strike

Json = Any
QUOTA = (
    "is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: 8, limited: 8"
)
FULL = "exceeded quota: jobs, requested: count/pytorchjobs.kubeflow.org=1, used: 5, limited: 5"
POD_SECURITY = 'is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
HOOK = "Internal error occurred: failed calling webhook"
HAS_NODE = {"type": "PodScheduled", "status": "True"}
NO_NODE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/8 nodes are available: 8 Insufficient nvidia.com/gpu.",
}
PULL_SECONDS = 1200
SCALE_UP_SECONDS = 300
INIT_SECONDS = 200  # init-pytorch's 100 tries, 2 s apart


def are_refused(why: str, *ranks: int) -> Strike:
    return lambda day: day.world.unfit.update(dict.fromkeys(ranks, why))


def is_let_in(day: Day) -> None:
    day.world.unfit.clear()
    day.world.stuck.clear()
    day.api.refusals.clear()


def waits(reason: str, message: str = "", container: str = "pytorch", event: str = "") -> Strike:
    """Keep a worker's container from starting."""
    one = {
        "name": container,
        "image": "i",
        "state": {"waiting": {"reason": reason, "message": message}},
    }
    status = {"conditions": [HAS_NODE], "containerStatuses": [one]}

    def strike(day: Day) -> None:
        day.world.stuck[1] = status
        if event:
            day.world.warnings[1] = event

    return strike


def creating(event: str) -> Strike:
    return waits("ContainerCreating", event=event)


def pulls_slowly(day: Day) -> None:
    waits("ContainerCreating")(day)
    day.world.pulls.add(1)
    day.later(PULL_SECONDS, day.world.stuck.clear)


def have_no_node(*ranks: int) -> Strike:
    status = {"conditions": [NO_NODE]}
    return lambda day: day.world.stuck.update(dict.fromkeys(ranks, status))


def scales_up_slowly(day: Day) -> None:
    """The master's node comes late; the worker's init container does not wait so long."""
    have_no_node(0)(day)
    first = {"name": "init-pytorch", "state": {"running": {}}}
    day.world.stuck[1] = {"conditions": [HAS_NODE], "initContainerStatuses": [first]}
    over = {"name": "init-pytorch", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    failed = {"phase": "Failed", "initContainerStatuses": [over]}
    day.later(INIT_SECONDS, lambda: day.world.show("bot-a1-worker-0", failed))
    day.later(SCALE_UP_SECONDS, day.world.stuck.clear)


def a_mesh_fails(day: Day) -> None:
    over = {"name": "istio-init", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    waits("PodInitializing")(day)
    failed = {"phase": "Failed", "initContainerStatuses": [over]}

    def fail() -> None:
        day.world.show("bot-a1-worker-0", failed)
        day.world.stuck.clear()

    day.later(5, fail)


def is_refused(kind: str, error: Exception) -> Strike:
    return lambda day: day.api.refusals.update({kind: error})


def queues(day: Day) -> None:
    day.world.queued = True


def is_admitted(day: Day) -> None:
    day.world.queued = False
    day.world.hold(False)


def is_gone(day: Day) -> None:
    day.world.controlled = False


def comes_back(day: Day) -> None:
    day.world.controlled = True


def is_away(day: Day) -> None:
    day.api.unserved.add("PyTorchJob")


def row(what: str, strike: Strike, mend: Strike = is_let_in) -> Fault:
    return Fault(what, strike, before=True, mend=mend)


def trained(what: str, strike: Strike) -> Fault:
    return Fault(f"{what}; the job has trained", strike, again=True, mend=is_let_in)


BACK_OFF = "back-off 5m0s restarting failed container=istio-proxy"
FAULTS = [
    row("a quota refuses one of the pods", are_refused(QUOTA, 1)),
    trained("a quota refuses one of the pods", are_refused(QUOTA, 1)),
    row("Pod Security refuses all pods", are_refused(POD_SECURITY, 0, 1)),
    row("a webhook of pods answers 500", are_refused(f'{HOOK} "mesh.example": 500', 1)),
    row("no node has room", have_no_node(0, 1)),
    row("no node has room for one of the pods", have_no_node(1)),
    Fault("a node comes late, init-pytorch gives up", scales_up_slowly, before=True),
    row("no such image", waits("ErrImagePull", "manifest unknown")),
    row(
        "the registry asks for fewer requests (429)",
        waits("ImagePullBackOff", "429 Too Many Requests"),
    ),
    trained(
        "the registry asks for fewer requests", waits("ImagePullBackOff", "429 Too Many Requests")
    ),
    row("a Secret is missing", waits("CreateContainerConfigError", 'secret "s3" not found')),
    row("a ConfigMap is missing", creating('configmap "code" not found')),
    row("a claim is missing", creating('persistentvolumeclaim "models" not found')),
    row("a volume is attached elsewhere", creating('Multi-Attach error for volume "pvc-1"')),
    row("the runtime can not make the container", waits("CreateContainerError", "no such device")),
    row("no IP for the pod", creating("Failed to create pod sandbox: no IP addresses left")),
    row("a sidecar crashes over and over", waits("CrashLoopBackOff", BACK_OFF, "istio-proxy")),
    row("an event that nobody knows", creating("the moon is full")),
    row("a node makes no container and says nothing", waits("ContainerCreating")),
    Fault("a large image is pulled for 20 minutes", pulls_slowly, before=True),
    Fault("a mesh's init container fails", a_mesh_fails, before=True),
    row("a queue holds the PyTorchJob", queues, is_admitted),
    row("training-operator does not work", is_gone, comes_back),
    row("PyTorchJob is not served yet", is_away, lambda day: day.api.unserved.clear()),
    row(
        "a webhook of PyTorchJobs is away",
        is_refused("PyTorchJob", ApiError(500, "InternalError", f'{HOOK} "v": connection refused')),
    ),
    row("a quota refuses the PyTorchJob", is_refused("PyTorchJob", forbidden("PyTorchJob", FULL))),
    trained(
        "a quota refuses the PyTorchJob", is_refused("PyTorchJob", forbidden("PyTorchJob", FULL))
    ),
    Fault(
        "a policy refuses the PyTorchJob",
        is_refused("PyTorchJob", forbidden("PyTorchJob", "denied by policy")),
        before=True,
    ),
    trained(
        "a policy refuses the PyTorchJob",
        is_refused("PyTorchJob", forbidden("PyTorchJob", "denied by policy")),
    ),
    row(
        "the operator lacks a right",
        is_refused(
            "PyTorchJob", forbidden("PyTorchJob", 'User "op" cannot create resource "pytorchjobs"')
        ),
    ),
]
