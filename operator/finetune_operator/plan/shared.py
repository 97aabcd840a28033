"""What all pods of a job share, those that try its rewards included: an account and a policy."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import UID_LABEL, Object, child


def shared(job: FineTuneJob) -> tuple[Object, ...]:
    """Return what must exist before any pod; the user may have named an account of his own."""
    own_account = job.spec.workers.service_account_name is None
    return (*((service_account(job),) if own_account else ()), network_policy(job))


def service_account(job: FineTuneJob) -> Object:
    """Return it; its token is mounted by the pod template alone, into one container."""
    return child(job, "v1", "ServiceAccount", None, automountServiceAccountToken=False)


def network_policy(job: FineTuneJob) -> Object:
    """Return a policy by which only the job's own pods reach the job's pods: torch's rendezvous
    trusts whoever can reach it."""
    own = {"matchLabels": {UID_LABEL: job.uid}}
    spec = {
        "podSelector": own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": own}]}],
    }
    return child(job, "networking.k8s.io/v1", "NetworkPolicy", None, spec=spec)
