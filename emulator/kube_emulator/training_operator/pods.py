"""The pods and services that a PyTorchJob wants (pure).

Follows training-operator v1.9.4: names `<job>-<master|worker>-<index>`, labels, variables and the
init container of workers.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kube_emulator.client import Object

API_VERSION: Final = "kubeflow.org/v1"
KIND: Final = "PyTorchJob"
LABEL = "training.kubeflow.org"
REPLICA_TYPES = ("Master", "Worker")
PORT_NAME = "pytorchjob-port"
INIT_IMAGE = "alpine:3.10"


@dataclass(frozen=True)
class Replica:
    """One pod of a job: `kind` is Master or Worker."""

    kind: str
    index: int
    restart_policy: str
    template: Object

    def name(self, job: Object) -> str:
        return f"{job['metadata']['name']}-{self.kind.lower()}-{self.index}"


@dataclass(frozen=True)
class InitWait:
    """How long workers wait for the master's name."""

    tries: int
    seconds: float


def replicas(job: Object) -> Iterator[Replica]:
    """Every pod that the job wants, the master first."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    for kind in REPLICA_TYPES:
        if kind in specs:
            policy = specs[kind].get("restartPolicy") or "OnFailure"
            for index in range(specs[kind].get("replicas", 1)):
                yield Replica(kind, index, policy, specs[kind]["template"])


def job_labels(job: Object) -> dict[str, str]:
    """What every pod and service of the job bears."""
    return {
        f"{LABEL}/operator-name": "pytorchjob-controller",
        f"{LABEL}/job-name": job["metadata"]["name"],
    }


def labels(job: Object, kind: str, index: int | None = None) -> dict[str, str]:
    """The job's labels and those of one replica type or replica."""
    found = job_labels(job) | {f"{LABEL}/replica-type": kind.lower()}
    return found if index is None else found | {f"{LABEL}/replica-index": str(index)}


def owner(job: Object) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod(job: Object, replica: Replica, port: int, wait: InitWait) -> Object:
    """The pod of one replica; `port` is the job's rendezvous port."""
    template = copy.deepcopy(replica.template)
    meta, spec = template.get("metadata", {}), template["spec"]
    role = {f"{LABEL}/job-role": "master"} if replica.kind == "Master" else {}
    # a controller that decides by exit code must see the pod end
    policy = "Never" if replica.restart_policy == "ExitCode" else replica.restart_policy
    spec["restartPolicy"] = policy
    for container in spec["containers"]:
        container["env"] = [*container.get("env", []), *_variables(job, replica, port)]
    if replica.kind == "Worker" and "Master" in job["spec"]["pytorchReplicaSpecs"]:
        spec["initContainers"] = [*spec.get("initContainers", []), _init_container(job, wait)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": replica.name(job),
            "namespace": job["metadata"]["namespace"],
            "labels": meta.get("labels", {}) | labels(job, replica.kind, replica.index) | role,
            "annotations": meta.get("annotations", {}),
            "ownerReferences": [owner(job)],
        },
        "spec": spec,
    }


def service(job: Object, replica: Replica, port: int) -> Object:
    """The headless service that gives one replica its name."""
    own = labels(job, replica.kind, replica.index)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": replica.name(job),
            "namespace": job["metadata"]["namespace"],
            "labels": own,
            "ownerReferences": [owner(job)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": own,
            "ports": [{"name": PORT_NAME, "port": port, "targetPort": port}],
        },
    }


def _variables(job: Object, replica: Replica, port: int) -> list[Object]:
    total = sum(1 for _ in replicas(job))
    has_master = "Master" in job["spec"]["pytorchReplicaSpecs"]
    rank = replica.index + (1 if replica.kind == "Worker" and has_master else 0)
    per_node = job["spec"].get("nprocPerNode", "auto")
    world = total * int(per_node) if per_node.isdecimal() else total
    master = f"{job['metadata']['name']}-master-0"
    values = {
        "PYTHONUNBUFFERED": "1",
        "MASTER_PORT": str(port),
        "PET_MASTER_PORT": str(port),
        "MASTER_ADDR": master,
        "PET_MASTER_ADDR": master,
        "WORLD_SIZE": str(world),
        "RANK": str(rank),
        "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": per_node,
        "PET_NNODES": str(total),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _init_container(job: Object, wait: InitWait) -> Object:
    """Waits for the master's name, which its service shows once the pod is ready."""
    master = f"{job['metadata']['name']}-master-0"
    script = (
        f"for i in $(seq {wait.tries}); do getent hosts {master} && exit 0; "
        f"echo waiting for master; sleep {wait.seconds:g}; done; exit 1"
    )
    return {
        "name": "init-pytorch",
        "image": INIT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "resources": {
            "limits": {"cpu": "100m", "memory": "20Mi"},
            "requests": {"cpu": "50m", "memory": "10Mi"},
        },
    }
