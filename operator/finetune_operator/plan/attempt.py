"""The objects of one attempt: what its pods need first, and what starts them."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt, MemoryStatus, PlanStatus, RoleStatus
from finetune_api.workers import GPU
from finetune_contract.resolved import MemoryEstimate, Resolved
from finetune_operator.job.names import Object
from finetune_operator.job.run_config import run_config
from finetune_operator.plan.backends import Backend
from finetune_operator.plan.config_map import config_map
from finetune_operator.plan.lease import lease
from finetune_operator.plan.network_policy import network_policy
from finetune_operator.plan.pod import pod_template
from finetune_operator.plan.role import role, role_binding
from finetune_operator.plan.service_account import service_account
from finetune_operator.plan.volumes import pod_mounts


@dataclass(frozen=True)
class Objects:
    """`prepared` are written side by side; `workload` comes last and once."""

    prepared: tuple[Object, ...]
    workload: Object


def attempt_objects(
    job: FineTuneJob, attempt: Attempt, backend: Backend, heartbeat_seconds: float
) -> Objects:
    """Return every object that must exist while the attempt runs."""
    number = attempt.number
    config = run_config(
        job,
        attempt=number,
        uid=job.uid,
        image=attempt.image,
        micro_batch_size=attempt.micro_batch_size,
        heartbeat_seconds=heartbeat_seconds,
        mounts=pod_mounts(job),
        gpus=_asks_for_gpus(job),
    )
    own_account = job.spec.workers.service_account_name is None
    prepared = (
        *((service_account(job),) if own_account else ()),
        network_policy(job),
        config_map(job, number, config),
        role(job, number),
        role_binding(job, number),
        lease(job, number),
    )
    return Objects(
        prepared, backend.workload(job, number, pod_template(job, number, attempt.image))
    )


def _asks_for_gpus(job: FineTuneJob) -> bool:
    resources = job.spec.workers.resources
    return GPU in ((resources.limits if resources else None) or {})


def plan_status(job: FineTuneJob, micro_batch_size: int | None) -> PlanStatus:
    """Return how the job's size was resolved, before a trainer has told more."""
    processes = job.spec.workers.replicas * job.spec.workers.processes_per_worker
    return PlanStatus(
        **_size(job),
        micro_batch_size=micro_batch_size,
        accumulation_steps=micro_batch_size
        and job.spec.training.global_batch_size // (micro_batch_size * processes),
    )


def told_plan(job: FineTuneJob, plan: Resolved) -> PlanStatus:
    """Return the plan with all that the trainer resolved."""
    lora = [RoleStatus(role=r.role, found=r.found, adapted=r.adapted) for r in plan.lora]
    return PlanStatus(
        **_size(job),
        micro_batch_size=plan.micro_batch_size,
        accumulation_steps=plan.accumulation_steps,
        zero_stage=int(plan.zero_stage),
        gradient_checkpointing=plan.gradient_checkpointing,
        packing=plan.packing,
        memory=_memory(plan.memory),
        lora=lora or None,
    )


def _size(job: FineTuneJob) -> dict[str, int]:
    workers = job.spec.workers
    processes = workers.replicas * workers.processes_per_worker
    limits = (workers.resources.limits if workers.resources else None) or {}
    gpus = processes if GPU in limits else 0
    return {"workers": workers.replicas, "processes": processes, "gpus": gpus}


def _memory(estimate: MemoryEstimate) -> MemoryStatus:
    return MemoryStatus(estimate=estimate.total, **estimate.model_dump())
