"""What spec.workers asks for: processes, and resources of each worker's container."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_api.workers import GPU


def processes(job: FineTuneJob) -> int:
    """Return the number of processes of all workers together."""
    return job.spec.workers.replicas * job.spec.workers.processes_per_worker


def asks_for_gpus(job: FineTuneJob) -> bool:
    """Tell whether the trainer must find GPUs."""
    return GPU in job.spec.workers.limits


def extended_resources(job: FineTuneJob) -> list[str]:
    """Return the names of the devices, such as nvidia.com/gpu, that each worker asks for."""
    return [
        name for name in job.spec.workers.limits if "/" in name and "kubernetes.io/" not in name
    ]


def image(job: FineTuneJob, usual: str) -> str:
    """Return the image of the pods: the job's own, or the usual one."""
    return job.spec.workers.image or usual
