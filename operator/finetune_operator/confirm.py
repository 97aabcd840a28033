"""Read a job's objects from the server, where a decision rests on one of them not being there."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_api.job import FineTuneJob
from finetune_api.status import AttemptState
from finetune_operator.cluster.api import Api, ApiError
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.sync import take_in
from finetune_operator.job.backend import Backend
from finetune_operator.job.names import JOB_LABEL, Object, attempt_name, attempt_of
from finetune_operator.job.resources import LEASE, POD
from finetune_operator.observe.observe import names_its_maker

_OVER = (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.SUSPENDED)


async def confirm(api: Api, cache: Cache, backend: Backend, job: FineTuneJob) -> None:
    """Take in what there is of the job. Raises ApiError or Unreachable."""
    key = Key(job.namespace, job.name)
    for kind in (*backend.kinds, POD, LEASE):
        try:
            await take_in(api, cache, kind, job.namespace, f"{JOB_LABEL}={job.name}", key)
        except ApiError as error:
            if error.code == 404:
                continue  # a kind that is not served has no objects
            raise
    makers = sorted(_makers(job, cache.children(key), backend))
    for kind, name in dict.fromkeys([*_once_there(job, backend), *makers]):
        if cache.find(key, kind, name) is None:
            found = await api.get(kind, job.namespace, name)
            if found is not None:
                cache.answered(found)


def _once_there(job: FineTuneJob, backend: Backend) -> list[tuple[str, str]]:
    """Return kinds and names of what may run, or lets something run: a label may have been taken
    from it, and lists go by labels. A pod that nobody reaches runs for as long as its Lease stands,
    so the one before the present attempt's has to be gone too."""
    attempts = (job.status and job.status.attempts) or ()
    leases = [(LEASE, attempt_name(job.name, attempt.number)) for attempt in attempts[-2:]]
    last = attempts[-1] if attempts else None
    if last is None or last.state in _OVER or last.workload_uid is None:
        return leases
    workload = attempt_name(job.name, last.number)
    ranks = range(job.spec.workers.replicas if last.pod_uids else 0)
    pods = [(POD, backend.pod_name(workload, rank)) for rank in ranks]
    return [(backend.workload, workload), *pods, *leases]


def _makers(job: FineTuneJob, children: Iterable[Object], backend: Backend) -> set[tuple[str, str]]:
    """Return kinds and names of what the pods say that made them, whatever is recorded."""
    pods = (body for body in children if body["kind"] == POD)
    attempts = {attempt_of(pod) or 0 for pod in pods if names_its_maker(job, pod, backend)}
    return {(backend.workload, attempt_name(job.name, attempt)) for attempt in attempts}
