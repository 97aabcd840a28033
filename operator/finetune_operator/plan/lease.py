"""The Lease that an attempt's rank 0 renews, and the right to do so, and nothing else."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import Object, attempt_name, child, service_account_name

_GROUP = "rbac.authorization.k8s.io"


def lease(job: FineTuneJob, attempt: int) -> Object:
    """Return it empty; everything in its spec is the trainer's."""
    return child(job, "coordination.k8s.io/v1", "Lease", attempt, spec={})


def role(job: FineTuneJob, attempt: int) -> Object:
    """Return the Role; it names the one Lease."""
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [attempt_name(job.name, attempt)],
        "verbs": ["get", "patch"],
    }
    return child(job, f"{_GROUP}/v1", "Role", attempt, rules=[rule])


def role_binding(job: FineTuneJob, attempt: int) -> Object:
    """Return the binding to the ServiceAccount of the pods."""
    account = {
        "kind": "ServiceAccount",
        "name": service_account_name(job),
        "namespace": job.namespace,
    }
    reference = {"apiGroup": _GROUP, "kind": "Role", "name": attempt_name(job.name, attempt)}
    return child(job, f"{_GROUP}/v1", "RoleBinding", attempt, roleRef=reference, subjects=[account])
