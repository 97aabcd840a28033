"""Jobs, attempts and pods as the operator's pure parts take them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt, AttemptState, FineTuneJobStatus
from finetune_api.validation import parse
from finetune_contract.checkpoint import CheckpointRef, checkpoint_path
from finetune_contract.reasons import Reason
from finetune_contract.resolved import MemoryEstimate, Resolved
from finetune_contract.result import Outcome, PublishedArtifact, Result
from finetune_operator.observe.observed import ContainerEnd, Observed, Pod
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.backends import BACKEND
from support.operator.jobs import bot_job
from support.storage.publications import RUN

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UID = "job-uid"
MEMORY = {  # bytes; 190 in all
    "weights": 100,
    "adapter": 20,
    "gradients": 3,
    "optimizer": 4,
    "activations": 50,
    "logits": 6,
    "overhead": 7,
}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(status: FineTuneJobStatus | None = None, **spec: Any) -> FineTuneJob:
    usual = {"output": {"uri": "s3://adapters/bot/"}, "workers": {"replicas": 2}}
    body = bot_job(**{**usual, **spec})
    body["metadata"]["uid"] = UID
    return parse(body).model_copy(update={"status": status})


def attempt(number: int = 1, **fields: Any) -> Attempt:
    known: dict[str, Any] = {
        "number": number,
        "state": AttemptState.RUNNING,
        "generation": 1,
        "recipe_digest": "sha256:0",
        "image": "trainer:1",
        "micro_batch_size": 1,
        "start_time": stamp(0),
        "workload_uid": "workload",
    }
    return Attempt(**{**known, **fields})


def pod_spec(of: FineTuneJob) -> Any:
    """The pods of a job's first attempt, as a PyTorchJob asks for them."""
    (workload,) = attempt_objects(of, attempt(), BACKEND, 15.0).started
    return workload["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]


def pod(rank: int = 0, **fields: Any) -> Pod:
    role = "master-0" if rank == 0 else f"worker-{rank - 1}"
    known = Pod(
        name=f"bot-a1-{role}",
        uid=f"pod-{rank}",
        attempt=1,
        node_rank=rank,
        phase="Running",
        reason="",
        message="",
        disrupted=None,
        scheduled=at(0),
        running=True,
        due=None,
        gone=False,
        obstacle=None,
        init_failure=None,
        end=None,
    )
    return replace(known, **fields)


def ended(rank: int = 0, code: int = 1, seconds: float = 0, **fields: Any) -> Pod:
    """A pod whose container ended; `reason` and `result` are the container's."""
    result, reason = fields.pop("result", None), fields.pop("reason", "Error")
    end = ContainerEnd(code, reason, at(seconds), result)
    phase = "Failed" if code else "Succeeded"
    return pod(rank, phase=phase, running=False, end=end, **fields)


def failure(reason: Reason, message: str = "it went wrong", **fields: Any) -> Result:
    return Result(attempt=1, outcome=Outcome.FAILED, reason=reason, message=message, **fields)


def success(uri: str = "s3://adapters/bot/runs/job-uid/a1/artifact", number: int = 1) -> Result:
    artifact = PublishedArtifact(uri=uri, digest="sha256:1", bytes=3)
    return Result(
        attempt=number, outcome=Outcome.SUCCEEDED, reason=Reason.SUCCEEDED, artifact=artifact
    )


def checkpoint_ref(step: int, number: int = 1) -> CheckpointRef:
    path = f"s3://adapters/bot/{checkpoint_path(UID, number, RUN, step)}"
    return CheckpointRef(attempt=number, step=step, uri=path)


def resolved(micro_batch_size: int = 4, **fields: Any) -> Resolved:
    known: dict[str, Any] = {
        "micro_batch_size": micro_batch_size,
        "accumulation_steps": 16 // micro_batch_size,
        "zero_stage": 2,
        "gradient_checkpointing": True,
        "packing": True,
        "memory": MemoryEstimate(**MEMORY, available=1_000),
    }
    return Resolved(**{**known, **fields})


def seen(*pods: Pod, **fields: Any) -> Observed:
    return Observed(pods=pods, **fields)
