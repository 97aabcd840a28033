"""The NetworkPolicy: torch's rendezvous trusts whoever can reach it."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import UID_LABEL, Object, child


def network_policy(job: FineTuneJob) -> Object:
    """Return a policy by which only the job's own pods reach the job's pods."""
    own = {"matchLabels": {UID_LABEL: job.uid}}
    spec = {
        "podSelector": own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": own}]}],
    }
    return child(job, "networking.k8s.io/v1", "NetworkPolicy", None, spec=spec)
