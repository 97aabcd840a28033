"""Kubeflow training-operator v1: PyTorchJob."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import Object, child
from finetune_operator.job.parts import part, parts, words
from finetune_operator.job.resources import Resource

_POD_NAME = re.compile(r"-(?P<role>master|worker)-(?P<index>\d+)$")


class PyTorchJob:
    """One master and N-1 workers; each is called `<name>-<role>-<index>`."""

    workload = "PyTorchJob"
    kinds: Mapping[str, Resource] = {workload: Resource("kubeflow.org/v1", "pytorchjobs")}
    container = "pytorch"
    init_container = "init-pytorch"
    # Of training-operator: it deletes the pods that still run; the ended ones stay, for their logs.
    clean_up = timedelta(seconds=30)

    def objects(self, job: FineTuneJob, attempt: int, template: Object) -> tuple[Object, ...]:
        """Return the PyTorchJob.

        `restartPolicy: Never` and no limits of its own, because restarts and deadlines are the
        operator's; `cleanPodPolicy: Running` keeps the ended pods and so their logs.
        """
        workers = job.spec.workers
        replicas = {"Master": _replica(1, template)}
        if workers.replicas > 1:
            replicas["Worker"] = _replica(workers.replicas - 1, template)
        spec = {
            "nprocPerNode": str(workers.processes_per_worker),
            "runPolicy": {"cleanPodPolicy": "Running", "suspend": False},
            "pytorchReplicaSpecs": replicas,
        }
        resource = self.kinds[self.workload]
        return (child(job, resource.api_version, self.workload, attempt, spec=spec),)

    def pod_name(self, workload: str, rank: int) -> str:
        """Return the name that training-operator gives a pod."""
        return f"{workload}-worker-{rank - 1}" if rank else f"{workload}-master-0"

    def node_rank(self, pod: Object) -> int | None:
        """Return 0 for the master, i + 1 for worker i."""
        match = _POD_NAME.search(pod["metadata"]["name"])
        if match is None:
            return None
        return 0 if match["role"] == "master" else int(match["index"]) + 1

    def held(self, workload: Object) -> str | None:
        """Return what a queue or a gang scheduler does: the one suspends it, the other lets
        training-operator look at it without starting it."""
        if part(part(workload, "spec"), "runPolicy").get("suspend"):
            return "is suspended, as by a queue that has not admitted it"
        status = part(workload, "status")
        if "lastReconcileTime" in status and "startTime" not in status:
            return "waits for its PodGroup"
        return None

    def repeats(self, event: Object) -> bool:
        """Look for what it begins conditions and containers of pods with, of those that merely
        start too."""
        return str(event.get("message") or "").startswith("Error pod ")

    def outcome(self, workload: Object) -> bool | None:
        """Read the Succeeded and Failed conditions; both stay once they are true."""
        conditions = parts(part(workload, "status"), "conditions")
        true = {words(c, "type") for c in conditions if c.get("status") == "True"}
        if "Succeeded" in true:
            return True
        return False if "Failed" in true else None


def _replica(count: int, template: Object) -> Object:
    return {"replicas": count, "restartPolicy": "Never", "template": template}
