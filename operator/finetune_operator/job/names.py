"""Names of a job's children, the labels by which they are found again, and who owns them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

from finetune_api.job import GROUP, KIND, VERSION, FineTuneJob
from finetune_contract.foreign import printable
from finetune_contract.model import canonical_json, sha256_digest

Object = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "finetune-operator"
JOB_LABEL = f"{GROUP}/job"
UID_LABEL = f"{GROUP}/job-uid"
ATTEMPT_LABEL = f"{GROUP}/attempt"
DIGEST_ANNOTATION = f"{GROUP}/plan"
SELECTOR = f"{MANAGED_BY}={MANAGER}"
REWARDS_CONTAINER = "rewards"  # where the user's reward functions run
ROWS_CONTAINER = "rows"  # of the pod that tries them; it reads the rows
_PLANNED = re.compile(
    r"(?P<job>.+)-(?:a(?P<attempt>[1-9]\d{0,8})(?:-.+)?|finetune|rewards)", re.ASCII
)


def attempt_name(job_name: str, attempt: int) -> str:
    """Return the name of an attempt's workload, ConfigMap, Role, RoleBinding and Lease."""
    return f"{job_name}-a{attempt}"


def shared_name(job_name: str) -> str:
    """Return the name of the ServiceAccount and the NetworkPolicy that all attempts share."""
    return f"{job_name}-finetune"


def reward_check_name(job_name: str) -> str:
    """Return the name of the pod that tries the rewards before the first attempt."""
    return f"{job_name}-rewards"


def service_account_name(job: FineTuneJob) -> str:
    """Return the ServiceAccount that the pods run as: the user's, or the job's own."""
    return job.spec.workers.service_account_name or shared_name(job.name)


def labels(job: FineTuneJob, attempt: int | None = None) -> dict[str, str]:
    """Return the labels of a child; one that belongs to an attempt says to which.

    The uid tells apart the children of a deleted job and of a new one with its name.
    """
    known = {MANAGED_BY: MANAGER, JOB_LABEL: job.name, UID_LABEL: job.uid}
    return known if attempt is None else {**known, ATTEMPT_LABEL: str(attempt)}


class Place(NamedTuple):
    """The job that an object's name has room for, and the attempt; None if all of them share it."""

    job: str
    attempt: int | None


def place(body: Object) -> Place | None:
    """Return where an object belongs by its name, which unlike a label nobody can change."""
    match = _PLANNED.fullmatch(body["metadata"]["name"])
    return match and Place(match["job"], int(match["attempt"]) if match["attempt"] else None)


def attempt_of(body: Object) -> int | None:
    """Return the attempt that an object belongs to by its name."""
    found = place(body)
    return found.attempt if found else None


def controller(body: Object) -> Object:
    """Return the reference to the object that controls this one; empty where none does."""
    for reference in body["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return cast(Object, reference)
    return {}


def owner(body: Object) -> str:
    """Return what controls an object, in words."""
    by = controller(body)
    return printable(f"{by.get('kind')} {by.get('name')}", 200) if by else "nobody"


def is_child(job: Object, body: Object) -> bool:
    """Tell whether the job of this metadata made the object: labels say nothing, its controller's
    uid does."""
    by = controller(body)
    return (by.get("kind"), by.get("name"), by.get("uid")) == (KIND, job["name"], job["uid"])


def content_digest(body: Object) -> str | None:
    """Return the digest of the content that a child was written with; None if it says none."""
    annotations = body["metadata"].get("annotations") or {}
    digest: str | None = annotations.get(DIGEST_ANNOTATION)
    return digest


def child(
    job: FineTuneJob,
    api_version: str,
    kind: str,
    attempt: int | None,
    *,
    name: str | None = None,
    annotations: dict[str, str] | None = None,
    **content: Any,
) -> Object:
    """Return a child of the job; of one attempt, or (with None) shared by all of them.

    It goes with its owner, but does not hold up the owner's deletion. One annotation is a digest of
    the content, so that what has not changed is not written again.
    """
    usual = shared_name(job.name) if attempt is None else attempt_name(job.name, attempt)
    compared = {"annotations": annotations, **content} if annotations else content
    digest = sha256_digest(canonical_json(compared).encode())[7:23]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name or usual,
            "namespace": job.namespace,
            "labels": labels(job, attempt),
            "annotations": {**(annotations or {}), DIGEST_ANNOTATION: digest},
            "ownerReferences": [
                {
                    "apiVersion": f"{GROUP}/{VERSION}",
                    "kind": KIND,
                    "name": job.name,
                    "uid": job.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **content,
    }
