"""Names of a job's children and the labels by which they are found again."""

from __future__ import annotations

GROUP = "finetune.dev"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "finetune-operator"
JOB_LABEL = f"{GROUP}/job"
ATTEMPT_LABEL = f"{GROUP}/attempt"
SELECTOR = f"{MANAGED_BY}={MANAGER}"


def attempt_name(job_name: str, attempt: int) -> str:
    """Return the name of an attempt's PyTorchJob, ConfigMap, Role, RoleBinding and Lease."""
    return f"{job_name}-a{attempt}"


def shared_name(job_name: str) -> str:
    """Return the name of the ServiceAccount and the NetworkPolicy that all attempts share."""
    return f"{job_name}-finetune"


def job_labels(job_name: str) -> dict[str, str]:
    """Return the labels of every child of a job."""
    return {MANAGED_BY: MANAGER, JOB_LABEL: job_name}


def attempt_labels(job_name: str, attempt: int) -> dict[str, str]:
    """Return the labels of a child of one attempt, its pods included."""
    return {**job_labels(job_name), ATTEMPT_LABEL: str(attempt)}
