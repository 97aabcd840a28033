"""What is to be written, in which order, and what all pods of a job share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_contract.progress import ANNOTATION
from finetune_operator.job.kept import kept
from finetune_operator.job.names import UID_LABEL, Object, child
from finetune_operator.job.resources import LEASE


@dataclass(frozen=True)
class Objects:
    """`prepared` are written side by side; then `bound`, which an API server refuses while what
    they refer to is not there; `started` come after them, one by one and once. Of what was `given`
    to the pods nothing is compared: by kind and name it is there."""

    prepared: tuple[Object, ...]
    bound: tuple[Object, ...]
    started: tuple[Object, ...]
    given: tuple[tuple[str, str], ...] = ()


def is_as_planned(known: Object, planned: Object, begun: bool) -> bool:
    """Tell whether an object, as it is kept, stands as planned; what others add beside that, such
    as a label, is theirs.

    `begun`: the pods have been asked for. From then on the ConfigMap is what they were given,
    whatever a newer operator would plan, and the trainer writes the Lease.
    """
    if begun and planned["kind"] == "ConfigMap":
        return True
    planned = kept(planned)
    parts = {part for part in planned if part != "metadata"}
    metadata = ["labels", "annotations"]
    if planned["kind"] == LEASE:
        told = ANNOTATION in (known["metadata"].get("annotations") or {})
        if not begun and (told or known.get("spec")):
            return False
        parts, metadata = set(), ["labels"]
    return all(_holds(known.get(part), planned[part]) for part in parts) and all(
        (known["metadata"].get(field) or {}).items() >= planned["metadata"][field].items()
        for field in metadata
    )


def _holds(found: Any, planned: Any) -> bool:
    """Tell whether a part is as planned; to names, such as imagePullSecrets, others may add."""
    if isinstance(planned, list) and all(one.keys() == {"name"} for one in planned):
        return all(one in (found or ()) for one in planned)
    return bool(found == planned)


def shared(job: FineTuneJob, pull_secrets: Sequence[str]) -> tuple[Object, ...]:
    """Return what the pods of any attempt, and the one that tries the rewards, need."""
    if job.spec.workers.service_account_name is not None:
        return (network_policy(job),)
    return (_service_account(job, pull_secrets), network_policy(job))


def _service_account(job: FineTuneJob, pull_secrets: Sequence[str]) -> Object:
    # Its token is mounted by the pod template alone, into one container.
    content: Object = {"automountServiceAccountToken": False}
    if pull_secrets:  # admission hands them to each pod
        content["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    return child(job, "v1", "ServiceAccount", None, **content)


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
