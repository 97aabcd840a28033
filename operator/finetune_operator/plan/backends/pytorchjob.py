"""Kubeflow training-operator v1: PyTorchJob."""

from __future__ import annotations

import re
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import child

_POD_NAME = re.compile(r"-(?P<role>master|worker)-(?P<index>\d+)$")


class PyTorchJob:
    """One master and N-1 workers; each is called `<name>-<role>-<index>`."""

    api_version = "kubeflow.org/v1"
    kind = "PyTorchJob"
    plural = "pytorchjobs"

    def workload(self, job: FineTuneJob, attempt: int, template: dict[str, Any]) -> dict[str, Any]:
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
        return child(job, self.api_version, self.kind, attempt, spec=spec)

    def node_rank(self, pod_name: str) -> int | None:
        """Return 0 for the master, i + 1 for worker i."""
        match = _POD_NAME.search(pod_name)
        if match is None:
            return None
        return 0 if match["role"] == "master" else int(match["index"]) + 1

    def outcome(self, workload: dict[str, Any]) -> bool | None:
        """Read the Succeeded and Failed conditions; both stay once they are true."""
        conditions = workload.get("status", {}).get("conditions") or []
        true = {c["type"] for c in conditions if c.get("status") == "True"}
        if "Succeeded" in true:
            return True
        return False if "Failed" in true else None


def _replica(count: int, template: dict[str, Any]) -> dict[str, Any]:
    return {"replicas": count, "restartPolicy": "Never", "template": template}
